"""Bytes of the write-ahead log: headers, records, and what can be saved from a damaged file. Pure.

File: 16 bytes of header (magic, format, sequence number), then records. Record: u32 length of the body, u32 CRC-32 of
length and body, body. All integers little endian. A body starts with a four-byte marker, so that reading can go on
behind a damaged record. docs/format/wal.md describes it for readers of the files.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dsdbd import limits
from dsdbd.errors import CorruptData
from dsdbd.storage.settings import ShardKey

_HEADER = struct.Struct("<7sBQ")
_MAGIC = b"DSDBWAL"
_FORMAT = 1
HEADER_BYTES = _HEADER.size

_FRAME = struct.Struct("<II")
_MARKER = b"\xd5rec"
_BODY = struct.Struct("<4sBQHH")
_HOP = struct.Struct("<II4sBQ")
"""A record up to its shard id."""


class Kind(enum.IntEnum):
    """What a record says."""

    WRITE = 1
    """The payload is an encoded batch of the shard."""
    DROP = 2
    """Records of the shard before this one count no more."""
    DELETE = 3
    """The payload is deletions, as a shard's file of tombstones has them."""


class Record(NamedTuple):
    """One record; ``payload`` is empty for DROP. What was read is a view of the bytes it was read from."""

    kind: Kind
    key: ShardKey
    payload: bytes | memoryview


@dataclass(slots=True)
class Damage:
    """What was found wrong in a file.

    ``torn_at``: offset of an unfinished record at the end, the ordinary trace of a crash.
    ``corrupt_at``: offsets of damaged bytes in front of good ones, or of a damaged header.
    ``good``: where good records are: begins and ends of stretches without a gap.
    """

    torn_at: int | None = None
    corrupt_at: tuple[int, ...] = ()
    good: list[tuple[int, int]] = field(default_factory=list, compare=False)

    def add_good(self, start: int, end: int) -> None:
        """Take note of a good record behind the others."""
        if self.good and self.good[-1][1] == start:
            self.good[-1] = (self.good[-1][0], end)
        else:
            self.good.append((start, end))


def encode_header(sequence: int) -> bytes:
    """Header of the log file with this number."""
    return _HEADER.pack(_MAGIC, _FORMAT, sequence)


def encode_record(record: Record) -> list[bytes | memoryview]:
    """The record as pieces to be written one after another; the payload is not copied."""
    database = record.key.database.encode()
    policy = record.key.policy.encode()
    head = _BODY.pack(_MARKER, record.kind, record.key.shard_id, len(database), len(policy)) + database + policy
    length = len(head) + len(record.payload)
    check = zlib.crc32(record.payload, zlib.crc32(head, zlib.crc32(length.to_bytes(4, "little"))))
    return [_FRAME.pack(length, check) + head, record.payload]


def read_records(data: memoryview, damage: Damage, *, last_file: bool) -> Iterator[tuple[int, Record]]:
    """Offset and record of all that pass their check; ``damage`` is filled in by the time the iteration ends.

    In the newest file a bad record that reaches the end of the file is a torn write. In older files, which were closed
    in order, only a record cut off by the end of the file is.
    """
    at = 0
    corrupt: list[int] = []
    header_good = len(data) >= HEADER_BYTES and data[:8] == _MAGIC + bytes([_FORMAT])
    if header_good:
        at = HEADER_BYTES
    elif len(data) <= HEADER_BYTES or not any(data[:HEADER_BYTES]):
        # A crash between creation and the first fsync.
        damage.torn_at = 0
        return
    while at < len(data):
        record, end = _read_one(data, at) if at or header_good else (None, None)
        if record is not None and end is not None:
            damage.add_good(at, end)
            yield at, record
            at = end
            continue
        following = _next_good(data, at + 1)
        if following is not None:
            corrupt.append(at)
            at = following
            continue
        cut_off = end is None or end > len(data)
        all_zero = not data[at:].tobytes().strip(b"\0")
        if at and (cut_off or all_zero or last_file):
            damage.torn_at = at
        else:
            corrupt.append(at)
        break
    damage.corrupt_at = tuple(corrupt)


def _read_one(data: memoryview, at: int) -> tuple[Record | None, int | None]:
    """The record at an offset, or None; and the offset its length points to, None where there is no length."""
    body_at = at + _FRAME.size
    if body_at > len(data):
        return None, None
    length, check = _FRAME.unpack_from(data, at)
    end = body_at + length
    if end > len(data) or not _BODY.size <= length <= limits.MAX_INTERNAL_BODY_BYTES:
        return None, end
    body = data[body_at:end]
    if zlib.crc32(body, zlib.crc32(data[at : at + 4])) != check:
        return None, end
    try:
        return decode_body(body), end
    except (CorruptData, UnicodeDecodeError, struct.error):
        return None, end


def decode_body(body: memoryview) -> Record:
    """The record of a body whose checksum is right; raises CorruptData for one this version does not know."""
    marker, kind, shard_id, database_bytes, policy_bytes = _BODY.unpack_from(body, 0)
    payload_at = _BODY.size + database_bytes + policy_bytes
    if marker != _MARKER or kind not in tuple(Kind) or payload_at > len(body):
        raise CorruptData(f"log record of kind {kind} is unknown to this version")
    database = bytes(body[_BODY.size : _BODY.size + database_bytes]).decode()
    policy = bytes(body[_BODY.size + database_bytes : payload_at]).decode()
    return Record(Kind(kind), ShardKey(database, policy, shard_id), body[payload_at:])


def find_drops(data: memoryview) -> list[tuple[int, int]] | None:
    """Offset and shard id of every DROP record, found by the lengths of the records; payloads are not looked at.

    None where the lengths do not lead from the header to the end exactly: then only ``read_records`` can tell.
    """
    if len(data) < HEADER_BYTES or data[:8] != _MAGIC + bytes([_FORMAT]):
        return None
    found: list[tuple[int, int]] = []
    at = HEADER_BYTES
    while at < len(data):
        if at + _HOP.size > len(data):
            return None
        length, _, marker, kind, shard_id = _HOP.unpack_from(data, at)
        if marker != _MARKER:
            return None
        if kind == Kind.DROP and _read_one(data, at)[0] is not None:
            found.append((at, shard_id))
        at += _FRAME.size + length
    return found if at == len(data) else None


def _next_good(data: memoryview, start: int) -> int | None:
    """Offset of the next record that passes its check."""
    haystack = data.obj if isinstance(data.obj, bytes) and len(data.obj) == len(data) else bytes(data)
    marker_at = haystack.find(_MARKER, start + _FRAME.size)
    while marker_at >= 0:
        candidate = marker_at - _FRAME.size
        record, _ = _read_one(data, candidate)
        if record is not None:
            return candidate
        marker_at = haystack.find(_MARKER, marker_at + 1)
    return None
