"""The write-ahead log on disk: appending groups with one fdatasync, reading it back at start, deleting old files.

A file that once failed an fsync is never synced again: the kernel may have dropped the pages it could not write and
would report success. When the disk is full the log is rolled back to the last good offset and the file is left for
good; any other failure of the log ends the store.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dsdbd import fsio
from dsdbd.errors import DiskFull
from dsdbd.storage.wal_format import (
    HEADER_BYTES,
    Damage,
    Kind,
    Record,
    encode_header,
    encode_record,
    find_drops,
    read_records,
)

_SUFFIX = ".wal"
CORRUPT_DIR = "corrupt"
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


_STALLED_S = 1.0
"""An fdatasync that takes longer is worth a word: writes of this node wait for it."""
LOOK_FOR_SPACE_S = 1.0
_SPACE_BYTES = 16 << 20
"""Free space with which a full disk counts as no longer full."""
_NO_SPACE_BYTES = 64 << 10
"""Free space that is none: the next records, or the next file, need more."""


def is_disk_full(error: OSError) -> bool:
    """Whether space, or the quota, has run out."""
    return error.errno in FULL_ERRNOS


class LogWriter:
    """Appends to the newest file; used by one thread.

    ``sequence``: number of the newest file, created with the first append after a start or a roll.
    """

    def __init__(self, directory: Path, sequence: int, segment_bytes: int) -> None:
        self.directory = directory
        self.sequence = sequence
        self._segment_bytes = segment_bytes
        self._fd: int | None = None
        self._good = 0
        self._began_s: float | None = None
        self.ends: list[int] = []
        """Where in the newest file each of the records ends that were appended last."""
        self.full = ""
        """Why the last records were not taken; empty when they were, or when there is space again."""

    def append(self, records: list[Record]) -> int:
        """Write records and make them durable; returns the number of the file they are in.

        Raises DiskFull when space ran out, nothing is stored then; any other OSError means that the log cannot be
        trusted any more.
        """
        self._began_s = time.monotonic()
        try:
            number = self._append(records)
        except DiskFull as error:
            self.full = error.message
            raise
        finally:
            self._began_s = None
        self.full = ""
        return number

    def problems(self) -> list[str]:
        """Why records are not taken now: no space, or a disk that does not answer. Any thread may call it."""
        began_s = self._began_s
        waited_s = 0.0 if began_s is None else time.monotonic() - began_s
        found = [self.full] if self.full else []
        if waited_s > _STALLED_S:
            found.append(f"the disk of {self.directory} has not answered for {waited_s:.0f}s; writes wait for it")
        return found

    def look_for_space(self) -> None:
        """See whether there is space, which else only the next record would tell."""
        with contextlib.suppress(OSError):
            found = os.statvfs(self.directory)
            # Some is kept for the superuser, for whom it is no less free.
            free_bytes = (found.f_bavail if os.geteuid() else found.f_bfree) * found.f_frsize
            if free_bytes >= _SPACE_BYTES:
                self.full = ""
            elif free_bytes < _NO_SPACE_BYTES and not self.full:
                self.full = f"no space is left for the write-ahead log in {self.directory}; writes resume when there is"

    def _append(self, records: list[Record]) -> int:
        encoded = [encode_record(record) for record in records]
        data = b"".join(itertools.chain.from_iterable(encoded))
        fd = self._writable()
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(fd, memoryview(data)[written:], self._good + written)
            # A crash before this line may keep any part of the group; nobody has been told that it is stored.
            os.fdatasync(fd)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._abandon(fd)
            raise DiskFull(
                f"write-ahead log in {self.directory} is full; the points were not stored, writes resume when there is "
                "space"
            ) from error
        sizes = [sum(map(len, pieces)) for pieces in encoded]
        self.ends = list(itertools.accumulate(sizes, initial=self._good))[1:]
        self._good += len(data)
        return self.sequence

    @property
    def fresh(self) -> bool:
        """Whether the newest file was begun by this writer and holds no record."""
        return self._good == HEADER_BYTES

    def roll(self) -> None:
        """Begin a file, unless the newest is ``fresh``, so that the others can go. Raises OSError, DiskFull."""
        if self._fd is not None and not self.fresh:
            os.close(self._fd)
            self._fd = None
        self._writable()

    def _writable(self) -> int:
        """The descriptor of the file to append to; begins a new file where one is due."""
        if self._fd is not None and self._good >= self._segment_bytes:
            os.close(self._fd)
            self._fd = None
        if self._fd is not None:
            return self._fd
        sequence = self.sequence + 1
        path = self.directory / f"{sequence:08d}{_SUFFIX}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
            try:
                os.pwrite(fd, encode_header(sequence), 0)
                os.fsync(fd)
                fsio.fsync_dir(self.directory)
            except OSError:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise DiskFull(
                f"write-ahead log cannot begin a file in {self.directory}: no space; writes resume when there is some"
            ) from error
        self._fd, self._good, self.sequence = fd, HEADER_BYTES, sequence
        return fd

    def _abandon(self, fd: int) -> None:
        # What a failing truncation or a crash leaves behind the good offset fails its check or is complete; both are
        # allowed for a write whose caller got an error.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, self._good)
        with contextlib.suppress(OSError):
            os.close(fd)
        self._fd = None
        if self._good == HEADER_BYTES:
            # An empty file per refused write would pile up as long as the disk stays full.
            with contextlib.suppress(OSError):
                (self.directory / f"{self.sequence:08d}{_SUFFIX}").unlink()

    def close(self) -> None:
        """Close the file; everything appended is durable already."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def log_files(directory: Path) -> list[tuple[int, Path]]:
    """The files of a log, oldest first."""
    files = [(int(path.stem), path) for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdecimal()]
    return sorted(files)


def remove_before(directory: Path, sequence: int) -> int:
    """Delete the files numbered below ``sequence``, oldest first; returns how many.

    Always the oldest first: a DROP record must not disappear before the records it makes void.
    """
    removed = 0
    for number, path in log_files(directory):
        if number >= sequence:
            break
        path.unlink()
        removed += 1
    if removed:
        fsio.fsync_dir(directory)
    return removed


Position = tuple[int, int]
"""Number of a log file and offset of a record in it; positions are ordered as the records were written."""


def last_drops(directory: Path) -> dict[int, Position]:
    """Shard id to the position of its last DROP record. Raises OSError where a file cannot be read."""
    found: dict[int, Position] = {}
    files = log_files(directory)
    for number, (sequence, path) in enumerate(files):
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                continue
            # Of a big payload nothing is read.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
                drops = find_drops(data)
        if drops is None:
            last_file = number == len(files) - 1
            records = read_records(memoryview(path.read_bytes()), Damage(), last_file=last_file)
            drops = [(at, record.key.shard_id) for at, record in records if record.kind is Kind.DROP]
        found.update((shard_id, (sequence, at)) for at, shard_id in drops)
    return found


def replay(
    directory: Path, note: Callable[[str], None], moving: Callable[[], object] = lambda: None
) -> Iterator[tuple[Position, Record]]:
    """Every good record with its position, oldest first; one file at a time is in memory.

    A torn end is cut off. A file with damage before good records is copied to ``corrupt/`` and written anew with what
    passes its check; ``note`` is told in a sentence, and ``moving`` is called before, because records get other
    positions. Raises OSError only where a file cannot be read at all.
    """
    files = log_files(directory)
    for number, (sequence, path) in enumerate(files):
        data = path.read_bytes()
        damage = Damage()
        count = 0
        for at, record in read_records(memoryview(data), damage, last_file=number == len(files) - 1):
            count += 1
            yield (sequence, at), record
        if damage.corrupt_at:
            _quarantine(path, sequence, data, count, damage, note, moving)
        elif damage.torn_at is not None:
            _cut(path, damage.torn_at, len(data), note)


def _cut(path: Path, torn_at: int, size: int, note: Callable[[str], None]) -> None:
    """Remove an unfinished end, so that a later start does not take it for damage."""
    if torn_at < HEADER_BYTES:
        path.unlink()
        return
    try:
        os.truncate(path, torn_at)
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        note(f"log file {path}: an unfinished record of {size - torn_at} bytes could not be cut off: {error}")


def _quarantine(
    path: Path,
    sequence: int,
    data: bytes,
    count: int,
    damage: Damage,
    note: Callable[[str], None],
    moving: Callable[[], object],
) -> None:
    """Keep the damaged file aside, then replace it by its good records; a crash in between repeats both."""
    kept = path.parent / CORRUPT_DIR / path.name
    offsets = ", ".join(str(offset) for offset in damage.corrupt_at[:5])
    try:
        fsio.make_dirs(kept.parent)
        fsio.write_atomic(kept, data)
        moving()
        fsio.write_atomic(path, [encode_header(sequence), *(data[start:end] for start, end in damage.good)])
    except OSError as error:
        note(
            f"log file {path} is damaged at byte {offsets}: its {count} good records were read, but the file could "
            f"not be set aside: {error}"
        )
        return
    note(
        f"log file {path} is damaged at byte {offsets}: its {count} good records were kept, the damaged file is "
        f"{kept}; other owners of the shards hold what is missing"
    )
