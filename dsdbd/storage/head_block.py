"""Rows in memory as a Block: sorted once, read often. Pure, vectorised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dsdbd.model.columns import Column, Int64s
from dsdbd.model.types import FieldType
from dsdbd.storage.block import Runs
from dsdbd.storage.ranges import expand, gather, gather_column
from dsdbd.storage.rows import Rows, column_bytes, concat_field, fold_for_storage, sort_rows

_RUN_BYTES = 40
_ROW_BYTES = 16


class MemoryBlock:
    """A Block of rows that are sorted by (series number, time, version) and never change.

    ``time_ns``, ``version``, ``columns``: as in Rows. ``size_bytes``: memory of all arrays.
    """

    __slots__ = ("__weakref__", "_runs", "columns", "fields", "rows", "size_bytes", "time_ns", "unique", "version")

    def __init__(self, runs: Runs, time_ns: Int64s, version: Int64s, columns: Mapping[str, Column]) -> None:
        self._runs = runs
        self.time_ns = time_ns
        self.version = version
        self.columns = columns
        self.rows = len(time_ns)
        self.fields: Mapping[str, FieldType] = {key: column.type for key, column in columns.items()}
        same = time_ns[1:] == time_ns[:-1]
        same[runs.starts[1:] - 1] = False
        self.unique = not same.any()
        self.size_bytes = (
            len(runs.series) * _RUN_BYTES + self.rows * _ROW_BYTES + sum(map(column_bytes, columns.values()))
        )

    @staticmethod
    def sealed(rows: Rows) -> MemoryBlock:
        """The block of rows (at least one) in arrival order."""
        return MemoryBlock.of(fold_for_storage(sort_rows(rows)))

    @staticmethod
    def of(rows: Rows) -> MemoryBlock:
        """The block of sorted and folded rows (at least one)."""
        return MemoryBlock(runs_of(rows.series, rows.time_ns), rows.time_ns, rows.version, rows.fields)

    @property
    def portions(self) -> Int64s:
        """All rows lie in one."""
        return self._runs.starts[:1]

    def runs(self) -> Runs:
        """The runs, by ascending series number."""
        return self._runs

    def prepare(self, starts: Int64s, stops: Int64s, fields: Sequence[str]) -> None:
        """Nothing has to be read first."""

    def times(self, starts: Int64s, stops: Int64s) -> Int64s:
        """Times in nanoseconds."""
        found: Int64s = gather(self.time_ns, starts, stops)
        return found

    def times_of_each(self, starts: Int64s, stops: Int64s) -> list[Int64s]:
        """The same for each of a few ranges by itself."""
        return [self.time_ns[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]

    def versions(self, starts: Int64s, stops: Int64s) -> Int64s:
        """Row versions."""
        found: Int64s = gather(self.version, starts, stops)
        return found

    def column(self, field: str, starts: Int64s, stops: Int64s) -> Column:
        """Values of a field the block has."""
        return gather_column(self.columns[field], starts, stops)

    def all_rows(self) -> Rows:
        """Every row, with its series number."""
        return Rows(np.repeat(self._runs.series, self._runs.lengths), self.time_ns, self.version, self.columns)


def runs_of(series: Int64s, time_ns: Int64s) -> Runs:
    """Runs of sorted rows (at least one)."""
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(series[1:] != series[:-1]) + 1])
    stops = np.append(starts[1:], len(series))
    return Runs(series[starts], starts, stops - starts, time_ns[starts], time_ns[stops - 1])


def merge_order(keys: Int64s, runs: Sequence[Runs], blocks: Sequence[MemoryBlock]) -> tuple[Int64s, Int64s, Int64s]:
    """How the rows of several blocks, one after another, become sorted by (key, time, version).

    ``keys``: int64, one for each run of each block in their order; runs of one series have the same. Returns the rows
    in their new order, the first row of every key there, and the keys. Rows are compared only for keys that have runs
    of overlapping times; equal ones keep their order.
    """
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum([block.rows for block in blocks])])
    starts = np.concatenate([one.starts + offset for one, offset in zip(runs, offsets.tolist(), strict=False)])
    lengths = np.concatenate([one.lengths for one in runs])
    first = np.concatenate([one.first_ns for one in runs])
    last = np.concatenate([one.last_ns for one in runs])
    order = np.lexsort((first, keys))
    keys, starts, lengths, first, last = keys[order], starts[order], lengths[order], first[order], last[order]
    rows = expand(starts, starts + lengths)
    new_key = np.concatenate([np.ones(1, dtype=np.bool_), keys[1:] != keys[:-1]])
    places = np.cumsum(lengths) - lengths
    overlap = ~new_key[1:] & (last[:-1] >= first[1:])
    if overlap.any():
        key_of_run = np.cumsum(new_key) - 1
        mixed = np.zeros(int(key_of_run[-1]) + 1, dtype=np.bool_)
        mixed[key_of_run[1:][overlap]] = True
        chosen = mixed[key_of_run]
        at = expand(places[chosen], places[chosen] + lengths[chosen])
        unsorted = rows[at]
        times = np.concatenate([block.time_ns for block in blocks])[unsorted]
        versions = np.concatenate([block.version for block in blocks])[unsorted]
        # The number of a row among all tells which one came later.
        by = np.lexsort((unsorted, versions, times, np.repeat(key_of_run[chosen], lengths[chosen])))
        rows[at] = unsorted[by]
    return rows, places[new_key], keys[new_key]


def merge_blocks(blocks: Sequence[MemoryBlock], types: Mapping[str, FieldType], ranks: Int64s | None = None) -> Rows:
    """The rows of blocks, oldest first, as sorted and folded ones; ``ranks``: sort key by series number.

    ``series`` of the result are ranks where they are given, series numbers otherwise.
    """
    runs = [block.runs() for block in blocks]
    numbers = np.concatenate([one.series for one in runs])
    keys = numbers if ranks is None else ranks[numbers]
    order, starts, run_keys = merge_order(keys, runs, blocks)
    lengths = np.diff(np.append(starts, len(order)))
    parts = [(block.rows, block.columns) for block in blocks]
    columns = {key: concat_field(parts, key, field_type).take(order) for key, field_type in types.items()}
    times = np.concatenate([block.time_ns for block in blocks])[order]
    versions = np.concatenate([block.version for block in blocks])[order]
    return fold_for_storage(Rows(np.repeat(run_keys, lengths), times, versions, columns))
