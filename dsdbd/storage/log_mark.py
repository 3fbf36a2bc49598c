"""How far the log of a shard is in files already, so that a start need not replay what it would find there.

A mark is a small file in the shard's directory: the records of the shard that stand before a position of the log are in
segments or deleted. To a start it is as if those records had been removed from the log. A mark names the log it is
about, by a number that is kept beside the log's files: with another log, or with one whose records have moved, marks
mean nothing. They are never needed: without one all is replayed, and meets its equals in the segments.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import msgspec

from dsdbd import fsio
from dsdbd.decoding import decode_json
from dsdbd.storage.wal import Position

MARK_FILE = "log-mark.json"
LOG_ID_FILE = "log.id"
_FORMAT = 1
_ID_CHARS = 32


class _Mark(msgspec.Struct):
    """Content of the file."""

    format: int
    log: str
    file: int
    offset: int


class Marked(Protocol):
    """What has a mark: a shard. ``log_id``: of the log its marks are about."""

    log_id: str

    def log_mark(self) -> Position | None:
        """Its mark about that log."""


def store_mark(directory: Path, log_id: str, position: Position) -> None:
    """Replace the mark of a shard, all of whose records before ``position`` are in durable files. Raises OSError.

    Not synced: after a power cut the mark may be an older one or none, which only costs time.
    """
    path = directory / MARK_FILE
    temporary = path.with_name(path.name + fsio.TEMPORARY_SUFFIX)
    temporary.write_bytes(msgspec.json.encode(_Mark(_FORMAT, log_id, *position)))
    temporary.replace(path)


def load_mark(directory: Path, log_id: str) -> Position | None:
    """The mark of a shard, None without a whole one about this log."""
    try:
        found = decode_json((directory / MARK_FILE).read_bytes(), _Mark)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return (found.file, found.offset) if (found.format, found.log) == (_FORMAT, log_id) else None


def forget_mark(directory: Path) -> None:
    """Remove the mark, durably: rows that were in files are not any more. Raises OSError."""
    path = directory / MARK_FILE
    if path.exists():
        path.unlink()
        fsio.fsync_dir(directory)


def renew_log_id(wal_dir: Path) -> str:
    """Give the log another id, so that all marks mean nothing from now on. Raises OSError."""
    log_id = uuid.uuid4().hex
    fsio.write_atomic(wal_dir / LOG_ID_FILE, log_id.encode())
    return log_id


def open_marks(wal_dir: Path, newest: int, shards: Collection[Marked]) -> str:
    """The id of the log, which gets one where it has none; tells it the shards. Raises OSError.

    ``newest``: number of its newest file. A mark beyond that is about files that were there and are gone: their
    numbers will be given again, so that marks must not count any more.
    """
    log_id = ""
    with contextlib.suppress(FileNotFoundError):
        log_id = (wal_dir / LOG_ID_FILE).read_bytes().decode("ascii", "replace")
    if len(log_id) != _ID_CHARS:
        log_id = renew_log_id(wal_dir)
    beyond = False
    for shard in shards:
        shard.log_id = log_id
        mark = shard.log_mark()
        beyond = beyond or (mark is not None and mark[0] > newest)
    if beyond:
        log_id = renew_log_id(wal_dir)
        for shard in shards:
            shard.log_id = log_id
    return log_id
