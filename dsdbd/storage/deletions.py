"""The deletions of one shard: which there are, on disk and in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from dsdbd.errors import Overloaded
from dsdbd.limits import MAX_SHARD_TOMBSTONES
from dsdbd.model.columns import Int64s, Points
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.segment import Segment
from dsdbd.storage.selection import MAX_NS, MIN_NS
from dsdbd.storage.shard_files import ShardFiles
from dsdbd.storage.tombstones import Hidden, Tombstone, after_merge, found_again, marked, still_needed, with_tombstone


class Deletions:
    """Tombstones of one shard; the lock of the shard's files guards every method but ``marks``.

    ``known``: replaced as a whole, after it is durable. ``erased``: by measurement the greatest version of a
    deletion of everything in it, at all times. ``being_written``: measurement and file numbers of
    what a merge makes or has made last.
    """

    def __init__(self, disk: ShardFiles, shard_id: int) -> None:
        self.known: tuple[Tombstone, ...] = ()
        self.erased: dict[str, int] = {}
        self.being_written: tuple[str, tuple[int, int]] | None = None
        self._disk = disk
        self._shard_id = shard_id

    def load(self, segments: Iterable[Segment]) -> None:
        """Read the file, for the segments there are. Raises OSError."""
        files: dict[str, list[tuple[int, int]]] = {}
        for segment in segments:
            files.setdefault(segment.measurement, []).append((segment.low, segment.high))
        self._know(found_again(self._disk.load_tombstones(), files))

    def add(self, tombstones: Iterable[Tombstone], segments: Sequence[Segment]) -> None:
        """Delete what is in these segments, in memory, or still arrives. Raises OSError, Overloaded."""
        kept = self.known
        for one in tombstones:
            touched = frozenset(
                (segment.low, segment.high)
                for segment in segments
                if segment.measurement == one.measurement
                and segment.min_ns <= one.max_ns
                and segment.max_ns >= one.min_ns
            )
            if self.being_written is not None and self.being_written[0] == one.measurement:
                touched |= {self.being_written[1]}
            kept = with_tombstone(kept, replace(one, files=touched))
        if len(kept) > len(self.known) and len(kept) > MAX_SHARD_TOMBSTONES:
            raise Overloaded(
                f"shard {self._shard_id} keeps {MAX_SHARD_TOMBSTONES} deletions, as many as it may; "
                "delete wider ranges at once, or wait until its files are merged"
            )
        self._keep(kept)

    def concern(self, segment: Segment) -> None:
        """Note that a file that is about to be there may hold what they hide. Raises OSError."""
        kept = tuple(
            replace(one, files=one.files | {(segment.low, segment.high)})
            if one.measurement == segment.measurement and segment.min_ns <= one.max_ns and segment.max_ns >= one.min_ns
            else one
            for one in self.known
        )
        if kept != self.known:
            self._keep(kept)

    def merged(self, applied: Sequence[Tombstone], segments: Sequence[Segment], result: Segment) -> None:
        """Note that segments became one, to which only ``applied`` deletions were applied. Raises OSError."""
        if self.known is not applied:
            files = frozenset((segment.low, segment.high) for segment in segments)
            self._keep(after_merge(self.known, applied, files, (result.low, result.high)))

    def forget(self, measurement: str, horizon: int, files: Iterable[tuple[int, int]]) -> int:
        """Forget those of a measurement that can meet no row any more; returns how many are left. Raises OSError.

        ``files``: the measurement's segment files. ``horizon``: no batch of a lower version is in memory or can still
        arrive.
        """
        kept = still_needed(self.known, measurement, files, horizon)
        if kept != self.known:
            self._keep(kept)
        return len(kept)

    def _keep(self, tombstones: tuple[Tombstone, ...]) -> None:
        self._disk.store_tombstones(tombstones)
        self._know(tombstones)

    def _know(self, tombstones: tuple[Tombstone, ...]) -> None:
        self.known = tombstones
        erased: dict[str, int] = {}
        for one in tombstones:
            if one.predicate is None and (one.min_ns, one.max_ns) == (MIN_NS, MAX_NS):
                erased[one.measurement] = max(one.version, erased.get(one.measurement, one.version))
        self.erased = erased

    def left_of(self, points: Points, version: int) -> Points | None:
        """Points of a write without what a deletion of their whole measurement hides; None when nothing is left.

        ``version``: of rows that have none of their own. Of what it hides the field types do not count, either.
        """
        erased = self.erased.get(points.measurement)
        if erased is None or not len(points):
            return points if len(points) else None
        if points.versions is None:
            return points if version >= erased else None
        left = np.flatnonzero(points.versions >= erased)
        if len(left) == len(points):
            return points
        if not len(left):
            return None
        rest = points.select(left)
        held = {key: column for key, column in rest.fields.items() if column.valid is None or column.valid.any()}
        return replace(rest, fields=held)

    def of(self, measurement: str) -> tuple[Tombstone, ...]:
        """Those of one measurement."""
        return tuple(one for one in self.known if one.measurement == measurement)

    def marks(
        self, index: SeriesIndex, measurement: str, numbers: Int64s, min_ns: int, max_ns: int
    ) -> Sequence[Hidden]:
        """Those that concern some series and inclusive times; the lock of the index guards it."""
        mine = self.of(measurement)
        return marked(mine, numbers, index.select, min_ns, max_ns) if mine else ()
