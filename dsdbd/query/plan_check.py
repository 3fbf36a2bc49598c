"""Rules a SELECT must keep before any data is looked at, with the error texts of InfluxDB 1.x."""

from __future__ import annotations

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql.durations import format_duration
from dsdbd.influxql.format import to_text
from dsdbd.model.times import looks_like_time
from dsdbd.query import mathfunctions
from dsdbd.query.plan_check_calls import (
    COLUMNS,
    FORECASTS,
    INDICATORS,
    PICKS,
    Found,
    check_forecast,
    check_indicator,
    check_integral,
    check_picks,
    check_sample,
    check_symbol,
    expect_count,
)
from dsdbd.query.plan_condition import check_condition
from dsdbd.query.plan_fields import is_time, refuse_wildcards, simple_dimension

SELECTOR_CALLS = frozenset({"min", "max", "first", "last", "percentile", "sample"}) | PICKS
PLAIN_CALLS = frozenset({"min", "max", "first", "last"}) | {
    "count",
    "sum",
    "mean",
    "median",
    "mode",
    "stddev",
    "spread",
}
RATES = frozenset({"derivative", "non_negative_derivative"})
DIFFERENCES = frozenset({"difference", "non_negative_difference", "cumulative_sum"})
TRANSFORMS = RATES | DIFFERENCES | INDICATORS | FORECASTS | {"elapsed", "moving_average"}
_SINCE_YEAR_ONE_NS = 62_135_596_800 * 1_000_000_000
"""A moment is cut to a multiple of an interval as Go does it: counted from the year 1."""
_KINDS: dict[type, str] = {
    ast.IntegerLiteral: "IntegerLiteral",
    ast.NumberLiteral: "NumberLiteral",
    ast.StringLiteral: "StringLiteral",
    ast.VarRef: "VarRef",
    ast.DurationLiteral: "DurationLiteral",
}


def time_dimension(dimensions: tuple[ast.Expr, ...], now_ns: int) -> tuple[int, int]:
    """Interval and offset of GROUP BY time in nanoseconds, 0 and 0 without one; raises RequestError."""
    interval_ns = offset_ns = 0
    for expr in map(simple_dimension, dimensions):
        if isinstance(expr, ast.VarRef) and expr.name.lower() == "time":
            raise RequestError("time() is a function and expects at least one argument")
        if type(expr) in COLUMNS:
            continue
        if not isinstance(expr, ast.Call):
            raise RequestError("only time and tag dimensions allowed")
        if expr.name != "time":
            raise RequestError("only time() calls allowed in dimensions")
        if not 1 <= len(expr.args) <= 2:
            raise RequestError("time dimension expected 1 or 2 arguments")
        first = expr.args[0]
        if not isinstance(first, ast.DurationLiteral):
            raise RequestError("time dimension must have duration argument")
        if interval_ns:
            raise RequestError("multiple time dimensions not allowed")
        interval_ns = max(first.value_ns, 0)
        if interval_ns and len(expr.args) == 2:
            offset_ns = _window_offset(expr.args[1], interval_ns, now_ns)
    return interval_ns, offset_ns


def _window_offset(expr: ast.Expr, interval_ns: int, now_ns: int) -> int:
    match expr:
        case ast.DurationLiteral(value_ns):
            offset = value_ns
        case ast.TimeLiteral(value_ns):
            return (value_ns + _SINCE_YEAR_ONE_NS) % interval_ns
        case ast.Call("now", ()):
            return (now_ns + _SINCE_YEAR_ONE_NS) % interval_ns
        case ast.Call("now"):
            raise RequestError("time dimension offset now() function requires no arguments")
        case ast.Call():
            raise RequestError("time dimension offset function must be now()")
        case ast.StringLiteral(text) if looks_like_time(text):
            raise RequestError(f"invalid time dimension offset: {to_text(expr)}")
        case _:
            raise RequestError("time dimension offset must be duration or now()")
    # The remainder keeps the sign of the offset; windows are the same either way.
    return offset - interval_ns * int(offset / interval_ns)


def check_select(statement: ast.Select, *, has_interval: bool, inherited: bool = False) -> None:
    """Raise RequestError for a select list that InfluxDB 1.x refuses.

    ``inherited``: it is a subquery without an interval of its own in a statement with one.
    """
    check_condition(statement.condition)
    found = Found(has_interval, statement.limit, inherited=inherited)
    fields = [field for field in statement.fields if not is_time(field.expr)]
    for field in fields:
        if not _has_variable(field.expr):
            raise RequestError("field must contain at least one variable")
        _check_expr(field.expr, found)
    if not fields:
        raise RequestError("at least 1 non-time field must be queried")
    if found.functions > 1 and found.picking:
        raise RequestError(f"selector function {found.picking}() cannot be combined with other functions")
    if not found.calls:
        if statement.fill in (ast.FillKind.NONE, ast.FillKind.LINEAR):
            raise RequestError(f"fill({statement.fill}) must be used with a function")
        if has_interval and not inherited:
            raise RequestError("GROUP BY requires at least one aggregate function")
    if found.has_distinct and (found.functions != 1 or found.has_plain_fields):
        raise RequestError("aggregate function distinct() cannot be combined with other functions or fields")
    if found.has_plain_fields and not found.only_selectors:
        raise RequestError("mixing aggregate and non-aggregate queries is not supported")
    if found.has_plain_fields and found.calls > 1:
        raise RequestError("mixing multiple selector functions with tags or fields is not supported")


def _has_variable(expr: ast.Expr) -> bool:
    if type(expr) in COLUMNS:
        return True
    match expr:
        case ast.Call(name, args):
            if name not in mathfunctions.ARGUMENT_COUNTS or not args:
                return True
            return any(_has_variable(arg) for arg in args if not isinstance(arg, ast.RegexLiteral))
        case ast.ParenExpr(inner):
            return _has_variable(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            return _has_variable(lhs) or _has_variable(rhs)
        case ast.Distinct():
            return True
    return False


def _check_expr(expr: ast.Expr, found: Found) -> None:
    if type(expr) in COLUMNS:
        found.has_plain_fields = True
        return
    match expr:
        case ast.Call(name, args) if name not in mathfunctions.ARGUMENT_COUNTS:
            _count(found, selector=name in SELECTOR_CALLS)
            _check_call(expr, found)
        case ast.Call(name, args):
            expect_count(name, len(args), mathfunctions.ARGUMENT_COUNTS[name])
            for arg in args:
                _check_expr(arg, found)
        case ast.ParenExpr(inner):
            _check_expr(inner, found)
        case ast.BinaryExpr(_, lhs, rhs):
            refuse_wildcards(expr)
            _check_expr(lhs, found)
            _check_expr(rhs, found)
        case ast.Distinct():
            _count(found, selector=False)
            found.has_distinct = True


def _count(found: Found, *, selector: bool) -> None:
    found.calls += 1
    found.functions += 1
    found.only_selectors = found.only_selectors and selector


def _check_call(call: ast.Call, found: Found) -> None:
    name, args = call.name, call.args
    if name in TRANSFORMS:
        _check_transform(call, found)
        return
    if name in PICKS:
        check_picks(call, found)
        return
    if name == "sample":
        check_sample(args, found)
        return
    if name == "integral":
        check_integral(args, found)
        return
    if name == "distinct":
        _check_distinct(args)
        found.has_distinct = True
        return
    if name == "percentile":
        expect_count(name, len(args), 2)
        check_symbol(name, args[0], found)
        if not isinstance(args[1], ast.IntegerLiteral | ast.NumberLiteral):
            raise RequestError("expected float argument in percentile()")
        return
    if name not in PLAIN_CALLS:
        raise RequestError(f"undefined function {name}()")
    expect_count(name, len(args), 1)
    if name == "count" and isinstance(args[0], ast.Distinct):
        return
    if name == "count" and isinstance(args[0], ast.Call) and args[0].name == "distinct":
        _check_distinct(args[0].args)
        return
    check_symbol(name, args[0], found)


def _check_distinct(args: tuple[ast.Expr, ...]) -> None:
    if not args:
        raise RequestError("distinct function requires at least one argument")
    if len(args) != 1:
        raise RequestError("distinct function can only have one argument")
    if not isinstance(args[0], ast.VarRef):
        raise RequestError("expected field argument in distinct()")


def _check_transform(call: ast.Call, found: Found) -> None:
    name, args = call.name, call.args
    if name in FORECASTS:
        check_forecast(call, found, lambda inner: _check_nested(inner, found))
        return
    if name in INDICATORS:
        check_indicator(call, found)
    elif name == "moving_average":
        expect_count(name, len(args), 2)
        _check_window(args[1])
    elif name in DIFFERENCES:
        expect_count(name, len(args), 1)
    else:
        expect_count(name, len(args), 1, 2)
        if len(args) == 2:
            _check_unit(name, args[1])
    inner = args[0]
    if isinstance(inner, ast.Call | ast.Distinct):
        if not found.has_interval:
            raise RequestError(f"{name} aggregate requires a GROUP BY interval")
        if isinstance(inner, ast.Distinct):
            raise RequestError(f"expected field argument in {name}()")
        if name in INDICATORS and inner.name == "distinct":
            found.has_distinct = True
            found.functions += 1
        _check_nested(inner, found)
        return
    if found.has_interval and not found.inherited:
        raise RequestError(f"aggregate function required inside the call to {name}")
    check_symbol(name, inner, found)


def _check_nested(call: ast.Expr, found: Found) -> None:
    """A call inside another; ``distinct`` is none of the statement's there."""
    assert isinstance(call, ast.Call)
    if call.name == "distinct":
        _check_distinct(call.args)
        return
    found.functions += 1
    _check_call(call, found)


def _check_window(expr: ast.Expr) -> None:
    if not isinstance(expr, ast.IntegerLiteral):
        raise RequestError(
            f"second argument for moving_average must be an integer, got *influxql.{_KINDS.get(type(expr), 'Call')}"
        )
    if expr.value <= 1:
        raise RequestError(f"moving_average window must be greater than 1, got {expr.value}")


def _check_unit(name: str, expr: ast.Expr) -> None:
    if not isinstance(expr, ast.DurationLiteral):
        raise RequestError(
            f"second argument to {name} must be a duration, got *influxql.{_KINDS.get(type(expr), 'Call')}"
        )
    if expr.value_ns <= 0:
        raise RequestError(f"duration argument must be positive, got {format_duration(expr.value_ns)}")
