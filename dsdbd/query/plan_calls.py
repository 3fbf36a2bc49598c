"""Calls of a select list as plans: their numbers and options, the types they take and give."""

from __future__ import annotations

from collections.abc import Callable

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.model.types import FieldType
from dsdbd.query.aggregates import INPUT_TYPES, result_type
from dsdbd.query.plan_check_calls import FORECASTS, INDICATORS, PICKS
from dsdbd.query.plan_types import CallPlan, Ref, Transform

_SECOND_NS = 1_000_000_000
_NUMBERS = frozenset({FieldType.FLOAT, FieldType.INTEGER})
_FLOATS = INDICATORS | FORECASTS | {"derivative", "non_negative_derivative", "moving_average"}


def picked_tags(fields: tuple[ast.Field, ...]) -> tuple[ast.Field, ...]:
    """The select list with a column for each tag or field that is named inside ``top`` and ``bottom``."""
    if not any(type(field.expr) is ast.Call and field.expr.name in PICKS for field in fields):
        return fields
    found: list[ast.Field] = []
    for field in fields:
        found.append(field)
        if isinstance(field.expr, ast.Call) and field.expr.name in PICKS:
            found += [ast.Field(arg) for arg in field.expr.args[1:-1]]
    return tuple(found)


def aggregate_plan(
    name: str, ref: Ref, call: ast.Call, transforms: list[Transform], ref_of: Callable[[ast.VarRef], Ref], now_ns: int
) -> CallPlan:
    """The plan of an aggregate; ``now_ns`` chooses a sample.

    A field named inside ``top`` tells no points apart, as in InfluxDB 1.x, but all of them are then one group.
    """
    last = call.args[-1] if len(call.args) > 1 else None
    if name in PICKS:
        assert isinstance(last, ast.IntegerLiteral)
        refs = [ref_of(arg) for arg in call.args[1:-1] if isinstance(arg, ast.VarRef)]
        apart = [one.name if one.is_tag else "" for one in refs]
        return checked(CallPlan(name, ref, float(last.value), transforms, apart))
    arg = 0.0
    if isinstance(last, ast.NumberLiteral | ast.IntegerLiteral):
        arg = float(last.value)
    elif isinstance(last, ast.DurationLiteral):
        arg = float(last.value_ns)
    elif name == "integral":
        arg = float(_SECOND_NS)
    return checked(CallPlan(name, ref, arg, transforms, seed=now_ns if name == "sample" else 0))


def transform_plan(call: ast.Call) -> Transform:
    """The plan of a function of a sequence."""
    numbers = [
        arg.value_ns if isinstance(arg, ast.DurationLiteral) else arg.value
        for arg in call.args[1:3]
        if isinstance(arg, ast.DurationLiteral | ast.IntegerLiteral)
    ]
    word = call.args[3] if len(call.args) > 3 else None
    return Transform(
        call.name,
        numbers[0] if numbers else 0,
        numbers[1] if len(numbers) > 1 else -1,
        word.value if isinstance(word, ast.StringLiteral) else "",
    )


def checked(call: CallPlan) -> CallPlan:
    """The call, or RequestError where a function does not take the type of its values."""
    if call.ref.type in ("unknown", "tag"):
        return call
    kind = call.ref.field_type
    if call.function != "raw":
        if kind not in INPUT_TYPES[call.function]:
            raise _refusal(call.function, kind, "Interrupt")
        kind = result_type(call.function, kind)
    if call.transforms:
        first = call.transforms[0].name
        if first != "elapsed" and kind not in _NUMBERS:
            source = {"distinct": "Interval", "sample": f"Reduce{kind.value.capitalize()}"}
            raise _refusal(first, kind, source.get(call.function, "Interrupt"))
    return call


def _refusal(name: str, kind: FieldType, iterator: str) -> RequestError:
    name = name.removeprefix("non_negative_")
    if name in FORECASTS:
        name = "elapsed"  # So InfluxDB 1.x calls it here.
    words = name.replace("_", " ") if name in _FLOATS or name == "cumulative_sum" else name
    return RequestError(f"unsupported {words} iterator type: *query.{kind.value}{iterator}Iterator")


def value_type(call: CallPlan) -> FieldType:
    """Type of a call's values, transformations included."""
    kind = call.ref.field_type if call.function == "raw" else result_type(call.function, call.ref.field_type)
    for transform in call.transforms:
        if transform.name == "elapsed":
            kind = FieldType.INTEGER
        elif transform.name in _FLOATS:
            kind = FieldType.FLOAT
    return kind
