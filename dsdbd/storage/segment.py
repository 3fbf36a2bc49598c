"""One Parquet file of one measurement, open for reading: a block of sorted rows.

docs/format/segment.md describes the file for its other readers. Damage shows as CorruptData; what becomes of a damaged
file is the shard's decision.
"""

from __future__ import annotations

import errno
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Column, Int64s
from dsdbd.model.scan import TagColumn
from dsdbd.model.types import FieldType
from dsdbd.storage.block import Runs
from dsdbd.storage.cache import ColumnCache, next_file_id
from dsdbd.storage.inline import must_read
from dsdbd.storage.ranges import coalesce, expand
from dsdbd.storage.rows import Rows
from dsdbd.storage.segment_columns import EXTENT_GROUPS, GroupColumns, open_reader
from dsdbd.storage.segment_format import (
    METADATA_KEY,
    ROW_GROUP_ROWS,
    TIME,
    VERSION,
    RunTable,
    decode_about,
    decode_runs,
    series_starts,
)
from dsdbd.storage.segment_write import write_segment

__all__ = ["ROW_GROUP_ROWS", "Segment", "schema_of", "series_starts", "write_segment"]

_ASKED_BYTES = re.compile(r"\bsize (\d+)")
"""In what Arrow says when it gets no memory."""
_SANE_BYTES = 1 << 30
"""No read of good data asks for more at once than this and a few times its rows as columns."""
_T = TypeVar("_T")


class Segment:
    """An open segment.

    ``low`` and ``high``: the range of file numbers it stands for. ``rows``, ``fields``, ``unique``: as of a Block.
    ``tags``: tag keys that a series of it may have. ``run_series``: series number of each run of rows, None until the
    shard has numbered ``read_tags``. ``pins``: readers that may still read the file; guarded by the shard's lock.
    ``modified_s``: Unix time of its writing.
    """

    def __init__(self, path: Path, low: int, high: int, cache: ColumnCache | None = None) -> None:
        """Read the footer. Raises CorruptData, OSError."""
        self.path = path
        self.low = low
        self.high = high
        self.pins = 0
        self.obsolete = False
        self._opened = False
        self.run_series: Int64s | None = None
        self._cache = ColumnCache(0, 1) if cache is None else cache
        self._id = next_file_id()
        self._run_table: RunTable | None = None
        self._newest: int | None = None
        self._starts: Int64s = np.empty(0, dtype=np.int64)
        try:
            self._reading(self._open)
            self._opened = True
        except BaseException:
            self.close()
            raise

    def _reading(self, work: Callable[[], _T]) -> _T:
        """Run a read; whatever Arrow says about malformed bytes becomes CorruptData, real I/O errors stay OSError.

        Shortage of memory is no damage: an OSError as well, unless the footer was not read yet, or what was asked for
        is far more than the rows need and so must be a damaged length.
        """
        try:
            return work()
        except MemoryError as error:
            wanted = _ASKED_BYTES.search(str(error))
            if not self._opened or (wanted and int(wanted[1]) > _SANE_BYTES + 4 * self.memory_bytes):
                raise CorruptData(f"segment {self.path} cannot be read: {error}") from error
            raise OSError(errno.ENOMEM, "not enough memory to read it", str(self.path)) from error
        except CorruptData as error:
            if str(self.path) in error.message:
                raise
            raise CorruptData(f"segment {self.path} cannot be read: {error.message}") from error
        except (pa.ArrowException, LookupError, ValueError, TypeError, AttributeError) as error:
            raise CorruptData(f"segment {self.path} cannot be read: {error}") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise CorruptData(f"segment {self.path} cannot be read: {error}") from error

    def _open(self) -> None:
        reader = open_reader(self.path, self._cache, self._id)
        metadata, schema = reader.metadata, reader.schema_arrow
        about = decode_about(metadata.metadata[METADATA_KEY])
        sizes = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
        self._cache.files.give(self._id, reader)
        stat = self.path.stat()
        self.size_bytes, self.modified_s = stat.st_size, stat.st_mtime
        self.measurement = about.measurement
        self.unique = about.unique
        self._runs_at = about.runs
        groups = np.array(about.row_groups, dtype=np.int64).reshape(-1, 3)
        if len(groups) != len(sizes) or not sizes:
            raise CorruptData("it contradicts itself: row groups and what is said of them differ in number")
        self._group_times = groups[:, :2]
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)])
        self._columns = GroupColumns(self.path, self._cache, self._id, starts, groups[:, 2])
        self.rows = self._columns.bounds[-1]
        self.min_ns, self.max_ns = int(self._group_times[:, 0].min()), int(self._group_times[:, 1].max())
        self.tags: dict[str, str] = {}
        self._field_columns: dict[str, str] = {}
        self.fields: dict[str, FieldType] = {}
        nullable = set()
        for name, role, key in about.columns:
            if role == "tag":
                self.tags[key] = name
            elif role == "field":
                column = schema.field(name)
                self._field_columns[key] = name
                self.fields[key] = Column.from_arrow(pa.array([], column.type)).type
                if column.nullable:
                    nullable.add(key)
        self.nullable_fields = frozenset(nullable)

    @property
    def file_id(self) -> int:
        """Its number in the cache."""
        return self._id

    def close(self) -> None:
        """Forget what is kept of the file in memory; a later read opens it again, if it is still there."""
        self._cache.forget(self._id)

    @property
    def memory_bytes(self) -> int:
        """About the memory of all rows as columns."""
        return int(self._columns.sizes_bytes.sum())

    @property
    def group_bytes(self) -> int:
        """Memory of the largest row group as columns."""
        return int(self._columns.sizes_bytes.max())

    def newest_version(self) -> int:
        """Greatest version of a row by the footer, or the greatest there is if it lacks it. Raises CorruptData."""
        if self._newest is None:
            self._newest = self._reading(self._newest_version)
        return self._newest

    def _newest_version(self) -> int:
        reader = open_reader(self.path, self._cache, self._id)
        self._cache.files.give(self._id, reader)
        metadata = reader.metadata
        at = reader.schema_arrow.get_field_index(VERSION)
        known = [metadata.row_group(group).column(at).statistics for group in range(metadata.num_row_groups)]
        if any(one is None or not one.has_min_max for one in known):
            return (1 << 63) - 1
        return max(int(one.max) for one in known)

    # --- runs

    def read_tags(self) -> dict[str, TagColumn]:
        """The tags of the series of each run, in row order. Raises CorruptData, OSError."""
        return dict(self._reading(lambda: self._table(with_tags=True)).tags)

    def _table(self, *, with_tags: bool = False) -> RunTable:
        """The runs; their tags are not kept once the series have numbers."""
        known = self._run_table
        if known is None or (with_tags and len(known.tags) < len(self.tags)):
            known = self._read_table()
            # Other threads take the table as the sign that the starts are there.
            self._starts = np.cumsum(known.lengths) - known.lengths
            self._run_table = known
        return known

    def _read_table(self) -> RunTable:
        must_read()
        with self.path.open("rb") as file:
            file.seek(self._runs_at.offset)
            encoded = file.read(self._runs_at.size_bytes)
        if zlib.crc32(encoded) != self._runs_at.crc32:
            raise CorruptData("the table of its runs fails its check")
        table = decode_runs(encoded)
        if int(table.lengths.sum()) != self.rows or table.tags.keys() != self.tags.keys():
            raise CorruptData("it contradicts itself: its runs are not its rows")
        return table

    def number_series(self, numbers: Int64s) -> None:
        """Set the series number of every run, in the order of ``read_tags``."""
        table = self._reading(self._table)
        assert len(numbers) == len(table.lengths), "a number for every run"
        self.run_series = numbers
        self._run_table = RunTable(table.lengths, table.first_ns, table.last_ns, {})

    def runs(self) -> Runs:
        """The runs; the shard has numbered their series before."""
        assert self.run_series is not None, "the shard numbers the series first"
        table = self._reading(self._table)
        return Runs(self.run_series, self._starts, table.lengths, table.first_ns, table.last_ns)

    @property
    def portions(self) -> Int64s:
        """First rows of the row groups that are decoded together."""
        return self._columns.starts[:-1:EXTENT_GROUPS]

    # --- rows

    def narrowed(self, starts: Int64s, stops: Int64s, min_ns: int, max_ns: int) -> tuple[Int64s, Int64s]:
        """The parts of the ranges that lie in row groups which overlap the inclusive times: a superset of their rows.

        Reads nothing; worth it for runs that are longer than a row group.
        """
        overlap = (self._group_times[:, 1] >= min_ns) & (self._group_times[:, 0] <= max_ns)
        if overlap.all():
            return starts, stops
        low, high = coalesce(self._columns.starts[:-1][overlap], self._columns.starts[1:][overlap])
        first = np.searchsorted(high, starts, side="right")
        last = np.searchsorted(low, stops, side="left")
        span = np.repeat(np.arange(len(starts)), np.maximum(last - first, 0))
        at = expand(first, np.maximum(last, first))
        return np.maximum(low[at], starts[span]), np.minimum(high[at], stops[span])

    def prepare(self, starts: Int64s, stops: Int64s, fields: Sequence[str]) -> None:
        """Decode what is missing for these ranges: times, the fields, and versions where two rows may be of one time.

        Raises CorruptData, OSError.
        """
        names = [TIME, *(self._field_columns[key] for key in fields)] + ([] if self.unique else [VERSION])
        groups = self._columns.touched(starts, stops)
        self._reading(lambda: self._columns.load_missing(groups, names))

    def read_ahead(self, column: str, first: int, stop: int) -> None:
        """Decode a column of neighbouring row groups, where there are such. Raises CorruptData, OSError."""
        if column in (TIME, VERSION, *self._field_columns.values()) and 0 <= first < stop <= self.row_groups:
            self._reading(lambda: self._columns.load_missing(list(range(first, stop)), [column]))

    def times(self, starts: Int64s, stops: Int64s) -> Int64s:
        """Times in nanoseconds, int64. Raises CorruptData, OSError."""
        values: Int64s = self._rows_of(TIME, starts, stops).values
        return values

    def times_of_each(self, starts: Int64s, stops: Int64s) -> list[Int64s]:
        """The same for each of a few ranges by itself. Raises CorruptData, OSError."""
        parts = self._reading(lambda: self._columns.extents(TIME, self._columns.touched(starts, stops)))
        found: list[Int64s] = []
        at = 0
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            while self._columns.bounds[parts[at].stop] <= start:
                at += 1
            base = self._columns.bounds[parts[at].first]
            if stop <= self._columns.bounds[parts[at].stop]:
                found.append(parts[at].column.values[start - base : stop - base])
            else:
                found.append(self.times(np.array([start]), np.array([stop])))
        return found

    def versions(self, starts: Int64s, stops: Int64s) -> Int64s:
        """Row versions, int64. Raises CorruptData, OSError."""
        values: Int64s = self._rows_of(VERSION, starts, stops).values
        return values

    def column(self, field: str, starts: Int64s, stops: Int64s) -> Column:
        """Values of a field of ``fields``. Raises CorruptData, OSError."""
        return self._rows_of(self._field_columns[field], starts, stops)

    def _rows_of(self, name: str, starts: Int64s, stops: Int64s) -> Column:
        """Rows of a column; a view where one range lies in row groups that were decoded together."""
        if len(starts) != 1:
            nonempty = stops > starts
            starts, stops = coalesce(starts[nonempty], stops[nonempty])
        parts = self._reading(lambda: self._columns.extents(name, self._columns.touched(starts, stops)))
        found = self._columns.gathered(parts, starts, stops)
        return self._empty(name) if found is None else found

    def _empty(self, name: str) -> Column:
        if name in (TIME, VERSION):
            return Column(FieldType.INTEGER, np.empty(0, dtype=np.int64))
        key = next(key for key, column in self._field_columns.items() if column == name)
        missing = Column.missing(self.fields[key], 0)
        return Column(missing.type, missing.values)

    # --- reading from front to back

    @property
    def row_groups(self) -> int:
        """Number of row groups."""
        return len(self._columns.sizes_bytes)

    def read_group(self, group: int, run_series: Int64s) -> Rows:
        """All rows of a row group, past the cache; ``run_series``: what stands for the series of each run.

        Raises CorruptData, OSError.
        """
        low, high = self._columns.bounds[group], self._columns.bounds[group + 1]
        table = self._reading(self._table)
        first = int(np.searchsorted(self._starts, low, side="right")) - 1
        last = int(np.searchsorted(self._starts, high, side="left"))
        starts = self._starts[first:last]
        lengths = np.minimum(starts + table.lengths[first:last], high) - np.maximum(starts, low)
        names = [TIME, VERSION, *self._field_columns.values()]
        columns = self._reading(lambda: self._columns.decode(names, [group]))
        return Rows(
            np.repeat(run_series[first:last], lengths),
            columns[TIME].values,
            columns[VERSION].values,
            {key: columns[name] for key, name in self._field_columns.items()},
        )

    # --- until scans ask for blocks

    @property
    def run_starts(self) -> Int64s:
        """First row of each run."""
        self._reading(self._table)
        return self._starts

    def read(self, wanted: npt.NDArray[np.bool_] | None, min_ns: int, max_ns: int, fields: Sequence[str]) -> Rows:
        """Rows of the wanted series (a mask over series numbers, None for all) within inclusive times.

        Fields the file lacks are left out. Needs ``run_series``. Raises CorruptData, OSError.
        """
        runs = self.runs()
        chosen = (runs.last_ns >= min_ns) & (runs.first_ns <= max_ns)
        if wanted is not None:
            chosen &= wanted[runs.series]
        starts, lengths = runs.starts[chosen], runs.lengths[chosen]
        present = [key for key in fields if key in self.fields]
        self.prepare(starts, starts + lengths, present)
        rows = Rows(
            np.repeat(runs.series[chosen], lengths),
            self.times(starts, starts + lengths),
            self.versions(starts, starts + lengths),
            {key: self.column(key, starts, starts + lengths) for key in present},
        )
        inside = (rows.time_ns >= min_ns) & (rows.time_ns <= max_ns)
        return rows if inside.all() else rows.take(np.flatnonzero(inside))


def schema_of(segments: Sequence[Segment]) -> Mapping[str, FieldType]:
    """Fields of several segments; where types differ that of the earlier one."""
    types: dict[str, FieldType] = {}
    for segment in segments:
        for key, field_type in segment.fields.items():
            types.setdefault(key, field_type)
    return types
