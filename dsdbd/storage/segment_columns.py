"""Columns of one segment file by row group: decoded with their neighbours, and kept in the cache of the store."""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Column, Int64s, concat_columns
from dsdbd.storage.cache import ColumnCache, Extent
from dsdbd.storage.inline import must_read
from dsdbd.storage.ranges import gather_column, slice_column
from dsdbd.storage.segment_format import TIME

EXTENT_GROUPS = 8
"""Neighbouring row groups decoded in one call and kept as one array: a scan of them is a view, not a copy."""
_EXTENT_BYTES = 64 << 20
"""Decoded bytes of all columns of one such call, unless a single row group has more."""
_FEW_RANGES = 32
"""So few ranges of rows are looked at one by one."""


def open_reader(path: Path, cache: ColumnCache, file_id: int) -> Any:
    """A Parquet reader that nobody else uses; who is done with it gives it to ``cache.files``."""
    return cache.files.take(file_id) or pq.ParquetFile(path, page_checksum_verification=True)


class GroupColumns:
    """The columns of a file. What is damaged raises CorruptData, or what Arrow says of it.

    ``starts``: int64, the first row of each row group, and behind them how many rows there are; ``bounds`` the same as
    a list. ``sizes_bytes``: int64, memory of each row group as columns.
    """

    def __init__(self, path: Path, cache: ColumnCache, file_id: int, starts: Int64s, sizes_bytes: Int64s) -> None:
        self.starts = starts
        self.bounds: list[int] = starts.tolist()
        self.sizes_bytes = sizes_bytes
        self._path = path
        self._cache = cache
        self._id = file_id

    def touched(self, starts: Int64s, stops: Int64s) -> list[int]:
        """The row groups that hold rows of the ranges, ascending."""
        if len(starts) <= _FEW_RANGES:
            touched: list[int] = []
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                first = bisect.bisect_right(self.bounds, start) - 1
                touched += range(first, bisect.bisect_left(self.bounds, stop))
            return touched if len(starts) == 1 else sorted(set(touched))
        first_groups = np.searchsorted(self.starts, starts, side="right") - 1
        last_groups = np.searchsorted(self.starts, stops, side="left")
        count = len(self.starts)
        depth = np.bincount(first_groups, minlength=count) - np.bincount(last_groups, minlength=count)
        groups: list[int] = np.flatnonzero(np.cumsum(depth)[:-1] > 0).tolist()
        return groups

    def extents(self, name: str, groups: list[int]) -> list[Extent]:
        """Extents that hold the row groups, ascending; decodes those that are missing."""
        found = self._cache.get(self._id, name, groups)
        missing = [group for group in groups if group not in found]
        if missing:
            for extent in self._load([name], missing):
                found.update(dict.fromkeys(range(extent.first, extent.stop), extent))
        if len(groups) == 1:
            return list(found.values())
        return [extent for extent, _ in itertools.groupby(found[group] for group in groups)]

    def gathered(self, parts: list[Extent], starts: Int64s, stops: Int64s) -> Column | None:
        """Rows of a column in ranges, given the extents that hold them; None without any.

        A view where one range lies in row groups that were decoded together.
        """
        if 1 < len(starts) <= _FEW_RANGES:
            return self._few_of(parts, starts, stops)
        if len(parts) == 1:
            base = self.bounds[parts[0].first]
            return gather_column(parts[0].column, starts - base, stops - base)
        gathered = []
        for extent in parts:
            low, high = self.bounds[extent.first], self.bounds[extent.stop]
            first = int(np.searchsorted(stops, low, side="right"))
            last = int(np.searchsorted(starts, high, side="left"))
            inside = np.maximum(starts[first:last], low) - low, np.minimum(stops[first:last], high) - low
            if last > first:
                gathered.append(gather_column(extent.column, *inside))
        return concat_columns(gathered) if gathered else None

    def _few_of(self, parts: list[Extent], starts: Int64s, stops: Int64s) -> Column:
        """Rows of a few ranges, slice by slice: looking for all ranges at once costs more than they do."""
        bounds = self.bounds
        found: list[Column] = []
        at = 0
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            while start < stop:
                while bounds[parts[at].stop] <= start:
                    at += 1
                base, end = bounds[parts[at].first], min(stop, bounds[parts[at].stop])
                found.append(slice_column(parts[at].column, start - base, end - base))
                start = end
        return concat_columns(found)

    def load_missing(self, groups: list[int], names: list[str]) -> None:
        """Decode what the cache lacks; columns that lack the same row groups together."""
        wanted: dict[tuple[int, ...], list[str]] = {}
        for name in names:
            missing = tuple(self._cache.missing(self._id, name, groups))
            if missing:
                wanted.setdefault(missing, []).append(name)
        for missing, together in wanted.items():
            self._load(together, list(missing))

    def _load(self, names: list[str], groups: list[int]) -> list[Extent]:
        """Decode columns of row groups and offer them to the cache."""
        must_read()
        extents: list[Extent] = []
        for span in self._spans(groups):
            for name, column in self.decode(names, span).items():
                extents.append(Extent(self._id, name, span[0], span[-1] + 1, column))
                self._cache.put(extents[-1])
        return extents

    def decode(self, names: list[str], groups: list[int]) -> dict[str, Column]:
        """Columns of neighbouring row groups."""
        reader = open_reader(self._path, self._cache, self._id)
        table = reader.read_row_groups(groups, columns=names, use_threads=len(names) > 1)
        self._cache.files.give(self._id, reader)
        if table.num_rows != self.bounds[groups[-1] + 1] - self.bounds[groups[0]]:
            raise CorruptData("it contradicts itself: a row group is shorter than its footer says")
        columns = {}
        for name in names:
            array = table.column(name)
            columns[name] = Column.from_arrow(array.cast(pa.int64()) if name == TIME else array)
        return columns

    def _spans(self, groups: list[int]) -> list[list[int]]:
        """The row groups as neighbours to decode in one call."""
        spans: list[list[int]] = []
        size = 0
        for group in groups:
            size += int(self.sizes_bytes[group])
            # Spans begin at multiples, so that different reads of the same rows ask for the same ones.
            joined = spans and spans[-1][-1] == group - 1 and group % EXTENT_GROUPS and size <= _EXTENT_BYTES
            if joined:
                spans[-1].append(group)
            else:
                spans.append([group])
                size = int(self.sizes_bytes[group])
        return spans
