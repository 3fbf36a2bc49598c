"""The Raft journal as bytes: checked records, and what a crash may have left of them. Pure.

::

    file   = "DSDBRAFT" | u32 salt | record …
    record = u32 payload size | u32 CRC-32 | u64 synced | u8 type | payload        (little endian)

The CRC is seeded with the salt and covers the record's own offset, ``synced``, type and payload: a record that was
moved, or that merely stands inside another record's payload, never passes for one.

``synced`` is the size of the file that was known to be on stable storage when the record was written. It tells a torn
tail from corruption: pages that were never synced may reach the disk in any order, so an unreadable record with
readable ones behind it is an ordinary power cut as long as none of those says that the place had been synced.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from dsdbd import limits
from dsdbd.errors import CorruptData
from dsdbd.meta.raft import codec

MAGIC: Final = b"DSDBRAFT"
_FILE_HEADER: Final = struct.Struct("<8sI")
_HEADER: Final = struct.Struct("<IIQB")
_CHECKED: Final = struct.Struct("<QQB")
_ENTRY: Final = struct.Struct("<QQ")
_U64: Final = struct.Struct("<Q")

FILE_HEADER_BYTES: Final = _FILE_HEADER.size
MAX_PAYLOAD_BYTES: Final = limits.MAX_COMMAND_BYTES + (64 << 10)
"""A longer payload is no record: commands are bounded, and member lists and votes are far smaller."""


class RecordType(IntEnum):
    """What a record says."""

    ENTRY = 1
    """u64 index, u64 term, command: appended to the log."""
    TRUNCATE = 2
    """u64 count: the log keeps so many of its first entries."""
    VOTE = 3
    """MessagePack (term, candidate or None)."""
    COMMIT = 4
    """u64 commit index: a hint, written without a sync of its own."""
    CLEAR = 5
    """The log is emptied, because a snapshot takes its place."""
    MEMBERS = 6
    """MessagePack list of the voters this node was started with; the base of the first log entries."""


_TYPES: Final = frozenset(RecordType)


class LogEntry(NamedTuple):
    """A log entry in the order the library wants it."""

    command: bytes
    log_index: int
    term: int


class Record(NamedTuple):
    """One record and where it ends."""

    kind: RecordType
    payload: bytes
    synced: int
    end: int


def file_header(salt: int) -> bytes:
    """Return the first bytes of a journal; ``salt`` is a random u32 made with the file."""
    return _FILE_HEADER.pack(MAGIC, salt)


def encode_record(kind: RecordType, payload: bytes, *, offset: int, synced: int, salt: int) -> bytes:
    """Return the record that stands at byte ``offset`` of the file, written when ``synced`` bytes were durable."""
    crc = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(offset, synced, kind), salt))
    return _HEADER.pack(len(payload), crc, synced, kind) + payload


def parse_record(data: bytes, offset: int, salt: int) -> Record | None:
    """Return the record at ``offset``, or None when there is no whole, unharmed record."""
    if offset + _HEADER.size > len(data):
        return None
    size, crc, synced, kind = _HEADER.unpack_from(data, offset)
    end = offset + _HEADER.size + size
    if kind not in _TYPES or size > MAX_PAYLOAD_BYTES or end > len(data):
        return None
    payload = data[offset + _HEADER.size : end]
    if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(offset, synced, kind), salt)) != crc:
        return None
    return Record(RecordType(kind), payload, synced, end)


@dataclass
class Replay:
    """What a journal's records add up to."""

    salt: int = 0
    entries: list[LogEntry] = field(default_factory=list)
    term: int = 0
    vote: str | None = None
    commit_index: int = 1
    members: tuple[str, ...] = ()
    valid_bytes: int = 0
    """The file is cut to this size: what follows is a torn tail."""

    def take(self, record: Record) -> None:
        """Add one record; raises CorruptData when it cannot follow the ones before it."""
        payload = record.payload
        match record.kind:
            case RecordType.ENTRY:
                index, term = _ENTRY.unpack_from(payload)
                if self.entries and index != self.entries[-1].log_index + 1:
                    raise CorruptData(f"entry {index} follows entry {self.entries[-1].log_index}")
                self.entries.append(LogEntry(payload[_ENTRY.size :], index, term))
            case RecordType.TRUNCATE:
                del self.entries[_U64.unpack(payload)[0] :]
            case RecordType.VOTE:
                self.term, self.vote = codec.decode(payload)
            case RecordType.COMMIT:
                self.commit_index = _U64.unpack(payload)[0]
            case RecordType.CLEAR:
                self.entries.clear()
            case RecordType.MEMBERS:
                self.members = tuple(codec.decode(payload))


def replay(data: bytes) -> Replay:
    """Read a whole journal file.

    Raises CorruptData when the file is not a journal or a record is unreadable although it had been synced.
    """
    if len(data) < FILE_HEADER_BYTES or data[: len(MAGIC)] != MAGIC:
        raise CorruptData("it does not begin like a Raft journal")
    _, salt = _FILE_HEADER.unpack_from(data)
    state = Replay(salt=salt, valid_bytes=FILE_HEADER_BYTES)
    while (record := parse_record(data, state.valid_bytes, salt)) is not None:
        state.take(record)
        state.valid_bytes = record.end
    witness = _witness_of_corruption(data, state.valid_bytes, salt)
    if witness is not None:
        raise CorruptData(f"the record at byte {state.valid_bytes} is damaged (a sound one follows at byte {witness})")
    if not state.members:
        raise CorruptData("it does not say which voters it started with")
    return state


def _witness_of_corruption(data: bytes, damaged: int, salt: int) -> int | None:
    """Offset of a sound record written after the damaged place was synced, or None if the damage is a torn tail."""
    offset = damaged + 1
    while offset + _HEADER.size <= len(data):
        record = parse_record(data, offset, salt) if data[offset + 16] in _TYPES else None
        if record is None:
            offset += 1
        elif record.synced > damaged:
            return offset
        else:
            offset = record.end
    return None


def entry_payload(entry: LogEntry) -> bytes:
    """Payload of an ENTRY record."""
    return _ENTRY.pack(entry.log_index, entry.term) + entry.command


def count_payload(value: int) -> bytes:
    """Payload of a TRUNCATE or COMMIT record."""
    return _U64.pack(value)


def vote_payload(term: int, vote: str | None) -> bytes:
    """Payload of a VOTE record."""
    return codec.encode((term, vote))


def members_payload(members: Sequence[str]) -> bytes:
    """Payload of a MEMBERS record."""
    return codec.encode(list(members))


def encode_journal(state: Replay) -> list[bytes]:
    """Return a whole journal file that replays to ``state``; its records count as not yet synced."""
    chunks = [file_header(state.salt)]
    offset = FILE_HEADER_BYTES
    records = [
        (RecordType.MEMBERS, members_payload(state.members)),
        (RecordType.VOTE, vote_payload(state.term, state.vote)),
        (RecordType.COMMIT, count_payload(state.commit_index)),
    ]
    records += [(RecordType.ENTRY, entry_payload(entry)) for entry in state.entries]
    for kind, payload in records:
        chunks.append(encode_record(kind, payload, offset=offset, synced=0, salt=state.salt))
        offset += len(chunks[-1])
    return chunks
