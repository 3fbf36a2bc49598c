"""A plan that is made once and then bound to other times and tag values of the same statement.

Only what strings in WHERE decide changes: the time range and the tag values that series are chosen by. A statement in
which a string means anything else is not prepared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql.condition import split_condition
from dsdbd.model.scan import Extent
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS, looks_like_time
from dsdbd.model.types import FieldType
from dsdbd.query.plan_check_calls import FORECASTS
from dsdbd.query.plan_types import Expr, Lit, MathCall, MeasurementPlan, Op, SelectPlan
from dsdbd.query.schema import MeasurementSchema

_AND: Final = "AND"


class _Unfit(Exception):
    """A part of a statement that cannot be bound anew."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan and where strings enter it.

    ``times``: the comparisons with time in WHERE, joined by AND; None without any. ``time_slots`` and ``tag_slots``:
    numbers of the statement's strings that stand in ``times`` and in the predicate, each in their order there.
    """

    plan: SelectPlan
    schema: MeasurementSchema
    times: ast.Expr | None
    time_slots: tuple[int, ...]
    tag_slots: tuple[int, ...]

    @property
    def place(self) -> tuple[str, str]:
        """Database and policy of what is read."""
        source = self.plan.sources[0]
        return source.database, source.policy

    @property
    def measurement(self) -> str:
        """What is read."""
        return self.plan.sources[0].measurements[0].name

    def schema_with(self, extents: tuple[Extent, ...]) -> MeasurementSchema:
        """The schema for which the plan was made, of shards that hold this much."""
        return MeasurementSchema(self.schema.fields, self.schema.tags, extents)

    def fits(self, fields: Mapping[str, FieldType], tags: frozenset[str]) -> bool:
        """Whether the plan would be the same over a shard with these fields and tags."""
        return self.schema.fields == fields and self.schema.tags == tags

    def bind(self, values: Sequence[str], now_ns: int) -> SelectPlan | None:
        """The plan of the statement with other strings; None where one of them is no time but has to be one."""
        min_ns, max_ns = MIN_TIME_NS, self._open_end(now_ns)
        if self.times is not None:
            texts = [values[slot] for slot in self.time_slots]
            if not all(map(looks_like_time, texts)):
                return None
            try:
                _, span = split_condition(_with_strings(self.times, iter(texts)), now_ns)
            except RequestError:
                return None
            if span.min_ns is not None:
                min_ns = max(span.min_ns, MIN_TIME_NS)
            if span.max_ns is not None:
                max_ns = min(span.max_ns, MAX_TIME_NS)
        plan = replace(self.plan, min_ns=min_ns, max_ns=max_ns)
        if not self.tag_slots:
            return plan
        source = self.plan.sources[0]
        predicate = _with_values(source.measurements[0].predicate, iter([values[slot] for slot in self.tag_slots]))
        return replace(
            plan, sources=[replace(source, measurements=[replace(source.measurements[0], predicate=predicate)])]
        )

    def _open_end(self, now_ns: int) -> int:
        return now_ns if self.plan.interval_ns else MAX_TIME_NS


def prepare(
    select: ast.Select, plan: SelectPlan, schema: MeasurementSchema, values: Sequence[str], now_ns: int
) -> Prepared | None:
    """The plan of a statement, prepared for other strings; None where that cannot be done.

    ``schema``: of the one measurement it reads. ``values``: all strings of the statement in their order. ``now_ns``:
    the time with which the plan was made.
    """
    if not _is_plain(select, plan):
        return None
    measurement = plan.sources[0].measurements[0]
    slots = _Slots(values)
    try:
        if select.condition is not None:
            slots.take(select.condition)
    except _Unfit:
        return None
    if slots.taken != len(values) or _has_texts(measurement.filter):
        return None
    asked = [values[slot] for slot in slots.tags]
    if list(_texts_of(measurement.predicate)) != asked:
        return None
    prepared = Prepared(plan, schema, slots.joined(), tuple(slots.times), tuple(slots.tags))
    return prepared if prepared.bind(values, now_ns) == plan else None


def _is_plain(select: ast.Select, plan: SelectPlan) -> bool:
    """Whether a statement reads one measurement by its name, and now decides nothing but the time range."""
    if len(select.sources) != 1 or select.target is not None or select.timezone is not None:
        return False
    source = select.sources[0]
    if not isinstance(source, ast.Measurement) or source.regex is not None:
        return False
    if len(plan.sources) != 1 or len(plan.sources[0].measurements) != 1 or plan.timezone:
        return False
    found: MeasurementPlan = plan.sources[0].measurements[0]
    # A sample is drawn anew for each statement, with a seed that planning takes from the time.
    if found.derived or any(call.function == "sample" for call in plan.calls):
        return False
    # To fit a forecast takes long, and what is prepared is answered on the event loop.
    return all(transform.name not in FORECASTS for call in plan.calls for transform in call.transforms)


class _Slots:
    """What the strings of a WHERE are compared with, in their order."""

    def __init__(self, values: Sequence[str]) -> None:
        self._values = values
        self._comparisons: list[ast.Expr] = []
        self.taken = 0
        self.times: list[int] = []
        self.tags: list[int] = []

    def take(self, expr: ast.Expr) -> None:
        """Go through a condition; raises _Unfit."""
        match expr:
            case ast.ParenExpr(inner):
                self.take(inner)
            case ast.BinaryExpr("AND" | "OR", lhs, rhs):
                self.take(lhs)
                self.take(rhs)
            case ast.BinaryExpr(_, lhs, rhs) if _is_time(lhs) or _is_time(rhs):
                for text in _strings(expr):
                    self.times.append(self._next(text))
                self._comparisons.append(expr)
            case ast.BinaryExpr("=" | "!=", ast.VarRef(), ast.StringLiteral(text)):
                self.tags.append(self._next(text))
            case _:
                if any(True for _ in _strings(expr)):
                    raise _Unfit

    def _next(self, text: str) -> int:
        slot = self.taken
        if slot >= len(self._values) or self._values[slot] != text:
            raise _Unfit
        self.taken += 1
        return slot

    def joined(self) -> ast.Expr | None:
        """All comparisons with time; whatever joins them in the statement, their ranges are intersected."""
        joined: ast.Expr | None = None
        for one in self._comparisons:
            joined = one if joined is None else ast.BinaryExpr(_AND, joined, one)
        return joined


def _is_time(expr: ast.Expr) -> bool:
    return type(expr) is ast.VarRef and expr.name.lower() == "time"


def _strings(expr: ast.Expr) -> Iterator[str]:
    """The strings of an expression in their order; raises _Unfit for one that may hold some elsewhere."""
    match expr:
        case ast.StringLiteral(text):
            yield text
        case ast.BinaryExpr(_, lhs, rhs):
            yield from _strings(lhs)
            yield from _strings(rhs)
        case ast.ParenExpr(inner):
            yield from _strings(inner)
        case ast.Call(_, args):
            if args:
                raise _Unfit


def _with_strings(expr: ast.Expr, texts: Iterator[str]) -> ast.Expr:
    """The expression with other strings, which are taken in their order."""
    match expr:
        case ast.StringLiteral():
            return ast.StringLiteral(next(texts))
        case ast.BinaryExpr(op, lhs, rhs):
            left = _with_strings(lhs, texts)
            return ast.BinaryExpr(op, left, _with_strings(rhs, texts))
        case ast.ParenExpr(inner):
            return ast.ParenExpr(_with_strings(inner, texts))
    return expr


def _texts_of(wire: list[Any]) -> Iterator[str]:
    """The values that a predicate compares tags with, in their order."""
    if wire[0] == "=":
        yield wire[2]
    elif wire[0] != "~":
        for part in wire[1:]:
            yield from _texts_of(part)


def _with_values(wire: list[Any], values: Iterator[str]) -> list[Any]:
    """The predicate with other values, which are taken in their order."""
    kind = wire[0]
    if kind == "=":
        return ["=", wire[1], next(values), wire[3]]
    return wire if kind == "~" else [kind, *[_with_values(part, values) for part in wire[1:]]]


def _has_texts(expr: Expr | None) -> bool:
    """Whether a filter of rows compares with strings."""
    match expr:
        case Lit(value):
            return isinstance(value, str)
        case Op(_, lhs, rhs):
            return _has_texts(lhs) or _has_texts(rhs)
        case MathCall(_, args):
            return any(map(_has_texts, args))
    return False
