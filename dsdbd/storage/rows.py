"""Rows of one measurement in one shard, and how rows of the same series and time become one. Pure, vectorised.

Of every (series, time, field) the value of the highest version counts; among equal versions that of the later row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsdbd.model.columns import Bools, Column, Int64s, concat_columns
from dsdbd.model.types import FieldType
from dsdbd.model.versions import NODES

_FEW = 8


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of n rows in arrival order unless said otherwise.

    ``series``: int64[n], series numbers of the shard's index of the measurement, or ranks derived from them.
    ``time_ns``, ``version``: int64[n]. ``fields``: field key to a Column of n rows.
    """

    series: Int64s
    time_ns: Int64s
    version: Int64s
    fields: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.time_ns)

    def take(self, rows: Int64s) -> Rows:
        """The given rows in the given order."""
        fields = {key: column.take(rows) for key, column in self.fields.items()}
        return Rows(self.series[rows], self.time_ns[rows], self.version[rows], fields)

    def since(self, version: int, coordinator: int = 0) -> Rows:
        """The rows of that version and newer ones, in their order; only those that one node gave, where it is not 0."""
        chosen: Bools = self.version >= version
        if coordinator:
            chosen &= self.version & (NODES - 1) == coordinator & (NODES - 1)
        return self if chosen.all() else self.take(np.flatnonzero(chosen))


def column_bytes(column: Column) -> int:
    """Memory of a column's values."""
    size: int = column.values.nbytes
    return size + (0 if column.valid is None else column.valid.nbytes)


def concat_rows(parts: Sequence[Rows], types: Mapping[str, FieldType]) -> Rows:
    """Rows one after another with the fields of ``types``; a part that has a field in another type lacks it."""
    columns = [(len(part), part.fields) for part in parts]
    fields = {key: concat_field(columns, key, field_type) for key, field_type in types.items()}
    if len(parts) == 1:
        return Rows(parts[0].series, parts[0].time_ns, parts[0].version, fields)
    return Rows(
        np.concatenate([part.series for part in parts]),
        np.concatenate([part.time_ns for part in parts]),
        np.concatenate([part.version for part in parts]),
        fields,
    )


def concat_field(parts: Sequence[tuple[int, Mapping[str, Column]]], key: str, field_type: FieldType) -> Column:
    """One field of several parts (their rows and columns); missing where a part lacks it or has it in another type.

    Neighbouring parts that lack it are filled together, so that many small parts of few fields each stay cheap.
    """
    if len(parts) > _FEW and all(rows == 1 for rows, _ in parts):
        cells = [cell for _, fields in parts if (cell := fields.get(key)) is not None]
        if len(cells) == len(parts) and _are_plain(cells, field_type):
            # Joining as many arrays costs three times as much.
            return Column(field_type, np.array([cell.values.item() for cell in cells], cells[0].values.dtype))
    columns: list[Column] = []
    gap = 0
    for rows, fields in parts:
        column = fields.get(key)
        if column is None or column.type is not field_type:
            gap += rows
            continue
        if gap:
            columns.append(Column.missing(field_type, gap))
            gap = 0
        columns.append(column)
    if gap:
        columns.append(Column.missing(field_type, gap))
    return concat_columns(columns)


def _are_plain(cells: Sequence[Column], field_type: FieldType) -> bool:
    """Whether every column has numbers or booleans of a type, and a value in every row."""
    return field_type is not FieldType.STRING and all(cell.valid is None and cell.type is field_type for cell in cells)


def sort_rows(rows: Rows) -> Rows:
    """Rows by (series, time, version); equal ones keep their order."""
    if _is_sorted(rows):
        return rows
    return rows.take(np.lexsort((rows.version, rows.time_ns, rows.series)))


def _is_sorted(rows: Rows) -> bool:
    if len(rows) < 2:
        return True
    series_step = np.diff(rows.series)
    time_after = rows.time_ns[1:] > rows.time_ns[:-1]
    time_same = rows.time_ns[1:] == rows.time_ns[:-1]
    version_ordered = rows.version[1:] >= rows.version[:-1]
    in_order = (series_step > 0) | ((series_step == 0) & (time_after | (time_same & version_ordered)))
    return bool(in_order.all())


def _starts(same_as_previous: Bools) -> Int64s:
    """First row of every group, from "row i+1 belongs to the group of row i"."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(~same_as_previous) + 1])


def _last_valid(valid: Bools | None, starts: Int64s, size: int) -> Int64s:
    """For every group the last row that is valid; -1 where none is."""
    if valid is None:
        return np.append(starts[1:], size).astype(np.int64) - 1
    numbered = np.where(valid, np.arange(size, dtype=np.int64), np.int64(-1))
    return np.maximum.reduceat(numbered, starts)


def _unite(rows: Rows, starts: Int64s) -> Rows:
    """One row per group: of every field the last value there is; series, time and version of the group's last row."""
    size = len(rows)
    fields = {}
    for key, column in rows.fields.items():
        source = _last_valid(column.valid, starts, size)
        found = source >= 0
        united = column.take(np.where(found, source, starts))
        fields[key] = Column(united.type, united.values, None if found.all() else found)
    last = np.append(starts[1:], size).astype(np.int64) - 1
    return Rows(rows.series[last], rows.time_ns[last], rows.version[last], fields)


def unite_versions(rows: Rows) -> Rows:
    """Sorted rows to one row for every series and time: what a reader sees."""
    if len(rows) < 2:
        return rows
    same = (rows.series[1:] == rows.series[:-1]) & (rows.time_ns[1:] == rows.time_ns[:-1])
    return _unite(rows, _starts(same)) if same.any() else rows


def fold_for_storage(rows: Rows) -> Rows:
    """Sorted rows to the fewest rows that lose nothing, whatever version may still arrive.

    Rows of one version are united. Of rows with different versions each keeps only the values that no newer one
    replaces, and disappears when none is left. They are not united: a value of a version in between may arrive later,
    and it must replace the older value and not the newer one.
    """
    if len(rows) < 2:
        return rows
    same = (rows.series[1:] == rows.series[:-1]) & (rows.time_ns[1:] == rows.time_ns[:-1])
    if not same.any():
        return rows
    same_version = same & (rows.version[1:] == rows.version[:-1])
    if same_version.any():
        rows = _unite(rows, _starts(same_version))
        same = (rows.series[1:] == rows.series[:-1]) & (rows.time_ns[1:] == rows.time_ns[:-1])
        if not same.any():
            return rows
    starts = _starts(same)
    size = len(rows)
    keep: npt.NDArray[np.bool_] = np.zeros(size, dtype=np.bool_)
    fields = {}
    for key, column in rows.fields.items():
        source = _last_valid(column.valid, starts, size)
        newest: npt.NDArray[np.bool_] = np.zeros(size, dtype=np.bool_)
        newest[source[source >= 0]] = True
        keep |= newest
        fields[key] = Column(column.type, column.values, newest)
    folded = Rows(rows.series, rows.time_ns, rows.version, fields).take(np.flatnonzero(keep))
    tidy = {key: _without_idle_mask(column) for key, column in folded.fields.items()}
    return Rows(folded.series, folded.time_ns, folded.version, tidy)


def _without_idle_mask(column: Column) -> Column:
    if column.valid is not None and column.valid.all():
        return Column(column.type, column.values)
    return column
