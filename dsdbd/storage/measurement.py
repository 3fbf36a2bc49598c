"""What a shard knows of one measurement."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dsdbd.errors import FieldTypeConflict
from dsdbd.model.columns import Int64s, Points
from dsdbd.model.digest import Grid, TimeRanges, UInt64s, series_hashes
from dsdbd.model.types import FieldType
from dsdbd.storage.block import Block
from dsdbd.storage.file_sums import BlockSums
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.index_table import STEP
from dsdbd.storage.scanning import Source
from dsdbd.storage.segment import Segment
from dsdbd.storage.selection import RunLookup
from dsdbd.storage.tombstones import Tombstone


@dataclass(frozen=True, slots=True)
class WholeDigest:
    """The digest of all rows of a measurement, None without any row.

    ``changed``: of the measurement, then. ``newest``, ``min_ns``, ``max_ns``: no row is newer, earlier or later.
    """

    changed: int
    ranges: TimeRanges
    newest: int
    min_ns: int
    max_ns: int
    grid: Grid | None

    def answers(self, changed: int, ranges: TimeRanges, min_ns: int, max_ns: int, below: int | None) -> bool:
        """Whether it is that of the rows within inclusive times of versions lower than ``below`` (None: of any)."""
        all_times = min_ns <= self.min_ns and self.max_ns <= max_ns
        return (
            self.changed == changed and self.ranges == ranges and all_times and (below is None or self.newest < below)
        )


@dataclass(slots=True)
class Measurement:
    """One measurement of a shard; guarded by the shard's lock.

    ``types``: each field ever seen, in segments or in memory. ``next_number``: of the next segment file.
    ``deleted_from``: whether series may be known that have no row any more. ``live``: by block the deletions that were
    looked at, and the series with rows that they leave. ``changed``: the shard's count of changes at the last one here.
    ``sums``, ``whole``: digests of blocks by themselves, and of all (``digesting``). ``ranges``: of the digests that
    were asked for last, None while nobody asks; where they are known, files get their digests when they are written.
    """

    directory: Path
    index: SeriesIndex = field(default_factory=SeriesIndex)
    segments: list[Segment] = field(default_factory=list)
    types: dict[str, FieldType] = field(default_factory=dict)
    next_number: int = 1
    deleted_from: bool = False
    changed: int = 0
    live: weakref.WeakKeyDictionary[Block, tuple[tuple[Tombstone, ...], Int64s]] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    sums: weakref.WeakKeyDictionary[Block, BlockSums] = field(default_factory=weakref.WeakKeyDictionary)
    ranges: TimeRanges | None = None
    whole: WholeDigest | None = None
    _hashes: UInt64s = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    _lookups: weakref.WeakKeyDictionary[Block, RunLookup] = field(default_factory=weakref.WeakKeyDictionary)

    def add(self, segment: Segment) -> None:
        """Take a segment found at the start; those of lower numbers come first."""
        self.directory = segment.path.parent
        self.segments.append(segment)
        self.next_number = max(self.next_number, segment.high + 1)
        for name, field_type in segment.fields.items():
            self.types.setdefault(name, field_type)

    def fix_types(self, points: Points) -> None:
        """Raise FieldTypeConflict when a field has another type here; fields seen first get theirs fixed."""
        for name, column in points.fields.items():
            fixed = self.types.setdefault(name, column.type)
            if fixed is not column.type:
                raise FieldTypeConflict(
                    f'field type conflict: input field "{name}" on measurement "{points.measurement}" is type '
                    f"{column.type.value}, already exists as type {fixed.value}"
                )

    def know_types(self, points: Points) -> None:
        """Fix the types of fields seen first; for rows that ``fix_types`` has let in."""
        for name, column in points.fields.items():
            self.types.setdefault(name, column.type)

    def all_of_it_counts(self, segment: Segment, deleted: Iterable[Tombstone]) -> bool:
        """Whether no deletion may hide rows of a file of this measurement, nor an other type its fields."""
        return all(self.types.get(key) is field_type for key, field_type in segment.fields.items()) and not any(
            one.min_ns <= segment.max_ns and one.max_ns >= segment.min_ns for one in deleted
        )

    def take_number(self) -> int:
        """Number of a new segment file; no other gets it, whether the file is written or not."""
        self.next_number += 1
        return self.next_number - 1

    def key_order(self, numbers: Int64s) -> tuple[Int64s, Int64s]:
        """Series by key, and the place there of every series, by number."""
        order = self.index.in_key_order(numbers)
        ranks = np.full(len(self.index), -1, dtype=np.int64)
        ranks[order] = np.arange(len(order), dtype=np.int64)
        return order, ranks

    def series_hashes(self, count: int) -> UInt64s:
        """Hash of each of the first ``count`` series, by number; needs no lock."""
        known = self._hashes
        if len(known) < count:
            fresh = np.arange(len(known), count, dtype=np.int64)
            parts = [series_hashes(self.index.keys.array(fresh[at : at + STEP])) for at in range(0, len(fresh), STEP)]
            # Two threads may do this at the same time, and come to the same.
            self._hashes = known = np.concatenate([known, *parts])
        return known[:count]

    def sources(self, in_memory: Sequence[Block]) -> list[Source]:
        """All blocks, oldest first, the series of which have their numbers."""
        return [self._source(block) for block in (*self.segments, *in_memory)]

    def _source(self, block: Block) -> Source:
        lookup = self._lookups.get(block)
        if lookup is None:
            lookup = self._lookups[block] = RunLookup(block.runs())
        return Source(block, lookup)
