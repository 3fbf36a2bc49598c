"""What a query must know of the data before it can be planned: fields with types, and tag keys, per measurement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import re2

from dsdbd.decoding import decode_msgpack
from dsdbd.errors import CorruptData
from dsdbd.model.predicate import TagPredicate
from dsdbd.model.scan import Extent, Piece, ScanRequest, SeriesSet
from dsdbd.model.types import FieldType

_PRECEDENCE = (FieldType.FLOAT, FieldType.INTEGER, FieldType.STRING, FieldType.BOOLEAN)
_MAX_EXTENTS = 256


class StoredShard(Protocol):
    """A shard as the store knows it: what it holds, without the time range that metadata gives it."""

    @property
    def shard_id(self) -> int:
        """Number of the shard."""

    def measurements(self) -> list[str]:
        """Names of the measurements that have points."""

    def tag_keys(self, measurement: str) -> frozenset[str]:
        """Tag keys of a measurement's series; empty for an unknown one."""

    def field_types(self, measurement: str) -> dict[str, FieldType]:
        """Fields the shard really holds; empty for an unknown measurement."""

    def series(self, measurement: str, predicate: TagPredicate) -> SeriesSet:
        """Series of a measurement for which the predicate holds; empty for an unknown measurement."""

    def extent(self, measurement: str) -> Extent | None:
        """About how many rows of what times the shard holds; None without any."""

    def scan(self, request: ScanRequest) -> Iterator[Piece]:
        """Rows in pieces; each series and time once."""


class ShardReader(StoredShard, Protocol):
    """One shard, as the query engine reads it; ``start_ns`` to ``end_ns`` is half open."""

    @property
    def start_ns(self) -> int:
        """First time the shard can hold."""

    @property
    def end_ns(self) -> int:
        """First time it cannot."""


@dataclass(frozen=True, slots=True)
class BoundedShard:
    """A stored shard with the time range that metadata gives it: a ShardReader."""

    shard: StoredShard
    start_ns: int
    end_ns: int

    @property
    def shard_id(self) -> int:
        """Number of the shard."""
        return self.shard.shard_id

    def measurements(self) -> list[str]:
        """Names of the measurements that have points."""
        return self.shard.measurements()

    def tag_keys(self, measurement: str) -> frozenset[str]:
        """Tag keys of a measurement's series; empty for an unknown one."""
        return self.shard.tag_keys(measurement)

    def field_types(self, measurement: str) -> dict[str, FieldType]:
        """Fields the shard really holds; empty for an unknown measurement."""
        return self.shard.field_types(measurement)

    def series(self, measurement: str, predicate: TagPredicate) -> SeriesSet:
        """Series of a measurement for which the predicate holds; empty for an unknown measurement."""
        return self.shard.series(measurement, predicate)

    def extent(self, measurement: str) -> Extent | None:
        """About how many rows of what times the shard holds; None without any."""
        return self.shard.extent(measurement)

    def scan(self, request: ScanRequest) -> Iterator[Piece]:
        """Rows in pieces; each series and time once."""
        return self.shard.scan(request)


@dataclass(frozen=True, slots=True)
class Derived:
    """What is known of the columns of a subquery beside their types.

    ``labels``: those with values of tags. ``unknown``: those without any values, which have no type. ``hidden``: those
    that no wildcard stands for. ``titles``: the names of all columns as an answer would have them. ``windows``: rows
    have the times of windows where there are any, because they are aggregates.
    """

    labels: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    titles: frozenset[str] = frozenset()
    windows: bool = False


@dataclass(frozen=True, slots=True)
class MeasurementSchema:
    """Fields and tag keys of one measurement; ``extents``: about how many rows of what times its shards hold.

    ``derived`` is there for what subqueries give under the measurement's name.
    """

    fields: Mapping[str, FieldType]
    tags: frozenset[str]
    extents: tuple[Extent, ...] = ()
    derived: Derived | None = None


def wider(first: FieldType, second: FieldType) -> FieldType:
    """Type that a field is read as where two places disagree: float, integer, string, boolean in this order."""
    return min(first, second, key=_PRECEDENCE.index)


def merge_schema(first: MeasurementSchema, second: MeasurementSchema) -> MeasurementSchema:
    """Everything that either knows."""
    if (first.derived is None) is not (second.derived is None):
        first, second = _with_tags(first), _with_tags(second)
    fields = dict(first.fields)
    for name, field_type in second.fields.items():
        fields[name] = wider(fields[name], field_type) if name in fields else field_type
    derived = None
    if first.derived is not None and second.derived is not None:
        derived = _merge_derived(first, first.derived, second, second.derived)
    return MeasurementSchema(fields, first.tags | second.tags, _united(first.extents + second.extents), derived)


def _with_tags(schema: MeasurementSchema) -> MeasurementSchema:
    """The schema of a subquery beside that of a stored measurement: columns with values of tags are tags."""
    if schema.derived is None:
        return schema
    labels = schema.derived.labels
    fields = {name: kind for name, kind in schema.fields.items() if name not in labels}
    return MeasurementSchema(fields, schema.tags | labels, schema.extents)


def _merge_derived(first: MeasurementSchema, one: Derived, second: MeasurementSchema, other: Derived) -> Derived:
    values = (first.fields.keys() - one.labels) | (second.fields.keys() - other.labels)
    labels = (one.labels | other.labels) - values
    shown = (first.fields.keys() - one.hidden) | (second.fields.keys() - other.hidden)
    return Derived(
        labels,
        (one.unknown | other.unknown) - values - labels,
        (one.hidden | other.hidden) - shown,
        one.titles | other.titles,
        one.windows or other.windows,
    )


def _united(extents: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """The extents, neighbours in time taken together where there are very many."""
    while len(extents) > _MAX_EXTENTS:
        ordered = sorted(extents, key=lambda extent: extent.min_ns)
        pairs = [ordered[at : at + 2] for at in range(0, len(ordered), 2)]
        extents = tuple(
            Extent(sum(one.rows for one in pair), pair[0].min_ns, max(one.max_ns for one in pair)) for pair in pairs
        )
    return extents


def matching(names: Iterable[str], wanted: Iterable[str | re2._Regexp]) -> list[str]:
    """Sorted names that are wanted, by themselves or by a compiled RE2 pattern."""
    wanted = list(wanted)
    exact = {item for item in wanted if isinstance(item, str)}
    patterns = [item for item in wanted if not isinstance(item, str)]
    return sorted(name for name in set(names) if name in exact or any(p.search(name) for p in patterns))


def shard_schema(
    readers: Sequence[ShardReader], wanted: Iterable[str | re2._Regexp] | None = None
) -> dict[str, MeasurementSchema]:
    """Schemas of the measurements the shards hold; ``wanted`` limits them to names and compiled RE2 patterns."""
    wanted = None if wanted is None else list(wanted)
    found: dict[str, MeasurementSchema] = {}
    for reader in readers:
        names = reader.measurements()
        for name in names if wanted is None else matching(names, wanted):
            extent = reader.extent(name)
            extents = () if extent is None else (extent,)
            schema = MeasurementSchema(reader.field_types(name), reader.tag_keys(name), extents)
            found[name] = merge_schema(found[name], schema) if name in found else schema
    return found


def merge_schemas(parts: Iterable[Mapping[str, MeasurementSchema]]) -> dict[str, MeasurementSchema]:
    """Schemas of many shards or nodes as one."""
    merged: dict[str, MeasurementSchema] = {}
    for part in parts:
        for name, schema in part.items():
            merged[name] = merge_schema(merged[name], schema) if name in merged else schema
    return merged


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    fields: dict[str, FieldType]
    tags: list[str]
    extents: list[tuple[int, int, int]] = []


def encode_schema(schema: Mapping[str, MeasurementSchema]) -> bytes:
    """The bytes of a schema (MessagePack)."""
    return msgspec.msgpack.encode(
        {
            name: _Wire(dict(s.fields), sorted(s.tags), [(one.rows, one.min_ns, one.max_ns) for one in s.extents])
            for name, s in schema.items()
        }
    )


def decode_schema(data: bytes) -> dict[str, MeasurementSchema]:
    """The schema of ``encode_schema``; raises CorruptData for anything else."""
    try:
        wires = decode_msgpack(data, dict[str, _Wire])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"measurement schema of {len(data)} bytes cannot be decoded: {error}") from error
    return {
        name: MeasurementSchema(wire.fields, frozenset(wire.tags), tuple(Extent(*one) for one in wire.extents))
        for name, wire in wires.items()
    }
