"""What a node keeps on its disk of a copy that is not complete: the file under way, and the names of those it has.

It lies in the shard's directory under a temporary name, so it goes where the shard goes. Losing any of it costs time
only: what was copied twice holds the same rows, and the comparison at the end of a copy finds what lacks.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from typing import TYPE_CHECKING

import msgspec

from dsdbd import fsio
from dsdbd.decoding import decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from dsdbd.cluster.segment_messages import FileEntry

WORK_DIR = "transfer" + fsio.TEMPORARY_SUFFIX
_TAKEN_FILE = "taken.json"
_PART_SUFFIX = ".part"

Taken = tuple[int, str, str, int]
"""Number of the data node it came from, measurement, name, size in bytes."""


class Workspace:
    """The directory of one copy; every method blocks and raises OSError."""

    def __init__(self, shard_directory: Path) -> None:
        self.directory = shard_directory / WORK_DIR
        self._taken: set[Taken] = set()

    def open(self) -> None:
        """Make it, or take up what an earlier run left."""
        fsio.make_dirs(self.directory)
        try:
            stored = decode_json((self.directory / _TAKEN_FILE).read_bytes(), list[Taken])
        except (FileNotFoundError, msgspec.MsgspecError):
            return
        self._taken = set(stored)

    def has(self, source: int, entry: FileEntry) -> bool:
        """Whether a file is part of the shard already."""
        return (source, entry.measurement, entry.name, entry.size_bytes) in self._taken

    def took(self, source: int, entry: FileEntry) -> None:
        """Remember that a file is part of the shard; after a crash before this it is copied once more."""
        self._taken.add((source, entry.measurement, entry.name, entry.size_bytes))
        fsio.write_atomic(self.directory / _TAKEN_FILE, msgspec.json.encode(sorted(self._taken)))

    def part(self, source: int, entry: FileEntry) -> Path:
        """Where the bytes of a file are collected."""
        name = f"{source}/{entry.measurement}/{entry.name}/{entry.size_bytes}"
        return self.directory / (hashlib.blake2b(name.encode(), digest_size=16).hexdigest() + _PART_SUFFIX)

    def keep_parts(self, source: int, entries: Iterable[FileEntry]) -> None:
        """Remove parts of files that are not asked for any more."""
        wanted = {self.part(source, entry) for entry in entries}
        for path in self.directory.glob(f"*{_PART_SUFFIX}"):
            if path not in wanted:
                path.unlink(missing_ok=True)


def remove_leftovers(data_dir: Path, is_wanted: Callable[[int], bool]) -> int:
    """Remove the work of copies that nobody wants any more, by shard id; returns of how many shards. Raises OSError."""
    removed = 0
    for directory in data_dir.glob(f"*/*/*/{WORK_DIR}"):
        shard = directory.parent
        if shard.name.isdecimal() and not is_wanted(int(shard.name)):
            shutil.rmtree(directory, ignore_errors=True)
            # Where nothing else is in it, the shard itself was never made.
            with contextlib.suppress(OSError):
                shard.rmdir()
            removed += 1
    return removed
