"""Rows of a shard on their way to another replica: as points with versions, in pieces. Pure, vectorised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Bools, Column, Points
from dsdbd.model.digest import CELLS, SERIES_BUCKETS, TimeRanges, UInt64s, buckets
from dsdbd.model.scan import KeyColumn
from dsdbd.model.types import FieldType
from dsdbd.storage.head import types_of
from dsdbd.storage.rows import Rows, concat_rows

PIECE_BYTES = 1 << 20
_ROW_BYTES = 20
"""Series, time and version."""


class Selection:
    """Which rows leave: those of some cells (None: of all).

    Of them those with versions lower than ``below`` and not lower than ``since`` (None: with any), there only those
    that one ``coordinator`` gave (0: any).
    """

    def __init__(
        self,
        ranges: TimeRanges,
        cells: Sequence[int] | None,
        below: int | None,
        since: int | None = None,
        coordinator: int = 0,
    ) -> None:
        self._ranges = ranges
        self._below = below
        self._since = since
        self._coordinator = coordinator
        self._cells: Bools | None = None
        self._spans = [(-(1 << 63), (1 << 63) - 1)]
        if cells is not None:
            self._cells = np.zeros(CELLS, dtype=np.bool_)
            self._cells[list(cells)] = True
            self._spans = [ranges.span_ns(cell) for cell in cells]

    @property
    def min_ns(self) -> int:
        """No row is earlier."""
        return min((low for low, _ in self._spans), default=0)

    @property
    def max_ns(self) -> int:
        """No row is later; less than ``min_ns`` where nothing leaves."""
        return max((high for _, high in self._spans), default=-1)

    def series(self, hashes: UInt64s) -> Bools | None:
        """Which series may have such rows, by their hashes; None for all."""
        if self._cells is None:
            return None
        some: Bools = np.logical_or.reduce(self._cells.reshape(-1, SERIES_BUCKETS), axis=0)
        return some[buckets(hashes)]

    def of(self, rows: Rows, hashes: UInt64s) -> Rows:
        """Those of the rows, which are numbered like the hashes, that leave."""
        if self._since is not None:
            rows = rows.since(self._since, self._coordinator)
        if self._below is not None:
            chosen: Bools = np.less(rows.version, self._below)
            rows = rows if chosen.all() else rows.take(np.flatnonzero(chosen))
        if self._cells is not None and len(rows):
            chosen = self._cells[self._ranges.cells(hashes[rows.series], rows.time_ns)]
            rows = rows if chosen.all() else rows.take(np.flatnonzero(chosen))
        return rows


def pieces(measurement: str, keys: KeyColumn, found: Iterable[Rows]) -> Iterator[Points]:
    """The rows, in their order, as points of about PIECE_BYTES; ``keys``: of the series by number."""
    waiting: list[Rows] = []
    size_bytes = 0
    for rows in found:
        if len(rows):
            waiting.append(rows)
            size_bytes += len(rows) * _ROW_BYTES + sum(_column_bytes(column) for column in rows.fields.values())
        if size_bytes >= PIECE_BYTES:
            yield from _cut(measurement, keys, concat_rows(waiting, types_of(waiting)))
            waiting, size_bytes = [], 0
    if waiting:
        yield from _cut(measurement, keys, concat_rows(waiting, types_of(waiting)))


def _column_bytes(column: Column) -> int:
    size: int = column.values.nbytes
    return size


def _cut(measurement: str, keys: KeyColumn, rows: Rows) -> Iterator[Points]:
    """Rows in pieces, each with only the series and the fields that it has."""
    fixed = _ROW_BYTES + 8 * len(rows.fields)
    sizes = np.full(len(rows), fixed, dtype=np.int64)
    for column in rows.fields.values():
        if column.type is FieldType.STRING:
            sizes += pc.fill_null(pc.binary_length(column.values), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(sizes)
    start = 0
    while start < len(rows):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(ends.searchsorted(done + PIECE_BYTES, side="right")))
        yield _points(measurement, keys, rows.take(np.arange(start, min(stop, len(rows)), dtype=np.int64)))
        start = stop


def _points(measurement: str, keys: KeyColumn, rows: Rows) -> Points:
    numbers, index = np.unique(rows.series, return_inverse=True)
    fields = {key: column for key, column in rows.fields.items() if column.valid is None or column.valid.any()}
    known = keys.array(numbers).cast(pa.large_binary()).to_pylist()
    return Points(measurement, known, index.astype(np.int32), rows.time_ns, fields, rows.version)
