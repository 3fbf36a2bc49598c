"""Bringing the log's records back into heads when a store opens."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dsdbd.errors import CorruptData, DSDBError
from dsdbd.model.columns import Batch, decode_keys, decode_lazily
from dsdbd.storage.key_blocks import KeyBlock, KnownNumbers
from dsdbd.storage.log_mark import renew_log_id
from dsdbd.storage.settings import ShardKey
from dsdbd.storage.shard import Shard
from dsdbd.storage.tombstones import Tombstone, decode_tombstones
from dsdbd.storage.wal import Position, last_drops, log_files, replay
from dsdbd.storage.wal_format import Kind, Record

_LOOK_S = 0.05
"""How often a replay looks at its memory; it takes in some tens of megabytes meanwhile."""
_TELL_S = 1.0
"""How often a replay reports."""
_BEFORE_ALL = (-1, -1)
_AHEAD = 16
"""Decoded records that wait for their insertion."""
_FEW_KEYS = 64
"""So few keys are looked up one by one: a digest of them is not worth it."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A record on its way from the thread that reads; what it holds is an error where it cannot be decoded."""

    position: Position
    key: ShardKey
    content: Batch | tuple[Tombstone, ...] | CorruptData


class Replayed(NamedTuple):
    """Number of the newest file of a log, 0 without any; rows brought back; and records that files hold already."""

    newest: int
    rows: int
    skipped: int


def replay_log(
    wal_dir: Path,
    shard_for: Callable[[ShardKey], Shard],
    *,
    wait: Callable[[], None],
    note: Callable[[str], None],
    progress: Callable[[str], None],
) -> Replayed:
    """Bring the log's records back into heads.

    ``wait`` is called often and returns when memory may take more. Rows in front of a shard's last DROP record must not
    even reach a segment, because segments of the same shard may be there that were written after the DROP; so these
    records are looked for first. What stands before a shard's mark is in its files. A second thread reads, checks and
    decodes ahead. Raises OSError where a file cannot be read at all.
    """
    begins_at = _Beginnings(last_drops(wal_dir), shard_for)
    begins: dict[int, int] = {}
    total_bytes = 0
    for sequence, path in log_files(wal_dir):
        begins[sequence] = total_bytes
        total_bytes += path.stat().st_size
    rows = 0
    known = KnownNumbers()
    said_s = looked_s = time.monotonic()
    with _Ahead(_decoded(wal_dir, begins_at, known, note)) as records:
        for read in records:
            rows += _apply(read, shard_for, known, note)
            now_s = time.monotonic()
            if now_s - looked_s > _LOOK_S:
                looked_s = now_s
                wait()
            if now_s - said_s > _TELL_S:
                said_s = now_s
                done = (begins[read.position[0]] + read.position[1]) / max(total_bytes, 1)
                progress(f"replaying the log, {done:.0%} done, {rows} rows")
    held = f"; {begins_at.skipped} records were in files" if begins_at.skipped else ""
    progress(f"log replayed, {rows} rows from {total_bytes >> 20} MB{held}")
    return Replayed(max(begins, default=0), rows, begins_at.skipped)


class _Beginnings:
    """From where on records count, by shard."""

    def __init__(self, void_before: dict[int, Position], shard_for: Callable[[ShardKey], Shard]) -> None:
        self.skipped = 0
        self._void_before = void_before
        self._shard_for = shard_for
        self._marks: dict[int, Position] = {}

    def count(self, position: Position, key: ShardKey) -> bool:
        """Whether a record at this position counts. Raises OSError where the shard cannot be read."""
        if position <= self._void_before.get(key.shard_id, _BEFORE_ALL):
            return False
        mark = self._marks.get(key.shard_id)
        if mark is None:
            mark = self._marks[key.shard_id] = self._mark_of(key)
        self.skipped += position < mark
        return position >= mark

    def _mark_of(self, key: ShardKey) -> Position:
        try:
            shard = self._shard_for(key)
        except DSDBError:
            return _BEFORE_ALL
        # A damaged file makes the mark void.
        shard.load()
        return shard.log_mark() or _BEFORE_ALL


def _decoded(
    wal_dir: Path, begins_at: _Beginnings, known: KnownNumbers, note: Callable[[str], None]
) -> Iterator[_Read]:
    """The records that count."""
    for position, record in replay(wal_dir, note, lambda: renew_log_id(wal_dir)):
        if begins_at.count(position, record.key):
            yield _Read(position, record.key, _content_of(record, known))


def _content_of(record: Record, known: KnownNumbers) -> Batch | tuple[Tombstone, ...] | CorruptData:
    def keys(measurement: str, encoded: bytes | memoryview, count: int) -> Sequence[bytes]:
        if count <= _FEW_KEYS:
            return decode_keys(encoded)
        # A copy, because the file it is in must not stay in memory as long as the list waits.
        block = KeyBlock(bytes(encoded), count, record.key.shard_id, measurement, known)
        block.parse_new()
        return block

    try:
        if record.kind is not Kind.WRITE:
            return decode_tombstones(bytes(record.payload)) if record.kind is Kind.DELETE else ()
        return decode_lazily(record.payload, keys)
    except CorruptData as error:
        return error


def _apply(
    read: _Read, shard_for: Callable[[ShardKey], Shard], known: KnownNumbers, note: Callable[[str], None]
) -> int:
    """Bring one record's rows into a head; returns how many."""
    try:
        if isinstance(read.content, CorruptData):
            raise read.content
        shard = shard_for(read.key)
        shard.load()
        if isinstance(read.content, tuple):
            # Series of which nothing is left lose their numbers.
            known.clear()
            # Most are in the shard's own file: a start must not have to write it anew, the disk may be full.
            kept = shard.kept_tombstones()
            fresh = [one for one in read.content if not any(known_one.covers(one) for known_one in kept)]
            if fresh:
                shard.delete(*fresh)
            shard.settle({one.measurement for one in read.content})
            return 0
        shard.check_types(read.content)
        sequence, at = read.position
        shard.insert(read.content, sequence, time.monotonic(), at + 1)
    except DSDBError as error:
        note(f"a record of shard {read.key.shard_id} in log file {read.position[0]} is left out: {error.message}")
        return 0
    return len(read.content)


class _Ahead:
    """Runs an iterator in a thread of its own, a few records ahead; to be used in ``with`` and iterated once."""

    def __init__(self, records: Iterator[_Read]) -> None:
        self._records = records
        self._ready: queue.Queue[_Read | BaseException | None] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dsdb-replay", daemon=True)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for record in self._records:
                self._ready.put(record)
                if self._stopped.is_set():
                    return
        except BaseException as error:  # handed to the thread that waits for the records
            end = error
        self._ready.put(end)

    def __enter__(self) -> _Ahead:
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[_Read]:
        while (record := self._ready.get()) is not None:
            if isinstance(record, BaseException):
                raise record
            yield record

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            # Room for what the thread still wants to put.
            while not self._ready.empty():
                self._ready.get()
            self._thread.join(0.01)
