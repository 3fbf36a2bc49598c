"""The deletions of one shard: which there are, on disk and in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dsdbd.errors import Overloaded
from dsdbd.limits import MAX_SHARD_TOMBSTONES
from dsdbd.model.columns import Int64s
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.segment import Segment
from dsdbd.storage.shard_files import ShardFiles
from dsdbd.storage.tombstones import Hidden, Tombstone, after_merge, found_again, marked, still_needed, with_tombstone


class Deletions:
    """Tombstones of one shard; the lock of the shard's files guards every method but ``marks``.

    ``known``: replaced as a whole, after it is durable.
    """

    def __init__(self, disk: ShardFiles, shard_id: int) -> None:
        self.known: tuple[Tombstone, ...] = ()
        self._disk = disk
        self._shard_id = shard_id

    def load(self, segments: Iterable[Segment]) -> None:
        """Read the file, for the segments there are. Raises OSError."""
        files: dict[str, list[tuple[int, int]]] = {}
        for segment in segments:
            files.setdefault(segment.measurement, []).append((segment.low, segment.high))
        self.known = found_again(self._disk.load_tombstones(), files)

    def add(self, tombstone: Tombstone, segments: Sequence[Segment]) -> None:
        """Delete what is in these segments, in memory, or still arrives. Raises OSError, Overloaded."""
        touched = frozenset(
            (segment.low, segment.high)
            for segment in segments
            if segment.min_ns <= tombstone.max_ns and segment.max_ns >= tombstone.min_ns
        )
        kept = with_tombstone(self.known, replace(tombstone, files=touched))
        if len(kept) > MAX_SHARD_TOMBSTONES:
            raise Overloaded(
                f"shard {self._shard_id} keeps {MAX_SHARD_TOMBSTONES} deletions, as many as it may; "
                "delete wider ranges at once, or wait until its files are merged"
            )
        self._keep(kept)

    def merged(self, applied: Sequence[Tombstone], segments: Sequence[Segment], result: Segment | None) -> None:
        """Note that segments became one, to which only ``applied`` deletions were applied. Raises OSError."""
        if result is not None and self.known is not applied:
            files = frozenset((segment.low, segment.high) for segment in segments)
            self._keep(after_merge(self.known, applied, files, (result.low, result.high)))

    def forget(self, horizon: int, files: Mapping[str, Sequence[tuple[int, int]]]) -> int:
        """Forget those that can meet no row any more; returns how many are left. Raises OSError.

        ``files``: the segment files of each measurement; no rows are in memory. ``horizon``: no batch of a lower
        version can still arrive.
        """
        kept = self.known
        for measurement in {one.measurement for one in kept}:
            kept = still_needed(kept, measurement, files.get(measurement, ()), horizon)
        if kept != self.known:
            self._keep(kept)
        return len(kept)

    def _keep(self, tombstones: tuple[Tombstone, ...]) -> None:
        self._disk.store_tombstones(tombstones)
        self.known = tombstones

    def marks(
        self, index: SeriesIndex, measurement: str, numbers: Int64s, min_ns: int, max_ns: int
    ) -> Sequence[Hidden]:
        """Those that concern some series and inclusive times; the lock of the index guards it."""
        mine = [one for one in self.known if one.measurement == measurement]
        return marked(mine, numbers, index.select, min_ns, max_ns) if mine else ()
