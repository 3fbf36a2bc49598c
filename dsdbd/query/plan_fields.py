"""The select list: wildcards and patterns become columns, and every column gets its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import re2
from msgspec.structs import replace

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql.format import column_name
from dsdbd.influxql.reduce import reduce_expr
from dsdbd.model.types import FieldType
from dsdbd.query import mathfunctions
from dsdbd.query.schema import Derived, MeasurementSchema

_NUMBERS = frozenset({FieldType.FLOAT, FieldType.INTEGER})
_WILDCARD_TYPES: dict[str, frozenset[FieldType]] = {
    **dict.fromkeys(("count", "first", "last", "distinct", "elapsed", "mode", "sample"), frozenset(FieldType)),
    **dict.fromkeys(("min", "max"), _NUMBERS | {FieldType.BOOLEAN}),
}
_NOT_SIMPLE = frozenset({ast.ParenExpr, ast.BinaryExpr, ast.Call})


def simplified(select: ast.Select) -> ast.Select:
    """The statement with its calls and dimensions simplified, in subqueries too."""
    fields = tuple([_simplified_field(field) for field in select.fields])
    dimensions = tuple([simple_dimension(expr) for expr in select.dimensions])
    sources = tuple(
        ast.SubQuery(simplified(source.statement)) if type(source) is ast.SubQuery else source
        for source in select.sources
    )
    return replace(select, fields=fields, dimensions=dimensions, sources=sources)


def _simplified_field(field: ast.Field) -> ast.Field:
    expr = _simple(field.expr)
    return field if expr is field.expr else replace(field, expr=expr)


def simple_dimension(expr: ast.Expr) -> ast.Expr:
    """``(host)`` is ``host``, and ``time((1m))`` is ``time(1m)``."""
    return reduce_expr(expr) if type(expr) is ast.ParenExpr else _simple(expr)


def _simple(expr: ast.Expr) -> ast.Expr:
    """``mean((f))`` is ``mean(f)``, and ``percentile(f, 20 + 30)`` is ``percentile(f, 50)``."""
    if type(expr) is ast.VarRef:
        return expr
    if type(expr) is ast.Call:
        return expr if _NOT_SIMPLE.isdisjoint(map(type, expr.args)) else reduce_expr(expr)
    match expr:
        case ast.ParenExpr(inner):
            found = _simple(inner)
            return expr if found is inner else ast.ParenExpr(found)
        case ast.BinaryExpr(op, lhs, rhs):
            left, right = _simple(lhs), _simple(rhs)
            return expr if left is lhs and right is rhs else ast.BinaryExpr(op, left, right)
    return expr


def is_time(expr: ast.Expr) -> bool:
    """True for the column ``time``, which every answer has anyway."""
    return type(expr) is ast.VarRef and expr.name == "time"


def expand_fields(
    fields: Iterable[ast.Field], schema: MeasurementSchema, grouped: frozenset[str]
) -> tuple[ast.Field, ...]:
    """Fields without wildcards; ``grouped`` are the GROUP BY tags, which ``*`` leaves out."""
    expanded: list[ast.Field] = []
    for field in fields:
        expr = field.expr
        while isinstance(expr, ast.ParenExpr):
            expr = expr.expr
        match expr:
            case ast.Call():
                expanded += _expand_call(field, expr, schema)
            case ast.Wildcard() | ast.RegexLiteral():
                expanded += [ast.Field(ref) for ref in _refs(expr, schema, grouped)]
            case _:
                expanded.append(field)
    return tuple(expanded)


def _accepts(expr: ast.Wildcard | ast.RegexLiteral) -> Callable[[str], bool]:
    if isinstance(expr, ast.Wildcard):
        return lambda _: True
    compiled = re2.compile(expr.pattern)
    return lambda name: compiled.search(name) is not None


def _refs(expr: ast.Wildcard | ast.RegexLiteral, schema: MeasurementSchema, grouped: frozenset[str]) -> list[ast.Expr]:
    """Fields and tags by name; where both have one name the field comes first."""
    accepts = _accepts(expr)
    kind = expr.kind if isinstance(expr, ast.Wildcard) else ast.WildcardKind.ANY
    found: list[tuple[str, int, str]] = []
    if kind is not ast.WildcardKind.TAG:
        found += [(name, 0, field_type.value) for name, field_type in schema.fields.items() if accepts(name)]
    if schema.derived is not None:
        found = _of_subquery(found, schema.derived, kind, accepts)
    if kind is not ast.WildcardKind.FIELD:
        found += [(name, 1, "tag") for name in schema.tags - grouped if accepts(name)]
    return [ast.VarRef(name, cast) for name, _, cast in sorted(found)]


def _of_subquery(
    fields: list[tuple[str, int, str]], derived: Derived, kind: ast.WildcardKind, accepts: Callable[[str], bool]
) -> list[tuple[str, int, str]]:
    """What a wildcard stands for among the columns of a subquery, of which some hold tags and some nothing."""
    found = [field for field in fields if field[0] not in derived.labels]
    if kind is not ast.WildcardKind.FIELD:
        found += [(name, 1, "tag") for name in derived.labels if accepts(name)]
    if kind is not ast.WildcardKind.TAG:
        found += [(name, 0, "field") for name in derived.unknown if accepts(name)]
    return [field for field in found if field[0] not in derived.hidden]


def _expand_call(field: ast.Field, call: ast.Call, schema: MeasurementSchema) -> list[ast.Field]:
    """``mean(*)`` and ``derivative(mean(/x/))`` become one call per field, named ``mean_<field>``."""
    if call.args and type(call.args[0]) is ast.VarRef:
        return [field]
    path = [call]
    while path[-1].args and isinstance(path[-1].args[0], ast.Call):
        path.append(path[-1].args[0])
    innermost = path[-1]
    if not innermost.args or not isinstance(innermost.args[0], ast.Wildcard | ast.RegexLiteral):
        return [field]
    wildcard = innermost.args[0]
    if isinstance(wildcard, ast.Wildcard) and wildcard.kind is ast.WildcardKind.TAG:
        raise RequestError(f"unable to use tag wildcard in {innermost.name}()")
    accepts = _accepts(wildcard)
    types = _WILDCARD_TYPES.get(innermost.name, _NUMBERS)
    expanded = []
    labels = frozenset() if schema.derived is None else schema.derived.labels | schema.derived.hidden
    for name, field_type in sorted(schema.fields.items()):
        if field_type not in types or name in labels or not accepts(name):
            continue
        inner: ast.Call = replace(innermost, args=(ast.VarRef(name, field_type.value), *innermost.args[1:]))
        for outer in reversed(path[:-1]):
            inner = replace(outer, args=(inner, *outer.args[1:]))
        expanded.append(ast.Field(inner, f"{column_name(field)}_{name}"))
    return expanded


def expand_dimensions(dimensions: Iterable[ast.Expr], schema: MeasurementSchema) -> list[str]:
    """GROUP BY tags, sorted; ``*`` stands for all tags and a pattern for those it matches."""
    names: set[str] = set()
    for expr in dimensions:
        match expr:
            case ast.VarRef(name):
                names.add(name)
            case ast.Wildcard():
                names |= schema.tags
            case ast.RegexLiteral():
                accepts = _accepts(expr)
                names |= {name for name in schema.tags if accepts(name)}
    return sorted(names)


def column_names(fields: Iterable[ast.Field]) -> list[str]:
    """Titles of the columns; a name that is taken gets ``_1``, ``_2`` …, and aliases take names first."""
    fields = list(fields)
    names: list[str] = [field.alias or "" for field in fields]
    taken: dict[str, int] = {name: 1 for name in names if name}
    for position, field in enumerate(fields):
        if names[position]:
            continue
        name = column_name(field)
        if name in taken:
            count = taken[name]
            while f"{name}_{count}" in taken:
                count += 1
            taken[name] = count + 1
            name = f"{name}_{count}"
        taken[name] = taken.get(name, 0) + 1
        names[position] = name
    return names


def refuse_wildcards(expr: ast.Expr) -> None:
    """Raise RequestError for a wildcard or pattern inside arithmetic."""
    match expr:
        case ast.Call(name, (ast.Wildcard(), *_)) if name not in mathfunctions.ARGUMENT_COUNTS:
            raise RequestError(f"unsupported expression with wildcard: {name}()")
        case ast.Call(name, (ast.RegexLiteral(), *_)) if name not in mathfunctions.ARGUMENT_COUNTS:
            raise RequestError(f"unsupported expression with regex field: {name}()")
        case ast.Call(_, args):
            for arg in args:
                refuse_wildcards(arg)
        case ast.Wildcard():
            raise RequestError("unable to use wildcard in a binary expression")
        case ast.RegexLiteral():
            raise RequestError("unable to use regex in a binary expression")
        case ast.ParenExpr(inner):
            refuse_wildcards(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            refuse_wildcards(lhs)
            refuse_wildcards(rhs)
