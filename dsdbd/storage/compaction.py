"""Merging segments of one measurement into one: read and written row group by row group, whatever their size."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsdbd import fsio
from dsdbd.errors import CorruptData
from dsdbd.model.columns import Int64s
from dsdbd.model.scan import SeriesSet
from dsdbd.model.types import FieldType
from dsdbd.storage.head_block import MemoryBlock, merge_blocks
from dsdbd.storage.merging import choose_full_merge, choose_merge, within_memory
from dsdbd.storage.ranges import gather_column
from dsdbd.storage.rows import Rows, concat_rows
from dsdbd.storage.scanning import DamagedBlock
from dsdbd.storage.segment import Segment, schema_of
from dsdbd.storage.segment_format import ROW_GROUP_ROWS
from dsdbd.storage.segment_write import SegmentWriter, no_pace
from dsdbd.storage.settings import StoreSettings

_REFILL_ROWS = ROW_GROUP_ROWS // 2
"""Rows of a source under which its next row group is read."""
_RESERVE_BYTES = 64 << 20
"""Free space a merge does not touch."""


class CompactionStopped(Exception):
    """The merge was told to end early; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a merge asks as it goes on.

    ``rest(size_bytes)`` is told of decoded bytes written, and may wait; ``stopped()`` says whether to end early.
    """

    rest: Callable[[int], None]
    stopped: Callable[[], bool]


FREELY = Pace(no_pace, lambda: False)
"""As fast as it goes, and to the end."""


def wait_s(size_bytes: int, bytes_per_s: int, spent_s: float) -> float:
    """How long to wait after ``size_bytes`` that took ``spent_s`` so as to stay within the rate. Pure."""
    return max(0.0, size_bytes / bytes_per_s - spent_s)


def choose(segments: Sequence[Segment], settings: StoreSettings, *, full: bool) -> list[Segment]:
    """Neighbours to merge now, oldest first; empty when there is nothing to do. Pure."""
    plan = choose_full_merge if full else choose_merge
    sizes = [segment.memory_bytes for segment in segments]
    choice = plan(sizes, fan=settings.merge_files, max_bytes=settings.merge_max_bytes)
    if choice is None:
        return []
    held = [segment.group_bytes for segment in segments]
    return list(segments[choice[0] : within_memory(held, *choice, max_bytes=settings.merge_memory_bytes)])


def has_room(directory: Path, size_bytes: int) -> bool:
    """Whether a merge of so many bytes leaves the disk as much again for the log. Raises OSError."""
    free = os.statvfs(directory)
    return free.f_bavail * free.f_frsize > 2 * size_bytes + _RESERVE_BYTES


def all_rows(rows: Rows) -> Rows:
    """Every row."""
    return rows


def compact(
    segments: Sequence[Segment],
    ranks: Int64s,
    series: SeriesSet,
    path: Path,
    pace: Pace = FREELY,
    keep: Callable[[Rows], Rows] = all_rows,
) -> Int64s | None:
    """Write the rows of ``segments``, oldest first, to the segment ``path``; returns the rank of each of its runs.

    ``ranks``: by series number its place in ``series``, which is in key order and holds every series of the segments.
    Rows of the same series and time are folded as ``fold_for_storage`` does it; then ``keep`` may leave out rows, which
    have ranks for series. None, and no file, when no row is left. Memory: about two row groups of each segment. Durable
    on return. Raises DamagedBlock, CompactionStopped and OSError; then no file is left.
    """
    types = dict(schema_of(segments))
    sources = [_Source(segment, ranks) for segment in segments]
    try:
        with (
            fsio.replacing(path) as temporary,
            SegmentWriter(
                temporary, series, types, _nullable(segments, types), thorough=True, pace=pace.rest
            ) as writer,
        ):
            for rows in _merged(sources, types, pace):
                writer.append(keep(rows))
            if not writer.rows:
                raise _NothingLeftError
            return writer.finish()
    except _NothingLeftError:
        return None


class _NothingLeftError(Exception):
    """No row is left; the file that was begun is not wanted."""


def _nullable(segments: Sequence[Segment], types: Mapping[str, FieldType]) -> set[str]:
    """Fields that some row of the result may lack.

    An older row of one series and time keeps what the newer lacks and loses the rest, so where rows of two files may
    meet and some of them lack a field, any field may be lacking.
    """
    lacking = {
        key
        for key, field_type in types.items()
        for segment in segments
        if segment.fields.get(key) is not field_type or key in segment.nullable_fields
    }
    spans = sorted((segment.min_ns, segment.max_ns) for segment in segments)
    meet = any(later[0] <= earlier[1] for earlier, later in itertools.pairwise(spans))
    return set(types) if lacking and meet else lacking


class _Source:
    """The rows of one segment from the cursor on; ``rows``: those that are read, with ranks for series numbers."""

    def __init__(self, segment: Segment, ranks: Int64s) -> None:
        self._segment = segment
        self._run_ranks = ranks[segment.runs().series]
        self._next_group = 0
        self.rows: Rows | None = None

    @property
    def more(self) -> bool:
        """Whether row groups are left to read."""
        return self._next_group < self._segment.row_groups

    def read_group(self) -> None:
        """Read the next row group. Raises DamagedBlock, OSError."""
        try:
            rows = self._segment.read_group(self._next_group, self._run_ranks)
        except CorruptData as error:
            raise DamagedBlock(error.message, self._segment) from error
        self._next_group += 1
        self.rows = rows if self.rows is None else concat_rows([self.rows, rows], self._segment.fields)

    def last_key(self) -> tuple[int, int]:
        """Rank and time of the last row that is read."""
        assert self.rows is not None, "asked of sources with rows"
        return int(self.rows.series[-1]), int(self.rows.time_ns[-1])

    def take(self, below: tuple[int, int] | None) -> MemoryBlock | None:
        """The rows in front of a rank and time, or all; they are no longer the source's."""
        rows = self.rows
        if rows is None:
            return None
        end = len(rows)
        if below is not None:
            low, high = (int(np.searchsorted(rows.series, below[0], side=side)) for side in ("left", "right"))
            end = low + int(np.searchsorted(rows.time_ns[low:high], below[1]))
        self.rows = _part(rows, end, len(rows)) if end < len(rows) else None
        return MemoryBlock.of(_part(rows, 0, end)) if end else None


def _merged(sources: Sequence[_Source], types: Mapping[str, FieldType], pace: Pace) -> Iterator[Rows]:
    """The rows of all sources by (series, time, version), folded, in pieces that share no series and time.

    A row is safe to give when every source is known from its series and time on: the least of the last rows that are
    read, among sources with more to come, is the bound. Rows at the bound wait, others of their time may follow.
    """
    while True:
        if pace.stopped():
            raise CompactionStopped
        for source in sources:
            while source.more and (source.rows is None or len(source.rows) < _REFILL_ROWS):
                source.read_group()
        open_ends = [(source.last_key(), source) for source in sources if source.more]
        bound = min((key for key, _ in open_ends), default=None)
        blocks = [block for source in sources if (block := source.take(bound)) is not None]
        if blocks:
            held = {key for block in blocks for key in block.fields}
            yield merge_blocks(blocks, {key: types[key] for key in types if key in held})
        elif bound is None:
            return
        else:
            # All rows that are read of some source have one series and time.
            for key, source in open_ends:
                if key == bound:
                    source.read_group()


def _part(rows: Rows, start: int, stop: int) -> Rows:
    """Some neighbouring rows, as views."""
    ends = np.array([start], dtype=np.int64), np.array([stop], dtype=np.int64)
    fields = {key: gather_column(column, *ends) for key, column in rows.fields.items()}
    return Rows(rows.series[start:stop], rows.time_ns[start:stop], rows.version[start:stop], fields)
