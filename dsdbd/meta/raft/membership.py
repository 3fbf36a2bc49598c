"""Who votes: membership entries of the log, and the configuration that log and snapshot add up to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from dsdbd.errors import CorruptData
from dsdbd.meta.raft import codec
from dsdbd.meta.raft.records import LogEntry

MEMBERSHIP_BYTE: Final = 2
MAX_ADDRESS_BYTES: Final = 300


class Change(NamedTuple):
    """One voter added or removed; it takes effect where it is appended, committed or not."""

    operation: Literal["add", "rem"]
    address: str


def encode_change(change: Change) -> bytes:
    """Return the library's membership command without its type byte."""
    return codec.encode((change.operation, change.address))


def parse_change(command: bytes) -> Change | None:
    """Return the change a log command carries, None for other commands; raises ValueError when it is malformed."""
    if command[0] != MEMBERSHIP_BYTE:
        return None
    value = codec.decode(command[1:])
    if not isinstance(value, list) or len(value) < 2 or value[0] not in ("add", "rem"):
        raise ValueError("malformed membership entry")
    check_address(value[1])
    return Change(value[0], value[1])


def check_address(address: object) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``; raises ValueError naming what is wrong."""
    if not isinstance(address, str) or not 0 < len(address.encode()) <= MAX_ADDRESS_BYTES or not address.isprintable():
        raise ValueError("a Raft address must be a short printable host:port")
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"the Raft address {address!r} is not host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port)


def members_at(base: Iterable[str], entries: Iterable[LogEntry]) -> set[str]:
    """Return the voters after ``entries`` (oldest first) on top of the voters ``base``."""
    members = set(base)
    for entry in entries:
        change = parse_change(entry.command)
        if change is not None:
            (members.add if change.operation == "add" else members.discard)(change.address)
    return members


def members_before(members: Iterable[str], newest_first: Iterable[LogEntry]) -> set[str]:
    """Return the voters as they were before the given entries (newest first) took effect."""
    result = set(members)
    for entry in newest_first:
        change = parse_change(entry.command)
        if change is not None:
            (result.discard if change.operation == "add" else result.add)(change.address)
    return result


@dataclass(frozen=True)
class Recovery:
    """What a node starts with."""

    members: frozenset[str]
    drop_entries: int
    """Entries at the head of the journal that the snapshot already holds."""
    removal_index: int | None
    """Index of the entry that removed this node, when that is the last word about it."""


def recover(
    self_address: str,
    base: Iterable[str],
    snapshot: tuple[LogEntry, LogEntry, tuple[str, ...]] | None,
    entries: list[LogEntry],
) -> Recovery:
    """Bring snapshot (its entry, the one before, its voters) and journal together.

    The configuration is that of the snapshot plus every membership entry of the journal, committed or not, as Raft
    has it. Raises CorruptData when entries between snapshot and journal are missing.
    """
    members, applied, drop = set(base), 0, 0
    if snapshot is not None:
        entry, previous, voters = snapshot
        members, applied = set(voters), entry.log_index
        if entries and entries[0].log_index > previous.log_index:
            raise CorruptData(
                f"the Raft journal begins at entry {entries[0].log_index}, the snapshot ends at {entry.log_index}"
            )
        position = previous.log_index - entries[0].log_index if entries else -1
        if 0 < position < len(entries) - 1 and entries[position : position + 2] == [previous, entry]:
            # A crash between the snapshot's rename and the journal's truncation.
            drop = position
    elif entries and entries[0].log_index != 1:
        raise CorruptData(f"the Raft journal begins at entry {entries[0].log_index} and there is no snapshot")
    removal_index = None
    newer = [entry for entry in entries if entry.log_index > applied]
    for entry in newer:
        change = parse_change(entry.command)
        if change is not None and change.address == self_address:
            removal_index = entry.log_index if change.operation == "rem" else None
    return Recovery(frozenset(members_at(members, newer)), drop, removal_index)
