"""Partial results as tables: rows that belong to a group and a bucket; what shards and nodes send to be merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Bools, Column, Int32s, Int64s, concat_columns


class GroupKey(NamedTuple):
    """What rows are grouped by: the measurement, and the values of the GROUP BY tags in the plan's order."""

    measurement: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """n rows of one call (or of the raw points).

    ``group``: int32[n], position in ``groups``. ``bucket``: int64[n], start of the time bucket, 0 without one.
    ``time``: int64[n], time of the point. ``member``: int32[n], position in ``members``, the keys of the series the
    points came from; it orders points of equal time, so that an answer does not depend on which node spoke first.
    ``columns``: name to Column of n rows.
    """

    groups: tuple[GroupKey, ...]
    members: tuple[str, ...]
    group: Int32s
    bucket: Int64s
    time: Int64s
    member: Int32s
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: Int64s) -> Table:
        """The given rows in the given order."""
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return Table(
            self.groups,
            self.members,
            self.group[rows],
            self.bucket[rows],
            self.time[rows],
            self.member[rows],
            columns,
        )

    def where(self, mask: Bools) -> Table:
        """The rows for which ``mask`` holds."""
        return self if bool(mask.all()) else self.take(np.flatnonzero(mask))

    def with_columns(self, columns: Mapping[str, Column]) -> Table:
        """The same rows with other columns."""
        return Table(self.groups, self.members, self.group, self.bucket, self.time, self.member, columns)

    def starts(self) -> Int64s:
        """First row of every run of equal group and bucket; int64."""
        return run_starts(self.group, self.bucket)


def run_starts(*keys: Any) -> Int64s:
    """Rows at which any of the key arrays changes, row 0 included; empty for empty keys."""
    size = len(keys[0])
    if size == 0:
        return np.zeros(0, dtype=np.int64)
    changed = np.zeros(size, dtype=np.bool_)
    changed[0] = True
    for key in keys:
        changed[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changed)


def run_lengths(starts: Int64s, size: int) -> Int64s:
    """Number of rows of each run."""
    return np.diff(np.append(starts, size))


def _positions(parts: Sequence[tuple[Any, ...]]) -> tuple[tuple[Any, ...], list[Int32s]]:
    """Sorted union of the parts' distinct entries, and for each part the positions of its entries in it."""
    union = tuple(sorted({item for part in parts for item in part}))
    where = {item: position for position, item in enumerate(union)}
    return union, [np.fromiter((where[item] for item in part), dtype=np.int32, count=len(part)) for part in parts]


def concat_tables(tables: Sequence[Table]) -> Table:
    """Rows of all tables, one table after another; needs at least one, all with the same columns.

    ``groups`` and ``members`` of the result are sorted, so their positions order rows.
    """
    groups, group_maps = _positions([table.groups for table in tables])
    members, member_maps = _positions([table.members for table in tables])
    columns = {name: concat_columns([table.columns[name] for table in tables]) for name in tables[0].columns}
    return Table(
        groups,
        members,
        np.concatenate([places[table.group] for places, table in zip(group_maps, tables, strict=True)]),
        np.concatenate([table.bucket for table in tables]),
        np.concatenate([table.time for table in tables]),
        np.concatenate([places[table.member] for places, table in zip(member_maps, tables, strict=True)]),
        columns,
    )


def align_groups(tables: Sequence[Table]) -> list[Table]:
    """The tables with one common, sorted tuple of groups."""
    groups, maps = _positions([table.groups for table in tables])
    return [
        replace(table, groups=groups, group=places[table.group]) for places, table in zip(maps, tables, strict=True)
    ]


def sort_table(table: Table) -> Table:
    """Rows by group, bucket, time, series; the groups must be sorted already."""
    order = np.lexsort((table.member, table.time, table.bucket, table.group))
    if bool((order[1:] > order[:-1]).all()):
        return table
    return table.take(order)


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    groups: list[tuple[str, list[str]]]
    members: list[str]
    table: bytes


def encode_tables(tables: Sequence[Table]) -> bytes:
    """MessagePack around one Arrow IPC stream per table."""
    return msgspec.msgpack.encode([_encode(table) for table in tables])


def _encode(table: Table) -> _Wire:
    arrays = [
        pa.array(table.group, pa.int32()),
        pa.array(table.bucket, pa.int64()),
        pa.array(table.time, pa.int64()),
        pa.array(table.member, pa.int32()),
    ]
    names = ["group", "bucket", "time", "member"]
    for name, column in table.columns.items():
        arrays.append(column.to_arrow())
        names.append("c:" + name)
    batch = pa.RecordBatch.from_arrays(arrays, names=names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    groups = [(key.measurement, list(key.tags)) for key in table.groups]
    return _Wire(groups, list(table.members), sink.getvalue().to_pybytes())


def decode_tables(data: bytes) -> list[Table]:
    """The tables of ``encode_tables``; raises CorruptData for anything else."""
    try:
        wires = msgspec.msgpack.decode(data, type=list[_Wire])
        return [_decode(wire) for wire in wires]
    except (msgspec.MsgspecError, pa.ArrowException, KeyError, ValueError) as error:
        raise CorruptData(f"partial query result of {len(data)} bytes cannot be decoded: {error}") from error


def _decode(wire: _Wire) -> Table:
    with pa.ipc.open_stream(wire.table) as reader:
        table = reader.read_all()
    arrays = {name: table.column(position) for position, name in enumerate(table.column_names)}
    group = arrays.pop("group").to_numpy()
    bucket = arrays.pop("bucket").to_numpy()
    time = arrays.pop("time").to_numpy()
    member = arrays.pop("member").to_numpy()
    for index, entries in ((group, wire.groups), (member, wire.members)):
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(entries)):
            raise CorruptData("a partial query result names a group or series it does not hold")
    columns = {name.removeprefix("c:"): Column.from_arrow(array) for name, array in arrays.items()}
    groups = tuple(GroupKey(name, tuple(tags)) for name, tags in wire.groups)
    return Table(groups, tuple(wire.members), group, bucket, time, member, columns)
