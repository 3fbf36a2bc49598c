"""What other replicas and backups need of a shard: its files, theirs, and all rows with their versions."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsdbd import fsio
from dsdbd.errors import CorruptData, ShardUnavailable
from dsdbd.model.columns import Int64s
from dsdbd.model.digest import Grid, TimeRanges
from dsdbd.storage.contents import Held, Stored, limits_for
from dsdbd.storage.digesting import Digester
from dsdbd.storage.file_sums import BlockSums, FileSums, digest_of_file, known_sums
from dsdbd.storage.head import BACKGROUND_ROWS
from dsdbd.storage.index import hashes_of_columns
from dsdbd.storage.index_table import STEP
from dsdbd.storage.measurement import Measurement, WholeDigest
from dsdbd.storage.merging import segment_name
from dsdbd.storage.scanning import DamagedBlock, Source
from dsdbd.storage.segment import Segment
from dsdbd.storage.selection import Wanted
from dsdbd.storage.shard_state import ShardState
from dsdbd.storage.tombstones import Tombstone


class HeldFile(NamedTuple):
    """A segment file that stays as it is, and where it is, while it is held; ``sums``: where they are known."""

    measurement: str
    path: Path
    size_bytes: int
    rows: int
    sums: FileSums | None = None


class HeldFiles(NamedTuple):
    """The files of a shard, and the deletions that hide rows in them."""

    files: tuple[HeldFile, ...]
    tombstones: tuple[Tombstone, ...]


class ShardCopies(ShardState):
    """The part of a shard that deals with files of replicas; every method may be called from any thread."""

    def kept_tombstones(self) -> tuple[Tombstone, ...]:
        """The deletions that are kept, without the numbers of files of this node. Raises OSError."""
        self.load()
        return tuple(replace(one, files=frozenset()) for one in self._deletions.known)

    @contextlib.contextmanager
    def held_files(self) -> Iterator[HeldFiles]:
        """Every segment there is, kept from deletion until the end of the block; rows in memory are not in them.

        Only when the whole shard is removed the files go earlier: reading then raises FileNotFoundError. Raises
        OSError.
        """
        self.load()
        with self._lock:
            held = [(known, segment) for known in self._measurements.values() for segment in known.segments]
            segments = [segment for _, segment in held]
            files = tuple(
                HeldFile(one.measurement, one.path, one.size_bytes, one.rows, known_sums(known, one))
                for known, one in held
            )
            for segment in segments:
                segment.pins += 1
        try:
            # Read after the segments: what hides rows of one of them is among these.
            yield HeldFiles(files, self.kept_tombstones())
        finally:
            self._unpin(segments)

    def names(self) -> list[str]:
        """Every measurement of which something may be here. Raises OSError."""
        self.load()
        with self._lock:
            return list(self._measurements)

    def whole_digest(self, measurement: str) -> tuple[WholeDigest | None, int]:
        """What is known of a measurement since an earlier digest, and its count of changes, without reading a row."""
        with self._lock:
            known = self._measurements.get(measurement)
            return (None, 0) if known is None else (known.whole, known.changed)

    @contextlib.contextmanager
    def contents(self, measurement: str, min_ns: int, max_ns: int) -> Iterator[Held | None]:
        """What there is of a measurement within inclusive times, until the end of the block; None without any.

        Raises OSError. For a DamagedBlock that reading it raises there is ``set_aside``.
        """
        self.load()
        held, segments = self._hold(measurement, min_ns, max_ns)
        try:
            # Looking for the series that are hidden may take long: not under the lock, for which writes wait.
            yield None if held is None else held.with_hidden()
        finally:
            self._unpin(segments)

    def _hold(self, measurement: str, min_ns: int, max_ns: int) -> tuple[Held | None, list[Segment]]:
        sealed, changed, seen = False, 0, None
        while not self.dropped:
            with self._lock:
                known = self._measurements.get(measurement)
                if known is None:
                    break
                if known is not seen:
                    # Rows that come after this may be among those that are sealed, or not.
                    seen, changed = known, known.changed
                tables = self._tables(measurement)
                numbered = all(segment.run_series is not None for segment in known.segments)
                sealed = sealed or not any(table.unsealed for table in tables)
                if numbered and sealed:
                    segments = list(known.segments)
                    sources = known.sources([block for table in tables for block in table.snapshot()])
                    if not sources:
                        break
                    held = Held(known, changed, *self._stored(known, measurement, sources, min_ns, max_ns))
                    for segment in segments:
                        segment.pins += 1
                    return held, segments
            if not numbered:
                self._number_series(measurement)
            if not sealed:
                self._seal(measurement, BACKGROUND_ROWS)
                sealed = True
        return None, []

    def _stored(
        self, known: Measurement, measurement: str, sources: list[Source], min_ns: int, max_ns: int
    ) -> tuple[Stored, tuple[Tombstone, ...]]:
        every = np.arange(len(known.index), dtype=np.int64)
        stored = Stored(
            known.index.subset(measurement, every),
            Wanted(every, len(every)),
            sources,
            dict(known.types),
            only_with_values=False,
            min_ns=min_ns,
            max_ns=max_ns,
            limits=limits_for(len(known.types)),
        )
        return stored, self._deletions.of(measurement)

    def numbers_of(self, known: Measurement, keys: Sequence[bytes]) -> Int64s:
        """Numbers of series, -1 for those that are not here."""
        found = [np.empty(0, dtype=np.int64)]
        for at in range(0, len(keys), STEP):
            # Writes get their turn between the steps.
            with self._lock:
                found.append(known.index.find(keys[at : at + STEP]))
        return np.concatenate(found)

    def set_aside(self, held: Held, error: DamagedBlock) -> None:
        """Go on without a damaged file."""
        self._damaged(held.known, error)

    def adopt(self, measurement: str, path: Path, ranges: TimeRanges, sums: FileSums | None = None) -> None:
        """Make a segment file that another replica wrote one of this shard; ``path`` is on the same file system.

        Its rows count as if they had been written here: by their versions, and hidden by the deletions there are. The
        file is moved and durable on return. Raises CorruptData when it is damaged or not of this measurement,
        ShardUnavailable when the shard is gone, OSError; then it lies where it was. A crash leaves it there or in the
        shard. ``ranges``: of the digests, of which the file's own is known from then on. All of it is read once for
        this, unless ``sums`` has it: these are of a file of the same bytes, which the caller has made sure of.
        """
        found = _checked(path, measurement, ranges, sums if sums is not None and sums.ranges == ranges else None)
        with self._files:
            self.load()
            if self.dropped:
                raise ShardUnavailable(f"shard {self.shard_id} was removed; nothing can be added to it")
            with self._lock:
                known = self._measurement(measurement)
                number = known.take_number()
            with contextlib.closing(Segment(path, number, number)) as arrived:
                erased = self._deletions.erased.get(measurement)
                if erased is not None and arrived.newest_version() < erased:
                    # Nothing of it counts, nor do the types of its fields.
                    path.unlink(missing_ok=True)
                    return
                # Before the file is there: a crash in between leaves a note about no file, which a start takes back.
                self._deletions.concern(arrived)
            self._disk.make()
            fsio.make_dirs(known.directory)
            _sync(path)
            segment = self._move_in(path, known.directory / segment_name(number, number), number)
            with self._lock:
                # Another one when what was known before is deleted meanwhile.
                known = self._measurement(measurement)
                known.add(segment)
                deleted = self._deletions.of(measurement)
                known.ranges = ranges
                if found is not None and known.all_of_it_counts(segment, deleted):
                    known.sums[segment] = found
                self._changed(known)

    def _move_in(self, path: Path, target: Path, number: int) -> Segment:
        path.rename(target)
        try:
            fsio.fsync_dir(target.parent)
            return self._disk.open(target, number, number)
        except BaseException:
            # As after a failed write: deletions do not count what is not known.
            with contextlib.suppress(OSError):
                target.rename(path)
            raise


def _checked(path: Path, measurement: str, ranges: TimeRanges, sums: FileSums | None) -> BlockSums | None:
    """Read all of a segment file, or only what it says of itself where its sums are known.

    The digest of its rows, None where it is not known. Raises CorruptData, OSError.
    """
    with contextlib.closing(Segment(path, 0, 0)) as segment:
        if segment.measurement != measurement:
            raise CorruptData(f"segment {path} is of measurement {segment.measurement!r}, not of {measurement!r}")
        tags = segment.read_tags()
        if sums is not None:
            return BlockSums((ranges, ()), sums.grid, sums.file_digest)
        # Bytes first: what is damaged in between shows when the rows are read.
        file_digest = digest_of_file(path)
        runs = len(segment.run_starts)
        hashes = hashes_of_columns(measurement, tags, runs)
        numbers = np.arange(runs, dtype=np.int64)
        groups = (segment.read_group(group, numbers) for group in range(segment.row_groups))
        if hashes is None:
            deque(groups, maxlen=0)
            return None
        grid = Grid.of(measurement, Digester(hashes, ranges, None).sums(groups))
        return BlockSums((ranges, ()), grid, file_digest)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
