"""Constant expressions to literals: ``now() - 1h``, ``2 + 3``, ``'2020-01-01' + 1d``, as InfluxDB 1.x reduces them.

What cannot be reduced stays as it is, and so does what would leave int64 (1.x wraps around silently there).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from datetime import tzinfo
from typing import Final

from dsdbd.influxql.ast import (
    BinaryExpr,
    BooleanLiteral,
    Call,
    DurationLiteral,
    Expr,
    IntegerLiteral,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    TimeLiteral,
    UnsignedLiteral,
)
from dsdbd.model.times import looks_like_time, parse_time

_MIN_INT64: Final = -(2**63)
_MAX_INT64: Final = 2**63 - 1
_MAX_UINT64: Final = 2**64 - 1
_LOGICAL: Final = frozenset({"AND", "OR"})
_CONSTANTS: Final = frozenset(
    {
        StringLiteral,
        TimeLiteral,
        DurationLiteral,
        IntegerLiteral,
        NumberLiteral,
        BooleanLiteral,
        UnsignedLiteral,
    }
)
_INNER: Final = frozenset({BinaryExpr, ParenExpr, Call})
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def reduce_expr(expr: Expr, now_ns: int | None = None, zone: tzinfo | None = None) -> Expr:
    """The expression with every constant part computed, without parentheses around the whole.

    Args:
        expr: any expression.
        now_ns: what ``now()`` is; with ``None`` the call stays.
        zone: where strings without a zone are read as times; UTC with ``None``.

    """
    reduced = _reduce(expr, now_ns, zone)
    return reduced.expr if isinstance(reduced, ParenExpr) else reduced


def _reduce(expr: Expr, now_ns: int | None, zone: tzinfo | None) -> Expr:
    if type(expr) not in _INNER:
        return expr
    match expr:
        case BinaryExpr(op, lhs, rhs):
            left, right = _reduce(lhs, now_ns, zone), _reduce(rhs, now_ns, zone)
            same = expr if left is lhs and right is rhs else BinaryExpr(op, left, right)
            return _logical(same) if op in _LOGICAL else _computed(op, left, right, zone) or same
        case ParenExpr(inner):
            reduced = _reduce(inner, now_ns, zone)
            return ParenExpr(reduced) if isinstance(reduced, BinaryExpr) else reduced
        case Call("now", ()) if now_ns is not None:
            return TimeLiteral(now_ns)
        case Call(name, args):
            return Call(name, tuple(_reduce(arg, now_ns, zone) for arg in args))
        case _:
            return expr


def join_conditions(op: str, lhs: Expr, rhs: Expr) -> Expr:
    """``lhs op rhs`` with op AND or OR, of two conditions that are reduced themselves."""
    joined = _logical(BinaryExpr(op, lhs, rhs))
    return joined.expr if isinstance(joined, ParenExpr) else joined


def _logical(expr: BinaryExpr) -> Expr:
    decides = expr.op == "OR"
    for side, other in ((expr.lhs, expr.rhs), (expr.rhs, expr.lhs)):
        if type(side) is BooleanLiteral:
            return side if side.value == decides else other
    return expr


def _computed(op: str, lhs: Expr, rhs: Expr, zone: tzinfo | None) -> Expr | None:
    if type(lhs) not in _CONSTANTS or type(rhs) not in _CONSTANTS:
        return None
    match lhs, rhs:
        case BooleanLiteral(left), BooleanLiteral(right):
            return _booleans(op, left, right)
        case StringLiteral(left), StringLiteral(right) if op in {"=", "!=", "+"}:
            return _strings(op, left, right, zone)
        case (
            (NumberLiteral() | IntegerLiteral() | UnsignedLiteral()),
            (NumberLiteral() | IntegerLiteral() | UnsignedLiteral()),
        ):
            return _numbers(op, lhs, rhs)
        case DurationLiteral(left), (NumberLiteral(right) | IntegerLiteral(right)):
            return _scaled_duration(op, left, right)
        case DurationLiteral(left), DurationLiteral(right):
            return _durations(op, left, right)
        case _:
            return _times(op, lhs, rhs, zone)


def _booleans(op: str, left: bool, right: bool) -> Expr | None:
    if op in {"=", "!=", "^"}:
        return BooleanLiteral((left == right) == (op == "="))
    if op in {"&", "|"}:
        return BooleanLiteral((left and right) if op == "&" else (left or right))
    return None


def _strings(op: str, left: str, right: str, zone: tzinfo | None) -> Expr:
    if op == "+":
        return StringLiteral(left + right)
    left_ns, right_ns = _time_of(StringLiteral(left), zone), _time_of(StringLiteral(right), zone)
    # Two spellings of one time are equal.
    same = left == right if left_ns is None or right_ns is None else left_ns == right_ns
    return BooleanLiteral(same == (op == "="))


def _numbers(
    op: str,
    lhs: NumberLiteral | IntegerLiteral | UnsignedLiteral,
    rhs: NumberLiteral | IntegerLiteral | UnsignedLiteral,
) -> Expr | None:
    left, right = lhs.value, rhs.value
    if op in _COMPARE:
        return BooleanLiteral(_COMPARE[op](left, right))
    if isinstance(left, float) or isinstance(right, float):
        return _floats(op, float(left), float(right))
    unsigned = isinstance(lhs, UnsignedLiteral) or isinstance(rhs, UnsignedLiteral)
    if op == "/" and not unsigned:
        return NumberLiteral(left / right if right else 0.0)
    value = _integers(op, left, right)
    if value is None:
        return None
    if unsigned:
        return UnsignedLiteral(value) if 0 <= value <= _MAX_UINT64 else None
    return IntegerLiteral(value) if _MIN_INT64 <= value <= _MAX_INT64 else None


def _floats(op: str, left: float, right: float) -> Expr | None:
    match op:
        case "+":
            value = left + right
        case "-":
            value = left - right
        case "*":
            value = left * right
        case "/":
            value = left / right if right else 0.0
        case "%" if right:
            value = math.fmod(left, right)
        case _:
            return None
    return NumberLiteral(value) if math.isfinite(value) else None


def _integers(op: str, left: int, right: int) -> int | None:
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return _truncated(left, right)
        case "%":
            return left - right * _truncated(left, right) if right else 0
        case "&":
            return left & right
        case "|":
            return left | right
        case "^":
            return left ^ right
        case _:
            return None


def _truncated(left: int, right: int) -> int:
    """Division toward zero; by zero it is 0."""
    if right == 0:
        return 0
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _scaled_duration(op: str, left_ns: int, right: float) -> Expr | None:
    """A duration times or by a number, of which 1.x takes the whole part."""
    factor = math.trunc(right)
    if op == "*":
        return _duration(left_ns * factor)
    return _duration(_truncated(left_ns, factor)) if op == "/" else None


def _durations(op: str, left_ns: int, right_ns: int) -> Expr | None:
    if op in _COMPARE:
        return BooleanLiteral(_COMPARE[op](left_ns, right_ns))
    if op in {"+", "-"}:
        return _duration(left_ns + right_ns if op == "+" else left_ns - right_ns)
    return None


def _duration(value_ns: int) -> DurationLiteral | None:
    return DurationLiteral(value_ns) if _MIN_INT64 <= value_ns <= _MAX_INT64 else None


def _time_of(expr: Expr, zone: tzinfo | None) -> int | None:
    """A time, or a string that is read as one."""
    if isinstance(expr, TimeLiteral):
        return expr.value_ns
    if isinstance(expr, StringLiteral) and looks_like_time(expr.value):
        try:
            return parse_time(expr.value, zone)
        except ValueError:
            return None
    return None


def _span_of(expr: Expr) -> int | None:
    """Nanoseconds of a duration; an integer stands for nanoseconds beside a time."""
    match expr:
        case DurationLiteral(value_ns) | IntegerLiteral(value_ns):
            return value_ns
        case _:
            return None


def _times(op: str, lhs: Expr, rhs: Expr, zone: tzinfo | None) -> Expr | None:
    """Arithmetic and comparison in which at least one side is a time."""
    match lhs, rhs:
        case IntegerLiteral(left_ns), DurationLiteral(right_ns) if op in {"+", "-"}:
            # An integer before a duration is a time since the epoch.
            return TimeLiteral(left_ns + right_ns if op == "+" else left_ns - right_ns)
        case _:
            pass
    left_time, right_time = _time_of(lhs, zone), _time_of(rhs, zone)
    if left_time is not None and right_time is not None:
        if op == "-":
            return _duration(left_time - right_time)
        return BooleanLiteral(_COMPARE[op](left_time, right_time)) if op in _COMPARE else None
    left_span, right_span = _span_of(lhs), _span_of(rhs)
    if left_time is not None and right_span is not None and op in {"+", "-"}:
        return TimeLiteral(left_time + right_span if op == "+" else left_time - right_span)
    if left_span is not None and right_time is not None and op == "+":
        return TimeLiteral(left_span + right_time)
    return None
