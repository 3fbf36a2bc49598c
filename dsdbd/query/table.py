"""Rows of one call, or of the raw points, with their groups: what cannot be folded into states travels as these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dsdbd.model.columns import Bools, Column, Int32s, Int64s
from dsdbd.model.scan import KeyColumn
from dsdbd.model.types import FieldType
from dsdbd.query.columns import concat, is_coded
from dsdbd.query.groups import GroupSet, unite_groups
from dsdbd.query.ordering import number_rows, run_starts, sorted_texts, unite_texts

_FEW_KEYS = 8
"""More keys than this are built together, which costs as much as about ten of them one by one."""
NO_MEMBERS = pa.array([b""], pa.binary())
"""For tables in which it does not matter which series a row is of."""


@dataclass(frozen=True, slots=True)
class Table:
    """n rows of one call (or of the raw points).

    ``group``: int32[n], position in ``groups``. ``bucket``: int64[n], start of the time bucket, 0 without one.
    ``time``: int64[n], time of the point. ``member``: int32[n], position in ``members``, an Arrow array of the keys
    of the series the points came from, distinct and ascending; it orders points of equal time, so that an answer does
    not depend on which node spoke first. ``columns``: name to Column of n rows.
    """

    groups: GroupSet
    members: Any
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

    def text_bytes(self) -> int:
        """Memory of its strings, those that are kept as positions left out."""
        texts = [c.values for c in self.columns.values() if c.type is FieldType.STRING and not is_coded(c)]
        return sum(values.nbytes for values in texts)

    def with_columns(self, columns: Mapping[str, Column]) -> Table:
        """The same rows with other columns."""
        return Table(self.groups, self.members, self.group, self.bucket, self.time, self.member, columns)

    def starts(self) -> Int64s:
        """First row of every run of equal group and bucket; int64."""
        return run_starts(self.group, self.bucket)


def concat_tables(tables: Sequence[Table]) -> Table:
    """Rows of all tables, one table after another; needs at least one, all with the same columns."""
    if len(tables) == 1:
        return tables[0]
    groups, group_maps = unite_groups([table.groups for table in tables])
    members, member_maps = unite_texts([table.members for table in tables])
    columns = {name: concat([table.columns[name] for table in tables]) for name in tables[0].columns}
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
    """The tables with one common set of groups."""
    groups, maps = unite_groups([table.groups for table in tables])
    return [
        replace(table, groups=groups, group=places[table.group]) for places, table in zip(maps, tables, strict=True)
    ]


def sort_table(table: Table) -> Table:
    """Rows by group, bucket, time, series."""
    if _is_sorted(table.group, table.bucket, table.time, table.member):
        return table
    return table.take(np.lexsort((table.member, table.time, table.bucket, table.group)))


def _is_sorted(*keys: Any) -> bool:
    """Whether rows ascend by the first key, equal ones by the second, and so on."""
    equal: Any = True
    for key in keys:
        if bool(np.any(equal & (key[1:] < key[:-1]))):
            return False
        equal = equal & (key[1:] == key[:-1])
    return True


def member_keys(keys: Sequence[bytes], numbers: Int64s) -> tuple[Any, Int32s]:
    """The keys of some rows' series as ``members``, and each row's position there.

    ``numbers``: int64[n], position in ``keys`` of each row's series.
    """
    one_each, number = number_rows([numbers], [int(numbers.max(initial=0)) + 1], len(numbers))
    chosen = numbers[one_each]
    if isinstance(keys, KeyColumn) and len(chosen) > _FEW_KEYS:
        found = keys.array(chosen).cast(pa.binary())
    else:
        found = pa.array([keys[place] for place in chosen.tolist()], pa.binary())
    members, places = sorted_texts(found, distinct=True)
    return members, places[number]
