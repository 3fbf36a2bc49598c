"""One shard as one of several replicas: what it holds, compared and exchanged; its files; what was deleted from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from dsdbd.errors import ShardUnavailable
from dsdbd.model.columns import Bools, Int64s, Points
from dsdbd.model.digest import Grid, TimeRanges
from dsdbd.storage.comparing import Comparison, bounds_of, deleted_here
from dsdbd.storage.contents import Held
from dsdbd.storage.digesting import digest, digest_since
from dsdbd.storage.exporting import Selection, pieces
from dsdbd.storage.file_sums import FileSums
from dsdbd.storage.scanning import DamagedBlock
from dsdbd.storage.selection import MAX_NS, MIN_NS
from dsdbd.storage.shard import Shard
from dsdbd.storage.shard_copies import HeldFiles
from dsdbd.storage.tombstones import Tombstone


class Replica:
    """A shard and the times of its shard group, ``start_ns`` to ``end_ns`` (exclusive).

    ``wake`` is told of the shard when it has a new file. Every method may be called from any thread, and blocks.
    """

    def __init__(self, shard: Shard, start_ns: int, end_ns: int, wake: Callable[[Shard], None] | None = None) -> None:
        self.shard = shard
        self.start_ns = start_ns
        self.end_ns = end_ns
        self._wake = wake
        self._ranges = TimeRanges(start_ns, end_ns)

    def digests(
        self,
        measurements: Collection[str] | None = None,
        *,
        min_ns: int = MIN_NS,
        max_ns: int = MAX_NS,
        below: int | None = None,
        since: int | None = None,
        coordinator: int = 0,
    ) -> dict[str, Grid]:
        """Grids by measurement, of all or of some; those without any row are left out.

        Rows within inclusive times count, of versions lower than ``below`` (None: of any), less what is deleted. Two
        replicas with equal grids hold the same values. With ``since``, ``below`` does not count: rows of that version
        and newer ones, for which files of older rows are not read; with ``coordinator`` only those that the node of
        that number gave (0: any). Raises OSError.
        """
        found = {}
        for name in self.shard.names() if measurements is None else measurements:
            if since is None:
                grid = self._digest(name, min_ns, max_ns, below)
            else:
                grid = self._digest_since(name, min_ns, max_ns, since, coordinator)
            if grid is not None:
                found[name] = grid
        return found

    def _digest(self, measurement: str, min_ns: int, max_ns: int, below: int | None) -> Grid | None:
        whole, changed = self.shard.whole_digest(measurement)
        if whole is not None and whole.answers(changed, self._ranges, min_ns, max_ns, below):
            return whole.grid
        return self._of_held(measurement, min_ns, max_ns, lambda held: digest(held, self._ranges, below))

    def _digest_since(self, measurement: str, min_ns: int, max_ns: int, since: int, coordinator: int) -> Grid | None:
        whole, changed = self.shard.whole_digest(measurement)
        if whole is not None and whole.changed == changed and whole.newest < since:
            return None
        return self._of_held(
            measurement, min_ns, max_ns, lambda held: digest_since(held, self._ranges, since, coordinator)
        )

    def _of_held(self, measurement: str, min_ns: int, max_ns: int, work: Callable[[Held], Grid | None]) -> Grid | None:
        """What ``work`` finds in what is held, again without each file that turns out to be damaged."""
        while not self.shard.dropped:
            with self.shard.contents(measurement, min_ns, max_ns) as held:
                if held is None:
                    return None
                try:
                    return work(held)
                except DamagedBlock as error:
                    self.shard.set_aside(held, error)
                except FileNotFoundError:
                    if not self.shard.dropped:
                        raise
        return None

    def export(
        self,
        measurement: str,
        cells: Sequence[int] | None = None,
        *,
        min_ns: int = MIN_NS,
        max_ns: int = MAX_NS,
        below: int | None = None,
        since: int | None = None,
        coordinator: int = 0,
    ) -> Iterator[Points]:
        """Rows with their versions, in pieces of about a megabyte: those of some cells of the grid, or of all.

        Restricted as for ``digests``. Raises OSError, and ShardUnavailable when a file turns out to be damaged; the
        next export goes without that file.
        """
        chosen = Selection(self._ranges, cells, below, since, coordinator)
        low, high = max(min_ns, chosen.min_ns), min(max_ns, chosen.max_ns)
        if low > high:
            return
        with self.shard.contents(measurement, low, high) as held:
            if held is None:
                return
            try:
                hashes = held.hashes()
                sources = None if since is None else held.from_version(since)
                found = (chosen.of(rows, hashes) for rows in held.stored.stored(chosen.series(hashes), sources))
                yield from pieces(measurement, held.known.index.keys, found)
            except DamagedBlock as error:
                self.shard.set_aside(held, error)
                raise ShardUnavailable(
                    f"{error.message}; it was found while shard {self.shard.shard_id} was read; read again"
                ) from error

    def lacking(self, points: Points) -> Points | None:
        """Those of some rows, which have versions, with a value this shard lacks; None when it has all.

        A value is lacking when the shard has none of its version or a greater one and no deletion hides it. Of
        different values of one version all replicas take the same. Raises OSError, ShardUnavailable.
        """
        versions = points.versions
        assert versions is not None, "rows of another replica have versions"
        if not len(points):
            return None
        low, high = int(points.time_ns.min()), int(points.time_ns.max())
        while not self.shard.dropped:
            with self.shard.contents(points.measurement, low, high) as held:
                try:
                    rows = np.flatnonzero(self._lacks(points, versions, held))
                except DamagedBlock as error:
                    assert held is not None, "what is damaged was held"
                    self.shard.set_aside(held, error)
                    continue
            if not len(rows):
                return None
            return points if len(rows) == len(points) else points.select(rows)
        raise ShardUnavailable(f"shard {self.shard.shard_id} was removed; nothing can be compared with it")

    def _lacks(self, points: Points, versions: Int64s, held: Held | None) -> Bools:
        tombstones = [one for one in self.tombstones() if one.measurement == points.measurement]
        if held is None:
            series: Int64s = np.full(len(points), -1, dtype=np.int64)
            return ~deleted_here(points, versions, series, (), tombstones)
        stored = held.stored
        numbers = self.shard.numbers_of(held.known, points.series)
        # A series that came after the shard was looked at has nothing in what is held of it.
        numbers[numbers >= len(stored.series)] = -1
        series = numbers[points.series_index]
        comparison = Comparison(points, versions, series)
        chosen, first, last = bounds_of(points, series, len(stored.series))
        if chosen.any():
            for window in stored.windows(stored.narrow(stored.parts(chosen), first, last)):
                comparison.has(stored.folded([stored.rows_of(part) for part in window]))
        deleted = deleted_here(points, versions, series, stored.hidden, tombstones)
        return comparison.lacking() & ~deleted

    def tombstones(self) -> tuple[Tombstone, ...]:
        """The deletions that are kept, without numbers of files: what another replica may compare. Raises OSError."""
        return self.shard.kept_tombstones()

    @contextlib.contextmanager
    def files(self) -> Iterator[HeldFiles]:
        """All that was acknowledged before the call as segment files, which stay until the end of the block.

        Raises OSError; a file that vanishes meanwhile means that the shard was removed.
        """
        self.shard.flush()
        with self.shard.held_files() as held:
            yield held

    def adopt(self, measurement: str, path: Path, sums: FileSums | None = None) -> None:
        """Make a complete segment file, under a temporary name below the shard's directory, one of this shard.

        ``sums``: those that another replica knows of it, where the file has the bytes they are of; all of it is read
        otherwise. Durable on return. Raises CorruptData, ShardUnavailable, OSError: then nothing has changed.
        """
        self.shard.adopt(measurement, path, self._ranges, sums)
        if self._wake is not None:
            self._wake(self.shard)
