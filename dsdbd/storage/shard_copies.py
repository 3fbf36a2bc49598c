"""Segment files that leave a shard for another node or a backup, and those that come from one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsdbd import fsio
from dsdbd.errors import CorruptData, ShardUnavailable
from dsdbd.storage.merging import segment_name
from dsdbd.storage.segment import Segment
from dsdbd.storage.shard_state import ShardState
from dsdbd.storage.tombstones import Tombstone


class HeldFile(NamedTuple):
    """A segment file that stays as it is, and where it is, while it is held."""

    measurement: str
    path: Path
    size_bytes: int
    rows: int


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
            segments = [segment for known in self._measurements.values() for segment in known.segments]
            for segment in segments:
                segment.pins += 1
        try:
            files = tuple(HeldFile(one.measurement, one.path, one.size_bytes, one.rows) for one in segments)
            # Read after the segments: what hides rows of one of them is among these.
            yield HeldFiles(files, self.kept_tombstones())
        finally:
            self._unpin(segments)

    def adopt(self, measurement: str, path: Path) -> None:
        """Make a segment file that another replica wrote one of this shard; ``path`` is on the same file system.

        Its rows count as if they had been written here: by their versions, and hidden by the deletions there are. The
        file is moved and durable on return. Raises CorruptData when it is damaged or not of this measurement,
        ShardUnavailable when the shard is gone, OSError; then it lies where it was. A crash leaves it there or in the
        shard.
        """
        _check(path, measurement)
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
            target = known.directory / segment_name(number, number)
            path.rename(target)
            fsio.fsync_dir(target.parent)
            segment = self._disk.open(target, number, number)
            with self._lock:
                known.add(segment)
                self._changed(known)


def _check(path: Path, measurement: str) -> None:
    """Read all of a segment file. Raises CorruptData, OSError."""
    with contextlib.closing(Segment(path, 0, 0)) as segment:
        if segment.measurement != measurement:
            raise CorruptData(f"segment {path} is of measurement {segment.measurement!r}, not of {measurement!r}")
        segment.read_tags()
        runs = len(segment.run_starts)
        numbers = np.arange(runs, dtype=np.int64)
        for group in range(segment.row_groups):
            segment.read_group(group, numbers)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
