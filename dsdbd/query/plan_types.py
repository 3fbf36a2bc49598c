"""The plan of a SELECT as plain data: it crosses nodes as MessagePack, and every owner of a shard runs the same one."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from dsdbd.decoding import msgpack_decoder
from dsdbd.errors import CorruptData
from dsdbd.model.columns import Int64s
from dsdbd.model.predicate import AllOf, AnyOf, TagEquals, TagMatches, TagPredicate
from dsdbd.model.times import MIN_TIME_NS
from dsdbd.model.types import FieldType
from dsdbd.query.zones import SECOND_NS, window_bounds


class Lit(msgspec.Struct, tag="lit", array_like=True, frozen=True):
    """A constant."""

    value: bool | int | float | str


class Pattern(msgspec.Struct, tag="regex", array_like=True, frozen=True):
    """A regular expression in RE2 syntax, right side of ``=~`` and ``!~``."""

    text: str


class Slot(msgspec.Struct, tag="slot", array_like=True, frozen=True):
    """Values of column number ``index`` of what a plan reads: ``kind`` says of its calls or of its references."""

    kind: Literal["call", "ref"]
    index: int


class FieldLeaf(msgspec.Struct, tag="field", array_like=True, frozen=True):
    """A field inside a row filter."""

    name: str


class TagLeaf(msgspec.Struct, tag="tag", array_like=True, frozen=True):
    """A tag inside a row filter; the empty string where a series lacks it."""

    name: str


class Op(msgspec.Struct, tag="op", array_like=True, frozen=True):
    """A binary operation."""

    op: str
    lhs: Expr
    rhs: Expr


class MathCall(msgspec.Struct, tag="math", array_like=True, frozen=True):
    """A function of single values, such as ``abs``."""

    name: str
    args: list[Expr]


_WITHOUT_LEAD = frozenset({"cumulative_sum", "holt_winters", "holt_winters_with_fit"})

Expr: TypeAlias = Lit | Pattern | Slot | FieldLeaf | TagLeaf | Op | MathCall


class Ref(msgspec.Struct, array_like=True, frozen=True):
    """A field or tag that rows carry along.

    ``type`` is one of the four field types, ``tag``, or ``unknown`` for what no source has.
    """

    name: str
    type: str

    @property
    def is_tag(self) -> bool:
        """True when values come from the series and not from a field."""
        return self.type == "tag"

    @property
    def field_type(self) -> FieldType:
        """Type of the values; tags are strings."""
        if self.type == "unknown":
            return FieldType.FLOAT
        return FieldType.STRING if self.is_tag else FieldType(self.type)


class Transform(msgspec.Struct, array_like=True, frozen=True):
    """A function of a sequence of points, such as ``derivative``.

    ``arg`` is its unit, window, period or number of forecasts, 0 without one; ``second`` the season of a forecast, or
    how many values an average holds back, -1 for its usual number; ``warmup`` names how an average begins.
    """

    name: str
    arg: int = 0
    second: int = -1
    warmup: str = ""


class CallPlan(msgspec.Struct, array_like=True, frozen=True):
    """One function of a field.

    ``function`` names the aggregate, or is ``raw`` where a transformation works on the stored points; ``arg`` is
    the number of ``percentile``, how many points ``top``, ``bottom`` and ``sample`` keep, or the unit of ``integral``.
    ``apart`` are the tags of which ``top`` and ``bottom`` take one point for each value; ``seed`` chooses a sample.
    """

    function: str
    ref: Ref
    arg: float = 0.0
    transforms: list[Transform] = []
    apart: list[str] = []
    seed: int = 0

    @property
    def lead_buckets(self) -> int:
        """Buckets before the time range that transformations need for their first value.

        Those of stored points have buckets in a subquery that takes over the interval of the statement around it.
        """
        return sum(transform.name not in _WITHOUT_LEAD for transform in self.transforms)


class MeasurementPlan(msgspec.Struct, array_like=True, frozen=True):
    """What is read of one measurement: series by ``predicate``, and of their rows those that ``filter`` holds for.

    ``derived``: it is what a subquery gives under this name. All its rows count then, whatever their times and values.
    ``windows``: these rows have the times of windows.
    """

    name: str
    predicate: list[Any]
    filter: Expr | None = None
    filter_fields: list[str] = []
    derived: bool = False
    windows: bool = False


class SourcePlan(msgspec.Struct, array_like=True, frozen=True):
    """Measurements of one retention policy."""

    database: str
    policy: str
    measurements: list[MeasurementPlan]


class OutputColumn(msgspec.Struct, array_like=True, frozen=True):
    """A column of the answer."""

    name: str
    expr: Expr


class SelectPlan(msgspec.Struct, frozen=True):
    """A SELECT, ready to run.

    ``min_ns``/``max_ns``: inclusive bounds of the points read. ``interval_ns`` is 0 without GROUP BY time.
    ``calls`` is empty for a query of raw points. ``selector``: the only call is a selector and keeps the time of its
    point. ``fill_value`` is what stands for a missing value, None for null. ``timezone``: that of ``tz()``, "" for UTC.
    ``read_from_ns``: where a statement without a lower bound begins to read; its answer begins with its first row.
    """

    min_ns: int
    max_ns: int
    sources: list[SourcePlan]
    columns: list[OutputColumn]
    refs: list[Ref]
    calls: list[CallPlan]
    dimensions: list[str] = []
    time_name: str = "time"
    interval_ns: int = 0
    offset_ns: int = 0
    selector: bool = False
    ascending: bool = True
    fill: str = "null"
    fill_value: int | float | None = None
    limit: int = 0
    offset: int = 0
    slimit: int = 0
    soffset: int = 0
    timezone: str = ""
    read_from_ns: int = MIN_TIME_NS

    @property
    def grid_ns(self) -> int:
        """What the distances between starts of GROUP BY time buckets are multiples of; 0 without GROUP BY time."""
        if not self.timezone or not self.interval_ns:
            return self.interval_ns
        return SECOND_NS if self.interval_ns % SECOND_NS == 0 else 1

    @property
    def bounded_below(self) -> bool:
        """False when the statement gives no earliest time."""
        return self.min_ns > MIN_TIME_NS

    def call_range(self, call: CallPlan) -> tuple[int, int]:
        """Inclusive time range that a call reads: the statement's, and what its transformations need around it."""
        lead_ns = call.lead_buckets * self.interval_ns
        if not self.ascending:
            return max(self.min_ns, self.read_from_ns), self.max_ns + lead_ns
        low_ns = self.min_ns - lead_ns if self.bounded_below else self.min_ns
        return max(low_ns, self.read_from_ns), self.max_ns

    def window_start(self, time_ns: int) -> int:
        """Start of the GROUP BY time bucket that holds a time."""
        if self.timezone:
            return int(self.window_bounds(np.array([time_ns]))[0][0])
        return (time_ns - self.offset_ns) // self.interval_ns * self.interval_ns + self.offset_ns

    def window_bounds(self, times_ns: Int64s) -> tuple[Int64s, Int64s]:
        """Start and end, excluded, of the GROUP BY time bucket that holds each time; int64[n]."""
        return window_bounds(times_ns, self.interval_ns, self.offset_ns, self.timezone, ascending=self.ascending)


def predicate_to_wire(predicate: TagPredicate) -> list[Any]:
    """A predicate as nested lists."""
    match predicate:
        case TagEquals(key, value, negated):
            return ["=", key, value, negated]
        case TagMatches(key, pattern, negated):
            return ["~", key, pattern, negated]
        case AllOf(parts):
            return ["and", *[predicate_to_wire(part) for part in parts]]
        case AnyOf(parts):
            return ["or", *[predicate_to_wire(part) for part in parts]]


def predicate_from_wire(wire: list[Any]) -> TagPredicate:
    """The predicate of ``predicate_to_wire``; raises CorruptData for other lists."""
    match wire:
        case ["=", str(key), str(value), bool(negated)]:
            return TagEquals(key, value, negated)
        case ["~", str(key), str(pattern), bool(negated)]:
            return TagMatches(key, pattern, negated)
        case ["and", *parts]:
            return AllOf(tuple(predicate_from_wire(part) for part in parts))
        case ["or", *parts]:
            return AnyOf(tuple(predicate_from_wire(part) for part in parts))
    raise CorruptData(f"a query plan holds a tag predicate that is none: {wire!r:.80}")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgpack_decoder(SelectPlan)


def encode_plan(plan: SelectPlan) -> bytes:
    """The bytes of a plan (MessagePack)."""
    return _encoder.encode(plan)


def decode_plan(data: bytes) -> SelectPlan:
    """The plan of ``encode_plan``; raises CorruptData for anything else."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptData(f"query plan of {len(data)} bytes cannot be decoded: {error}") from error
