"""Merging segments of one measurement into one: read and written row group by row group, whatever their size."""

from __future__ import annotations

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
from dsdbd.storage.ranges import gather_column
from dsdbd.storage.rows import Rows, concat_rows
from dsdbd.storage.segment import Segment, schema_of
from dsdbd.storage.segment_format import ROW_GROUP_ROWS
from dsdbd.storage.segment_write import SegmentWriter

_REFILL_ROWS = ROW_GROUP_ROWS // 2
"""Rows of a source under which its next row group is read."""


class CompactionStopped(Exception):
    """The merge was told to end early; nothing of it is left."""


class DamagedSource(CorruptData):
    """CorruptData that knows the segment it was found in."""

    def __init__(self, message: str, segment: Segment) -> None:
        super().__init__(message)
        self.segment = segment


@dataclass(frozen=True, slots=True)
class Pace:
    """What a merge asks as it goes on.

    ``rest(size_bytes)`` is told of decoded bytes written, and may wait; ``stopped()`` says whether to end early.
    """

    rest: Callable[[int], None]
    stopped: Callable[[], bool]


def wait_s(size_bytes: int, bytes_per_s: int, spent_s: float) -> float:
    """How long to wait after ``size_bytes`` that took ``spent_s`` so as to stay within the rate. Pure."""
    return max(0.0, size_bytes / bytes_per_s - spent_s)


def compact(segments: Sequence[Segment], ranks: Int64s, series: SeriesSet, path: Path, pace: Pace) -> Int64s:
    """Write the rows of ``segments``, oldest first, to the segment ``path``; returns the rank of each of its runs.

    ``ranks``: by series number its place in ``series``, which is in key order and holds every series of the segments.
    Rows of the same series and time are folded as ``fold_for_storage`` does it. Memory: about two row groups of each
    segment. Durable on return. Raises DamagedSource, CompactionStopped and OSError; then no file is left.
    """
    types = dict(schema_of(segments))
    sources = [_Source(segment, ranks) for segment in segments]
    with (
        fsio.replacing(path) as temporary,
        SegmentWriter(temporary, series, types, _nullable(segments, types), thorough=True, pace=pace.rest) as writer,
    ):
        for rows in _merged(sources, types, pace):
            writer.append(rows)
        return writer.finish()


def _nullable(segments: Sequence[Segment], types: Mapping[str, FieldType]) -> set[str]:
    """Fields that some row of the result may lack.

    Folding takes no more away: a field that every row has is in the newest row of each series and time.
    """
    return {
        key
        for key, field_type in types.items()
        for segment in segments
        if segment.fields.get(key) is not field_type or key in segment.nullable_fields
    }


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
        """Read the next row group. Raises DamagedSource, OSError."""
        try:
            rows = self._segment.read_group(self._next_group, self._run_ranks)
        except CorruptData as error:
            raise DamagedSource(error.message, self._segment) from error
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
