"""Snapshot files: every bit counts, sizes are bounded, journal and snapshot are brought together."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd import limits
from dsdbd.errors import CorruptData
from dsdbd.meta.raft import codec
from dsdbd.meta.raft.library import SERIALIZER_STATE, TCPNode
from dsdbd.meta.raft.membership import Change, encode_change, members_before, recover
from dsdbd.meta.raft.records import LogEntry
from dsdbd.meta.raft.snapshot import SnapshotHeader, SnapshotStore, decode_snapshot, encode_snapshot

HEADER = SnapshotHeader(LogEntry(b"\x00b", 12, 3), LogEntry(b"\x00a", 11, 2), ("a:1", "b:1"))


class Owner:
    def __init__(self, state: bytes = b"state") -> None:
        self.state = state
        self.wanted = True

    def dump_state(self) -> bytes:
        if self.state == b"unable":
            raise ValueError("cannot dump")
        return self.state

    def load_state(self, state: bytes) -> None:
        self.state = state

    def voters_at(self, index: int) -> tuple[str, ...]:
        return (f"voter-at-{index}:1",)

    def wants_snapshot(self, header: SnapshotHeader) -> bool:
        return self.wanted


def store_in(directory: Path, owner: Owner, chunk_bytes: int = 7) -> SnapshotStore:
    return SnapshotStore(directory / "raft.snap", owner, chunk_bytes=chunk_bytes, in_background=False)


def take(store: SnapshotStore) -> None:
    store.serialize((None, (b"\x00b", 12, 3), (b"\x00a", 11, 2), set()), 11)


@settings(deadline=None)
@given(state=st.binary(max_size=2000))
def test_what_is_written_is_read(state):
    assert decode_snapshot(encode_snapshot(HEADER, state)) == (HEADER, state)


def test_every_bit_flip_and_every_cut_is_refused():
    data = encode_snapshot(HEADER, b"some state " * 20)
    for position in range(len(data)):
        with pytest.raises(CorruptData):
            decode_snapshot(data[:position])
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        with pytest.raises(CorruptData):
            decode_snapshot(bytes(flipped))


@pytest.mark.parametrize("claimed", [limits.MAX_RAFT_SNAPSHOT_BYTES + 1, 10, -1])
def test_a_state_that_is_not_of_the_announced_size_is_refused(claimed):
    head = codec.encode((HEADER.entry, HEADER.previous, ["a:1"], claimed))
    body = head + zlib.compress(bytes(5_000_000))
    with pytest.raises(CorruptData):
        decode_snapshot(struct.pack("<8sII", b"DSDBSNAP", zlib.crc32(body, len(head)), len(head)) + body)


def test_the_configuration_is_the_one_at_the_snapshots_entry(tmp_path):
    store = store_in(tmp_path, Owner())
    take(store)
    assert store.checkSerializing() == (SERIALIZER_STATE.SUCCESS, 11)
    assert store.checkSerializing() == (SERIALIZER_STATE.NOT_SERIALIZING, None)
    header, state = store.read()
    assert header.voters == ("voter-at-12:1",)
    assert (state, store.index) == (b"state", 12)


def test_a_snapshot_travels_in_pieces_and_is_checked_on_arrival(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sender, receiver = store_in(tmp_path / "a", Owner(b"x" * 500)), store_in(tmp_path / "b", Owner(b"old"))
    take(sender)
    sender.checkSerializing()
    node = TCPNode("b:1")
    pieces = []
    while not pieces or not pieces[-1][2]:
        pieces.append(sender.getTransmissionData(node))
    assert len(pieces) > 3
    assert [receiver.setTransmissionData(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    receiver.deserialize()
    assert receiver._owner.state == b"x" * 500
    broken = [(piece[0][::-1], *piece[1:]) if number == 1 else piece for number, piece in enumerate(pieces)]
    with pytest.raises(CorruptData):
        for piece in broken:
            receiver.setTransmissionData(piece)
    assert receiver.read()[1] == b"x" * 500, "a damaged one never replaces a sound one"
    assert receiver.setTransmissionData(pieces[2]) is False, "the middle of a snapshot without its beginning"


def test_an_unwanted_snapshot_leaves_the_file(tmp_path):
    owner = Owner()
    store = store_in(tmp_path, owner)
    take(store)
    before = store.path.read_bytes()
    owner.wanted = False
    other = encode_snapshot(HEADER, b"other")
    assert store.setTransmissionData((other, True, False)) is False
    assert store.setTransmissionData((b"", False, True)) is True
    assert store.path.read_bytes() == before


def test_without_any_snapshot_there_is_nothing_to_send(tmp_path):
    assert store_in(tmp_path, Owner()).getTransmissionData(TCPNode("b:1")) is None


@pytest.mark.parametrize("broken", ["state", "directory"])
def test_a_failed_snapshot_is_not_repeated_at_once(broken, tmp_path):
    directory = tmp_path / "gone"
    directory.mkdir()
    owner = Owner(b"unable" if broken == "state" else b"state")
    store = store_in(directory, owner)
    if broken == "directory":
        directory.rmdir()
    take(store)
    states = [store.checkSerializing()[0] for _ in range(2)]
    assert states[-1] == SERIALIZER_STATE.NOT_SERIALIZING
    assert SERIALIZER_STATE.SUCCESS not in states
    directory.mkdir(exist_ok=True)
    owner.state = b"state"
    take(store)
    assert store.checkSerializing()[0] == SERIALIZER_STATE.NOT_SERIALIZING, "it waits before it tries again"


def entry(index: int, change: Change | None = None) -> LogEntry:
    return LogEntry(b"\x02" + encode_change(change) if change else b"\x00x", index, 1)


def test_recovery_takes_the_voters_of_the_whole_log_not_only_of_its_committed_part():
    entries = [entry(1), entry(2, Change("add", "b:1")), entry(3, Change("rem", "a:1"))]
    recovery = recover("a:1", ["a:1"], None, entries)
    assert recovery.members == {"b:1"}
    assert recovery.removal_index == 3
    assert members_before(recovery.members, reversed(entries[2:])) == {"a:1", "b:1"}


def test_recovery_aligns_a_journal_that_was_not_yet_truncated():
    entries = [entry(index) for index in range(1, 9)]
    recovery = recover("a:1", ["x:1"], (entries[5], entries[4], ("a:1",)), entries)
    assert (recovery.drop_entries, recovery.members) == (4, {"a:1"})


def test_recovery_refuses_a_gap_between_snapshot_and_journal():
    entries = [entry(index) for index in range(20, 25)]
    with pytest.raises(CorruptData, match="begins at entry 20"):
        recover("a:1", ["a:1"], (entry(6), entry(5), ("a:1",)), entries)
    with pytest.raises(CorruptData, match="no snapshot"):
        recover("a:1", ["a:1"], None, entries)
