"""SELECT and the clauses it shares with the SHOW statements."""

from __future__ import annotations

import enum
import zoneinfo

from dsdbd.influxql.ast import (
    BinaryExpr,
    Call,
    DurationLiteral,
    Expr,
    Field,
    FillKind,
    IntegerLiteral,
    Measurement,
    NumberLiteral,
    ParenExpr,
    Select,
    SortField,
    Source,
    StringLiteral,
    SubQuery,
    VarRef,
)
from dsdbd.influxql.cursor import Cursor
from dsdbd.influxql.parser_expr import PRECEDENCE, parse_expr, parse_regex, parse_segments
from dsdbd.limits import MAX_SELECT_FIELDS

_ONLY_TIME = "only ORDER BY time supported at this time"
_CONDITION_STRENGTH = PRECEDENCE["="]
_PLAIN_FILLS = {
    "null": FillKind.NULL,
    "none": FillKind.NONE,
    "previous": FillKind.PREVIOUS,
    "linear": FillKind.LINEAR,
}


class IntoClause(enum.Enum):
    """Whether a SELECT must have INTO."""

    REQUIRED = "required"
    OPTIONAL = "optional"


def parse_select(cursor: Cursor, into: IntoClause = IntoClause.OPTIONAL) -> Select:
    """A SELECT whose first word has been read."""
    fields = _fields(cursor)
    target = _target(cursor, into)
    cursor.expect("FROM")
    sources = parse_sources(cursor, subqueries=True)
    condition = parse_where(cursor)
    dimensions = parse_group_by(cursor)
    fill, fill_value = _fill(cursor)
    return Select(
        fields=fields,
        target=target,
        sources=sources,
        condition=condition,
        dimensions=dimensions,
        fill=fill,
        fill_value=fill_value,
        sort=parse_order_by(cursor),
        limit=cursor.count("LIMIT"),
        offset=cursor.count("OFFSET"),
        slimit=cursor.count("SLIMIT"),
        soffset=cursor.count("SOFFSET"),
        timezone=_timezone(cursor),
    )


def group_by_interval_ns(select: Select) -> int:
    """The interval of GROUP BY time(…), 0 without one.

    Raises:
        ValueError: the call has the wrong arguments.

    """
    for dimension in select.dimensions:
        if isinstance(dimension, Call) and dimension.name == "time":
            if not 1 <= len(dimension.args) <= 2:
                raise ValueError("time dimension expected 1 or 2 arguments")
            interval = dimension.args[0]
            if not isinstance(interval, DurationLiteral):
                raise ValueError("time dimension must have duration argument")
            return interval.value_ns
    return 0


def contains_call(expr: Expr) -> bool:
    """True when a function is called anywhere inside."""
    match expr:
        case Call():
            return True
        case BinaryExpr(_, lhs, rhs):
            return contains_call(lhs) or contains_call(rhs)
        case ParenExpr(inner):
            return contains_call(inner)
        case _:
            return False


# --- clauses


def parse_sources(cursor: Cursor, *, subqueries: bool = False) -> tuple[Source, ...]:
    """What follows FROM."""
    sources = [parse_source(cursor, subqueries=subqueries)]
    while cursor.accept(","):
        sources.append(parse_source(cursor, subqueries=subqueries))
    return tuple(sources)


def parse_source(cursor: Cursor, *, subqueries: bool = False) -> Source:
    """One measurement, regex or subquery."""
    if regex := parse_regex(cursor):
        return Measurement(regex=regex)
    if subqueries and cursor.accept("("):
        cursor.enter()
        cursor.expect("SELECT")
        select = parse_select(cursor)
        cursor.expect(")")
        cursor.nesting -= 1
        return SubQuery(select)
    return parse_measurement(cursor)


def parse_measurement(cursor: Cursor) -> Measurement:
    """``name``, ``rp.name``, ``db.rp.name``, ``db..name``, each with a regex in place of the name."""
    name = cursor.identifier()
    if cursor.kind != ".":
        return Measurement(name)
    names = parse_segments(cursor, name)
    ends_with_dot = cursor.previous.kind == "."
    regex = parse_regex(cursor) if ends_with_dot and len(names) < 3 else None
    name = "" if regex else names.pop()
    policy = names.pop() if names else None
    database = names.pop() if names else None
    return Measurement(name, regex, database or None, policy or None)


def parse_where(cursor: Cursor) -> Expr | None:
    """The WHERE clause, if there is one."""
    return parse_expr(cursor) if cursor.accept("WHERE") else None


def parse_group_by(cursor: Cursor) -> tuple[Expr, ...]:
    """The GROUP BY clause, if there is one."""
    if not cursor.accept("GROUP"):
        return ()
    cursor.expect("BY")
    dimensions: list[Expr] = []
    while True:
        dimensions.append(parse_regex(cursor) or parse_expr(cursor))
        if not cursor.accept(","):
            return tuple(dimensions)
        # The guide writes a comma before fill(); it is no dimension.
        if cursor.kind == "IDENT" and not cursor.quoted and cursor.text.lower() == "fill":
            return tuple(dimensions)


def parse_order_by(cursor: Cursor) -> tuple[SortField, ...]:
    """The ORDER BY clause, if there is one; time is the only column to sort by."""
    if not cursor.accept("ORDER"):
        return ()
    cursor.expect("BY")
    token = cursor.peek()
    if token.kind in {"ASC", "DESC"}:
        field = SortField(ascending=cursor.take().kind == "ASC")
    elif token.kind == "IDENT":
        field = _sort_field(cursor)
        if field.name != "time":
            raise cursor.error(_ONLY_TIME)
    else:
        raise cursor.expected(token, "identifier", "ASC", "DESC")
    if cursor.accept(","):
        _sort_field(cursor)
        raise cursor.error(_ONLY_TIME)
    return (field,)


def _sort_field(cursor: Cursor) -> SortField:
    name = cursor.identifier()
    if cursor.peek().kind in {"ASC", "DESC"}:
        return SortField(name, cursor.take().kind == "ASC")
    return SortField(name)


def _fields(cursor: Cursor) -> tuple[Field, ...]:
    fields = [_field(cursor)]
    while cursor.accept(","):
        fields.append(_field(cursor))
        if len(fields) > MAX_SELECT_FIELDS:
            raise cursor.error(f"SELECT names more than {MAX_SELECT_FIELDS} fields; ask for them in several statements")
    return tuple(fields)


def _field(cursor: Cursor) -> Field:
    expr: Expr | None = parse_regex(cursor)
    if expr is None:
        start = cursor.peek().at
        expr = parse_expr(cursor)
        operator = _condition_operator(expr)
        if operator:
            line, char = cursor.position(start)
            raise cursor.error(
                f"invalid operator {operator} in SELECT clause at line {line}, char {char};"
                " operator is intended for WHERE clause"
            )
    return Field(expr, cursor.identifier() if cursor.accept("AS") else None)


def _condition_operator(expr: Expr) -> str | None:
    """The last operator that compares or connects conditions, which a column cannot be; the one 1.x reports."""
    match expr:
        case BinaryExpr(op, lhs, rhs):
            if PRECEDENCE[op] <= _CONDITION_STRENGTH:
                return op
            return _condition_operator(rhs) or _condition_operator(lhs)
        case ParenExpr(inner):
            return _condition_operator(inner)
        case Call(_, args):
            return next(filter(None, map(_condition_operator, reversed(args))), None)
        case _:
            return None


def _target(cursor: Cursor, into: IntoClause) -> Measurement | None:
    if not cursor.accept("INTO"):
        if into is IntoClause.REQUIRED:
            raise cursor.expected(cursor.peek(), "INTO")
        return None
    names = parse_segments(cursor)
    ends_with_dot = cursor.previous.kind == "."
    if len(names) < 3 and (ends_with_dot or cursor.adjacent(":")):
        cursor.expect(":", "MEASUREMENT")
        names.append("")
    name = names.pop()
    policy = names.pop() if names else None
    database = names.pop() if names else None
    return Measurement(name, None, database or None, policy or None)


def _call_named(cursor: Cursor, name: str) -> Call | None:
    """A call of this name where a clause may stand; anything else of that name is an error."""
    if cursor.kind != "IDENT" or cursor.text.lower() != name:
        return None
    expr = parse_expr(cursor)
    if not isinstance(expr, Call):
        raise cursor.error(f"{name} must be a function call")
    return expr


def _fill(cursor: Cursor) -> tuple[FillKind, int | float | None]:
    call = _call_named(cursor, "fill")
    if call is None:
        return FillKind.NULL, None
    if len(call.args) != 1:
        raise cursor.error("fill requires an argument, e.g.: 0, null, none, previous, linear")
    match call.args[0]:
        case VarRef(name, None) if name in _PLAIN_FILLS:
            return _PLAIN_FILLS[name], None
        case IntegerLiteral(value) | NumberLiteral(value):
            return FillKind.NUMBER, value
        case _:
            raise cursor.error("expected number argument in fill()")


def _timezone(cursor: Cursor) -> str | None:
    call = _call_named(cursor, "tz")
    if call is None:
        return None
    if len(call.args) != 1:
        raise cursor.error("tz requires exactly one argument")
    name = call.args[0]
    if not isinstance(name, StringLiteral):
        raise cursor.error("expected string argument in tz()")
    try:
        zoneinfo.ZoneInfo(name.value or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):  # unknown; a directory; not a relative path
        raise cursor.error(f"unable to find time zone {name.value}") from None
    return name.value or "UTC"
