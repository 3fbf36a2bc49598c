"""Writes kept for one owner that is away: a queue on disk, in the records of the write-ahead log.

Files as those of the log, read from the oldest on; ``cursor`` beside them says how far they were delivered. A crash
loses at most the newest cursor: some records are then delivered once more, which changes nothing, because every row
carries its version.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dsdbd import fsio
from dsdbd.decoding import decode_json
from dsdbd.errors import Overloaded
from dsdbd.limits import MAX_HANDOFF_CORRUPT_BYTES
from dsdbd.storage.settings import ShardKey
from dsdbd.storage.wal import CORRUPT_DIR, LogWriter, Position, log_files
from dsdbd.storage.wal_format import Damage, Record, encode_record, read_records

_CURSOR = "cursor"
_ASIDE = "aside.wal"
MAX_ASIDE_BYTES = 16 << 20
"""Records an owner refuses for good that are kept for a look; of what comes later only the shard is noted."""
FILE_AGE_S = 3600.0
"""A file takes nothing more after that time: it is given up as a whole, by the age of its newest record."""


class QueueFull(Overloaded):
    """The queue of an owner holds as much as it may."""


class HandoffQueue:
    """A durable queue with bounds; any thread may call it, one at a time works. Raises OSError where the disk fails.

    ``lost`` holds the shards of which something was not kept or not delivered: a repair must compare them.
    ``unreadable``: why files were given up of which not even the shards are known. ``aside_bytes``: of what was put
    aside and will not be delivered, refused records and damaged files.
    """

    def __init__(self, directory: Path, *, max_size_bytes: int, segment_bytes: int = 16 << 20) -> None:
        fsio.make_dirs(directory)
        self.directory = directory
        self.lost: set[ShardKey] = set()
        self.unreadable: list[str] = []
        self.aside = 0
        self.aside_bytes = 0
        self._max_size_bytes = max_size_bytes
        self._lock = threading.Lock()
        files = log_files(directory)
        self._cursor = self._stored_cursor()
        # Numbers of files that are gone are not given again: the cursor would pass over what they hold.
        newest = max([self._cursor[0], *(number for number, _ in files)])
        self._log = LogWriter(directory, newest, min(segment_bytes, max(max_size_bytes // 4, 1 << 10)))
        self._begun = (newest, 0.0)
        self._sizes = {number: path.stat().st_size for number, path in files}
        # When the first record of a file of an earlier run was kept is not known: not later than its last.
        self._since_s = {number: path.stat().st_mtime for number, path in files}
        self._records: tuple[int, list[tuple[int, Record]], int] | None = None
        self._trim_aside()

    @property
    def size_bytes(self) -> int:
        """Bytes of the files that hold something undelivered."""
        return sum(self._sizes.values())

    @property
    def empty(self) -> bool:
        """Whether everything was delivered."""
        return not self._sizes

    def oldest_s(self) -> float:
        """Age in seconds of the first record of the oldest file; 0 for an empty queue. Reads nothing.

        Of a file of an earlier run it is the age of its last record.
        """
        oldest = min(tuple(self._since_s.values()), default=None)
        return 0.0 if oldest is None else max(0.0, time.time() - oldest)

    def append(self, records: list[Record]) -> None:
        """Keep records; durable on return. Raises QueueFull, DiskFull, OSError; nothing is kept then."""
        size = sum(len(piece) for record in records for piece in encode_record(record))
        with self._lock:
            if self.size_bytes + size > self._max_size_bytes:
                self.lost.update(record.key for record in records)
                raise QueueFull(f"the writes kept in {self.directory} fill the {self._max_size_bytes} bytes they may")
            if not 0 <= time.time() - self._begun[1] < FILE_AGE_S:
                # The next record begins a file.
                self._log.close()
            number = self._log.append(records)
            if number != self._begun[0]:
                self._begun = number, time.time()
                self._since_s[number] = self._begun[1]
            self._sizes[number] = (self.directory / f"{number:08d}.wal").stat().st_size
            if self._records is not None and self._records[0] == number:
                self._records = None

    def next(self, max_bytes: int) -> list[tuple[Position, Record]]:
        """The oldest undelivered records, at least one and not much more than ``max_bytes``; empty at the end."""
        with self._lock:
            while self._sizes:
                number = min(self._sizes)
                records = self._read(number)
                after = self._cursor[1] if self._cursor[0] == number else -1
                found: list[tuple[Position, Record]] = []
                size = 0
                for at, record in records:
                    if at > after and (not found or size + len(record.payload) <= max_bytes):
                        found.append(((number, at), record))
                        size += len(record.payload)
                    elif found:
                        break
                if found:
                    return found
                self._forget(number)
            return []

    def delivered(self, position: Position) -> None:
        """Everything up to this record need not be kept any more; written down with the next ``save``."""
        with self._lock:
            self._cursor = max(self._cursor, position)

    def save(self) -> None:
        """Write down how far the queue was delivered, and delete files that are done."""
        with self._lock:
            for number in [one for one in self._sizes if one < self._cursor[0]]:
                self._forget(number)
            number, after = self._cursor
            if number in self._sizes and not any(at > after for at, _ in self._read(number)):
                self._forget(number)
            fsio.write_atomic(self.directory / _CURSOR, msgspec.json.encode(self._cursor))

    def put_aside(self, record: Record) -> None:
        """Keep a record that its owner refuses for good apart from the queue, as far as there is room."""
        with self._lock:
            self.aside += 1
            self.lost.add(record.key)
            path = self.directory / _ASIDE
            data = b"".join(encode_record(record))
            if (path.stat().st_size if path.exists() else 0) + len(data) <= MAX_ASIDE_BYTES:
                with path.open("ab") as file:
                    file.write(data)
                self.aside_bytes += len(data)

    def set_aside_oldest(self) -> None:
        """Move the oldest file, which cannot be read, to ``corrupt``, so that those behind it can be delivered."""
        with self._lock:
            if not self._sizes:
                return
            number = min(self._sizes)
            path = self.directory / f"{number:08d}.wal"
            kept = self.directory / CORRUPT_DIR / path.name
            fsio.make_dirs(kept.parent)
            path.rename(kept)
            self.unreadable.append(f"{kept} cannot be read")
            self._forget(number)
            self._trim_aside()

    def purge(self, max_age_s: float) -> int:
        """Give up files whose newest record is older than this; their shards are ``lost``. Returns how many files.

        A file that cannot be read is given up as well, and named in ``unreadable``. What was put aside so long ago
        goes as well.
        """
        with self._lock:
            old_s = time.time() - max_age_s
            self._trim_aside(old_s)
            doomed = [number for number, path in log_files(self.directory) if path.stat().st_mtime < old_s]
            for number in doomed:
                try:
                    self.lost.update(record.key for _, record in self._read(number))
                except OSError as error:
                    self.unreadable.append(str(error))
                self._forget(number)
            return len(doomed)

    def close(self) -> None:
        """Write down the cursor and close the files."""
        self.save()
        with self._lock:
            self._log.close()

    def _read(self, number: int) -> Iterable[tuple[int, Record]]:
        """The good records of one file, which is kept in memory until another one is read."""
        size = self._sizes.get(number, 0)
        if self._records is None or self._records[0] != number or self._records[2] != size:
            path = self.directory / f"{number:08d}.wal"
            data = path.read_bytes()
            damage = Damage()
            records = list(read_records(memoryview(data), damage, last_file=number == max(self._sizes, default=number)))
            if damage.corrupt_at:
                self._keep_damaged(path, data)
                self.lost.update(record.key for _, record in records)
            self._records = (number, records, size)
        return self._records[1]

    def _keep_damaged(self, path: Path, data: bytes) -> None:
        kept = self.directory / CORRUPT_DIR / path.name
        if not kept.exists():
            fsio.make_dirs(kept.parent)
            fsio.write_atomic(kept, data)
            self._trim_aside()

    def _corrupt_files(self) -> list[tuple[float, int, Path]]:
        """Modification time, size and path of every file in ``corrupt``, the oldest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in (self.directory / CORRUPT_DIR).iterdir():
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        return sorted(found)

    def _trim_aside(self, old_s: float = 0.0) -> None:
        """Remove what was put aside before ``old_s`` (Unix time), and the oldest damaged files beyond their bound."""
        files = self._corrupt_files()
        left = sum(size for _, size, _ in files)
        for modified_s, size, path in files:
            if modified_s < old_s or left > MAX_HANDOFF_CORRUPT_BYTES:
                path.unlink(missing_ok=True)
                left -= size
        aside = self.directory / _ASIDE
        if aside.exists() and aside.stat().st_mtime < old_s:
            aside.unlink()
        self.aside_bytes = left + (aside.stat().st_size if aside.exists() else 0)

    def _forget(self, number: int) -> None:
        """Delete a file. A crash before the cursor is written delivers nothing twice: the file is gone."""
        if number == self._log.sequence:
            self._log.close()
        (self.directory / f"{number:08d}.wal").unlink(missing_ok=True)
        # First its age: who sees that nothing waits is told of none.
        self._since_s.pop(number, None)
        self._sizes.pop(number, None)
        if self._records is not None and self._records[0] == number:
            self._records = None

    def _stored_cursor(self) -> Position:
        try:
            return decode_json((self.directory / _CURSOR).read_bytes(), tuple[int, int])
        except (OSError, msgspec.MsgspecError):
            # Everything there is is delivered again.
            return (0, 0)
