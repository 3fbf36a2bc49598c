"""Divides a WHERE without time into a predicate on tags, for the index, and a filter of rows, for what remains."""

from __future__ import annotations

from dataclasses import dataclass

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql.format import to_text
from dsdbd.model.predicate import EVERY_SERIES, AllOf, AnyOf, TagEquals, TagMatches, TagPredicate
from dsdbd.query import mathfunctions
from dsdbd.query.plan_types import Expr, FieldLeaf, Lit, MathCall, Op, Pattern, TagLeaf
from dsdbd.query.schema import MeasurementSchema

NO_SERIES = AnyOf(())
_NOTHING = MathCall("abs", [Lit("")])
"""An operand that never has a value: no comparison with it holds."""
_WITHOUT_VALUE = frozenset({ast.DurationLiteral, ast.TimeLiteral})
_COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">=", "=~", "!~"})
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class RowCondition:
    """``predicate`` chooses series; ``filter`` (None: all) the rows of those; ``fields`` are what the filter reads."""

    predicate: TagPredicate = EVERY_SERIES
    filter: Expr | None = None
    fields: tuple[str, ...] = ()


def divide_condition(condition: ast.Expr | None, schema: MeasurementSchema) -> RowCondition:
    """What a measurement's rows must satisfy.

    A name that is a field is a field, every other name is a tag, known or not, as in InfluxDB 1.x.
    """
    if condition is None:
        return RowCondition()
    predicates: list[TagPredicate] = []
    filters: list[Expr] = []
    for part in _conjuncts(condition):
        predicate = _tag_predicate(part, schema)
        if predicate is None:
            filters.append(_row_expr(part, schema))
        else:
            predicates.append(predicate)
    combined: Expr | None = None
    for part_filter in filters:
        combined = part_filter if combined is None else Op("AND", combined, part_filter)
    fields = sorted({name for part_filter in filters for name in _field_names(part_filter)})
    return RowCondition(AllOf(tuple(predicates)) if predicates else EVERY_SERIES, combined, tuple(fields))


def tags_only(condition: ast.Expr | None) -> TagPredicate:
    """The predicate of a WHERE in which every name is a tag, as SHOW statements read it.

    Raises RequestError for a comparison that tags do not have.
    """
    if condition is None:
        return EVERY_SERIES
    predicate = _tag_predicate(condition, MeasurementSchema({}, frozenset()))
    if predicate is None:
        raise RequestError(
            f"WHERE of this statement compares tags with constants; this it cannot: {to_text(condition)}"
        )
    return predicate


def _conjuncts(expr: ast.Expr) -> list[ast.Expr]:
    match expr:
        case ast.BinaryExpr("AND", lhs, rhs):
            return _conjuncts(lhs) + _conjuncts(rhs)
        case ast.ParenExpr(inner):
            return _conjuncts(inner)
    return [expr]


def _is_tag(expr: ast.Expr, schema: MeasurementSchema) -> bool:
    if type(expr) is not ast.VarRef or expr.type not in (None, "tag"):
        return False
    return expr.type == "tag" or expr.name not in schema.fields


def _tag_predicate(expr: ast.Expr, schema: MeasurementSchema) -> TagPredicate | None:
    """The predicate equal to ``expr``; None when it also needs fields, or two tags of one series."""
    match expr:
        case ast.BinaryExpr("AND" | "OR" as op, lhs, rhs):
            left, right = _tag_predicate(lhs, schema), _tag_predicate(rhs, schema)
            if left is None or right is None:
                return None
            return AllOf((left, right)) if op == "AND" else AnyOf((left, right))
        case ast.BinaryExpr(op, ast.VarRef() as ref, value) if op in _COMPARISONS and _is_tag(ref, schema):
            return _tag_comparison(op, ref.name, value)
        case ast.BinaryExpr(op, value, ast.VarRef() as ref) if op in _COMPARISONS and _is_tag(ref, schema):
            return _tag_comparison(_MIRRORED.get(op, op), ref.name, value)
        case ast.ParenExpr(inner):
            return _tag_predicate(inner, schema)
        case ast.BooleanLiteral(value):
            return EVERY_SERIES if value else NO_SERIES
    return None


def _tag_comparison(op: str, key: str, value: ast.Expr) -> TagPredicate | None:
    """Tags know equality and regex with constants; any other comparison holds for none."""
    match value:
        case ast.StringLiteral(text) if op in ("=", "!="):
            return TagEquals(key, text, op == "!=")
        case ast.RegexLiteral(pattern) if op in ("=~", "!~", "=", "!="):
            return TagMatches(key, pattern, op in ("!~", "!="))
        case ast.VarRef():
            return None
    return NO_SERIES


def literal(expr: ast.Expr) -> Lit | None:
    """The number, text or truth value that an expression is; None where it is none."""
    match expr:
        case ast.NumberLiteral(value) | ast.IntegerLiteral(value) | ast.StringLiteral(value):
            return Lit(value)
        case ast.BooleanLiteral(truth):
            return Lit(truth)
        case ast.UnsignedLiteral(value):
            return Lit(float(value))
    return None


def _row_expr(expr: ast.Expr, schema: MeasurementSchema) -> Expr:
    match expr:
        case ast.ParenExpr(inner):
            return _row_expr(inner, schema)
        case ast.VarRef(name):
            return TagLeaf(name) if _is_tag(expr, schema) else FieldLeaf(name)
        case ast.BinaryExpr(op, lhs, rhs):
            if op in _COMPARISONS and (_is_tag(lhs, schema) or _is_tag(rhs, schema)):
                return _row_tag_comparison(op, lhs, rhs, schema)
            return Op(op, _operand(lhs, rhs, schema), _operand(rhs, lhs, schema))
        case ast.Call(name, args) if name in mathfunctions.ARGUMENT_COUNTS:
            return MathCall(name, [_row_expr(arg, schema) for arg in args])
        case ast.RegexLiteral(pattern):
            return Pattern(pattern)
        case ast.DurationLiteral() | ast.TimeLiteral():
            return _NOTHING
    found = literal(expr)
    if found is not None:
        return found
    raise RequestError(f"WHERE cannot use this expression: {to_text(expr)}")


def _operand(expr: ast.Expr, other: ast.Expr, schema: MeasurementSchema) -> Expr:
    """A duration or a time has no value in a row, and what has none counts as false beside a boolean."""
    if type(expr) in _WITHOUT_VALUE and type(other) not in _WITHOUT_VALUE:
        return Lit(False)
    return _row_expr(expr, schema)


def _row_tag_comparison(op: str, lhs: ast.Expr, rhs: ast.Expr, schema: MeasurementSchema) -> Expr:
    if not _is_tag(lhs, schema):
        lhs, rhs, op = rhs, lhs, _MIRRORED.get(op, op)
    left = _row_expr(lhs, schema)
    match rhs:
        case ast.StringLiteral(text) if op in ("=", "!="):
            return Op(op, left, Lit(text))
        case ast.RegexLiteral(pattern):
            return Op("!~" if op in ("!=", "!~") else "=~", left, Pattern(pattern))
        case ast.VarRef() if op in ("=", "!="):
            return _row_tag_and_column(op, left, _row_expr(rhs, schema))
    return Lit(False)


def _row_tag_and_column(op: str, tag: Expr, other: Expr) -> Expr:
    """An absent tag is neither equal nor unequal to a field; two tags that are not both there are unequal."""
    compared, there = Op(op, tag, other), Op("!=", tag, Lit(""))
    if op == "!=" and isinstance(other, TagLeaf):
        return Op("OR", compared, Op("=", tag, Lit("")))
    return Op("AND", compared, there)


def check_condition(condition: ast.Expr | None) -> None:
    """Raise RequestError for a call that WHERE does not know, or with another number of arguments than it takes."""
    match condition:
        case ast.BinaryExpr(_, lhs, rhs):
            check_condition(lhs)
            check_condition(rhs)
        case ast.ParenExpr(inner):
            check_condition(inner)
        case ast.Call("now", ()):
            return
        case ast.Call(name, args):
            if name not in mathfunctions.ARGUMENT_COUNTS:
                raise RequestError(f"invalid function call in condition: {to_text(condition)}")
            expected = mathfunctions.ARGUMENT_COUNTS[name]
            if len(args) != expected:
                raise RequestError(f"invalid number of arguments for {name}, expected {expected}, got {len(args)}")
            for arg in args:
                check_condition(arg)


def _field_names(expr: Expr) -> set[str]:
    match expr:
        case FieldLeaf(name):
            return {name}
        case Op(_, lhs, rhs):
            return _field_names(lhs) | _field_names(rhs)
        case MathCall(_, args):
            return {name for arg in args for name in _field_names(arg)}
    return set()
