"""Splits a WHERE into the range of time it allows and the condition on tags and fields that remains."""

from __future__ import annotations

import functools
from datetime import tzinfo
from typing import Final

import msgspec

from dsdbd.errors import RequestError
from dsdbd.influxql.ast import (
    BinaryExpr,
    BooleanLiteral,
    DurationLiteral,
    Expr,
    IntegerLiteral,
    NumberLiteral,
    ParenExpr,
    RegexLiteral,
    StringLiteral,
    TimeLiteral,
    VarRef,
)
from dsdbd.influxql.format import to_text
from dsdbd.influxql.reduce import join_conditions, reduce_expr
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS, format_rfc3339nano, looks_like_time, parse_time

_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
_PLAIN: Final = frozenset({StringLiteral, NumberLiteral, IntegerLiteral, RegexLiteral})
_MIN_INT64: Final = -(2**63)
_MAX_INT64: Final = 2**63 - 1


class TimeRange(msgspec.Struct, frozen=True):
    """Times from ``min_ns`` to ``max_ns``, both included and within int64; ``None`` where the condition sets no bound.

    The range of a contradiction has its minimum above its maximum, or beyond every time a point can have.
    """

    min_ns: int | None = None
    max_ns: int | None = None

    def intersect(self, other: TimeRange) -> TimeRange:
        """The times in both."""
        if self is ALL_TIMES or other is ALL_TIMES:
            return self if other is ALL_TIMES else other
        lower = [bound for bound in (self.min_ns, other.min_ns) if bound is not None]
        upper = [bound for bound in (self.max_ns, other.max_ns) if bound is not None]
        return TimeRange(max(lower, default=None), min(upper, default=None))

    @property
    def is_unbounded(self) -> bool:
        """True when time was not mentioned."""
        return self.min_ns is None and self.max_ns is None


ALL_TIMES: Final = TimeRange()


def split_condition(
    condition: Expr | None, now_ns: int | None, zone: tzinfo | None = None
) -> tuple[Expr | None, TimeRange]:
    """The condition without its time comparisons, and the range they leave.

    Ranges are intersected whatever operator joins them, so ``OR`` between times means ``AND``: so does InfluxDB 1.x,
    and clients rely on it. What remains has its constants computed; ``None`` means "everything".

    Args:
        condition: the expression of WHERE, or ``None``.
        now_ns: what ``now()`` is.
        zone: the zone of ``tz()``, in which strings without one are read; UTC with ``None``.

    Raises:
        RequestError: with the words of InfluxDB 1.x, when time is compared with something that is no time.

    """
    if condition is None:
        return None, ALL_TIMES
    remaining, times = _split(condition, now_ns, zone)
    if isinstance(remaining, ParenExpr):
        remaining = remaining.expr
    if isinstance(remaining, BooleanLiteral) and remaining.value:
        remaining = None
    return remaining, times


def _split(expr: Expr, now_ns: int | None, zone: tzinfo | None) -> tuple[Expr | None, TimeRange]:
    if type(expr) is BinaryExpr:
        op, lhs, rhs = expr.op, expr.lhs, expr.rhs
        if op == "AND" or op == "OR":
            left, left_times = _split(lhs, now_ns, zone)
            right, right_times = _split(rhs, now_ns, zone)
            times = left_times.intersect(right_times)
            if left is None or right is None:
                return (right if left is None else left), times
            return join_conditions(op, left, right), times
        if type(lhs) is VarRef and type(rhs) in _PLAIN and not _is_time(lhs):
            return expr, ALL_TIMES  # nothing in it can be computed
    match expr:
        case BinaryExpr(op, lhs, rhs) if _is_time(lhs):
            return None, _time_range(op, rhs, now_ns, zone)
        case BinaryExpr(op, lhs, rhs) if _is_time(rhs):
            return None, _time_range(_MIRRORED.get(op, op), lhs, now_ns, zone)
        case BinaryExpr():
            reduced = reduce_expr(expr, now_ns, zone)
            if not isinstance(reduced, BinaryExpr | BooleanLiteral):
                raise RequestError(f"invalid condition expression: {to_text(reduced)}")
            return reduced, ALL_TIMES
        case ParenExpr(inner):
            remaining, times = _split(inner, now_ns, zone)
            if remaining is None:
                return None, times
            return (ParenExpr(remaining) if isinstance(remaining, BinaryExpr) else remaining), times
        case BooleanLiteral():
            return expr, ALL_TIMES
        case _:
            raise RequestError(f"invalid condition expression: {to_text(expr)}")


def _is_time(expr: Expr) -> bool:
    return type(expr) is VarRef and expr.name.lower() == "time"


def _time_range(op: str, value: Expr, now_ns: int | None, zone: tzinfo | None) -> TimeRange:
    time_ns = _time_value(value, now_ns, zone)
    match op:
        case "=":
            return TimeRange(time_ns, time_ns)
        case ">=":
            return TimeRange(min_ns=time_ns)
        case ">":
            return TimeRange(min_ns=min(time_ns + 1, _MAX_INT64))
        case "<=":
            return TimeRange(max_ns=time_ns)
        case "<":
            return TimeRange(max_ns=max(time_ns - 1, _MIN_INT64))
        case _:
            raise RequestError(f"invalid time comparison operator: {op}")


def _time_value(value: Expr, now_ns: int | None, zone: tzinfo | None) -> int:
    if isinstance(value, StringLiteral) and looks_like_time(value.value):
        try:
            value = TimeLiteral(_parsed_time(value.value, zone))
        except ValueError as error:
            raise RequestError(str(error)) from None
    reduced = reduce_expr(value, now_ns, zone)
    match reduced:
        case TimeLiteral(time_ns):
            _check_bounds(time_ns)
        case DurationLiteral(time_ns) | IntegerLiteral(time_ns):
            pass
        case NumberLiteral(number):
            time_ns = int(number)
            if not _MIN_INT64 <= time_ns <= _MAX_INT64:
                raise RequestError(f"time {to_text(reduced)} does not fit into int64 nanoseconds")
        case _:
            raise RequestError(f"invalid operation: time and *influxql.{type(reduced).__name__} are not compatible")
    return time_ns


@functools.lru_cache(maxsize=256)
def _parsed_time(text: str, zone: tzinfo | None) -> int:
    """``parse_time``; a statement is split where it is located and where it is planned, with the same few texts."""
    return parse_time(text, zone)


def _check_bounds(time_ns: int) -> None:
    if time_ns > MAX_TIME_NS:
        raise RequestError(f"time {_whole_second(time_ns)} overflows time literal")
    if time_ns < MIN_TIME_NS + 1:
        raise RequestError(f"time {_whole_second(time_ns)} underflows time literal")


def _whole_second(time_ns: int) -> str:
    try:
        return format_rfc3339nano(time_ns // 1_000_000_000 * 1_000_000_000)
    except OverflowError:
        return f"{time_ns} ns"
