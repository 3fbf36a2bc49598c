"""The journal against torn tails, lost pages, bit flips, full disks and crashes during compaction."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsdbd import fsio
from dsdbd.errors import CorruptData
from dsdbd.meta.raft import records
from dsdbd.meta.raft.journal import Journal
from dsdbd.meta.raft.records import FILE_HEADER_BYTES, LogEntry, RecordType
from tests.examples import examples

MEMBERS = ("a:1", "b:1")
relaxed = settings(
    deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def open_journal(path: Path) -> Journal:
    return Journal(path, first_members=MEMBERS)


def state_of(journal: Journal) -> tuple:
    return journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId(), journal.base_members


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("truncate"), st.integers(0, 5)),
        st.tuples(st.just("vote"), st.sampled_from([None, "a:1", "b:1"])),
        st.tuples(st.just("commit"), st.integers(1, 50)),
        st.tuples(st.just("sync"), st.none()),
        st.tuples(st.just("compact"), st.integers(0, 6)),
    ),
    max_size=30,
)


def perform(journal: Journal, operation: str, argument: object) -> None:
    match operation:
        case "add":
            last = journal.last.log_index if len(journal) else 0
            journal.add(argument, last + 1, journal.getCurrentTerm())
        case "truncate":
            journal.deleteEntriesFrom(max(1, len(journal) - argument))
        case "vote":
            journal.setCurrentTerm(journal.getCurrentTerm() + 1, argument)
        case "commit":
            journal.setRaftCommitIndex(argument)
            journal.onOneSecondTimer()
        case "sync":
            journal.sync()
        case "compact":
            journal.deleteEntriesTo(argument)


@relaxed
@given(operations=operations)
def test_reopening_gives_back_everything(operations, tmp_path):
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    journal = open_journal(path)
    journal.add(b"\x01", 1, 0)
    for operation, argument in operations:
        perform(journal, operation, argument)
    before = state_of(journal)
    journal.close()
    again = open_journal(path)
    assert state_of(again) == before
    again.close()


@relaxed
@given(operations=operations, data=st.data())
def test_a_torn_tail_of_any_length_keeps_what_was_synced(operations, data, tmp_path):
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    journal = open_journal(path)
    journal.add(b"\x01", 1, 0)
    journal.sync()
    history = {journal.size_bytes: state_of(journal)}
    for operation, argument in operations:
        compactions = journal.compactions
        perform(journal, operation, argument)
        if journal.compactions != compactions:
            history.clear()
        history[journal.size_bytes] = state_of(journal)
    synced, size = journal.synced_bytes, journal.size_bytes
    journal.abandon()
    cut = data.draw(st.integers(synced, size), label="cut")
    os.truncate(path, cut)
    again = open_journal(path)
    assert state_of(again) == history[max(length for length in history if length <= cut)]
    assert path.stat().st_size == max(length for length in history if length <= cut)
    again.add(b"next", again.last.log_index + 1, 9)
    again.close()
    third = open_journal(path)
    assert third.last.command == b"next"
    third.close()


def filled(path: Path, count: int = 12) -> list[int]:
    """A journal of synced entries; returns the file size after each."""
    journal = open_journal(path)
    ends = []
    for index in range(1, count + 1):
        journal.add(b"\x00" + bytes([index]) * 30, index, 1)
        journal.sync()
        ends.append(journal.size_bytes)
    journal.close()
    return ends


def test_every_bit_flip_before_the_last_record_is_refused(tmp_path):
    path, copy = tmp_path / "journal", tmp_path / "copy"
    ends = filled(path)
    data = path.read_bytes()
    for position in range(ends[-2]):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        copy.write_bytes(flipped)
        with pytest.raises(CorruptData, match="copy"):
            open_journal(copy)


def test_pages_lost_out_of_order_before_a_sync_are_a_torn_tail(tmp_path):
    path = tmp_path / "journal"
    journal = open_journal(path)
    journal.add(b"\x01", 1, 0)
    journal.sync()
    synced = journal.size_bytes
    for index in range(2, 8):
        journal.add(b"\x00" + b"x" * 50, index, 1)
    journal.abandon()
    with path.open("r+b") as file:
        file.seek(synced + 5)
        file.write(bytes(20))  # an early page never reached the disk, the later ones did
    again = open_journal(path)
    assert [entry.log_index for entry in again[:]] == [1]
    again.close()


def test_a_record_inside_a_command_does_not_pass_for_a_witness(tmp_path):
    path = tmp_path / "journal"
    journal = open_journal(path)
    journal.add(b"\x01", 1, 0)
    journal.sync()
    start = journal.size_bytes
    inner = records.encode_record(RecordType.ENTRY, b"x" * 20, offset=start, synced=start * 2, salt=0)
    journal.add(b"\x00" + inner * 3, 2, 1)
    end = journal.size_bytes
    journal.abandon()
    os.truncate(path, end - 1)
    again = open_journal(path)
    assert len(again) == 1
    again.close()


def test_a_crash_at_any_point_of_a_compaction_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    filled(path)
    for fault in ("write", "rename"):
        journal = open_journal(path)
        before = journal[:]

        def fail(target, *_args, **_options):
            Path(str(target) + ".tmp").write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            if fault == "write":
                patch.setattr(fsio, "write_atomic", fail)
            else:
                patch.setattr(Path, "rename", fail)
            with pytest.raises(OSError, match="No space"):
                journal.deleteEntriesTo(5)
        assert journal[:] == before
        journal.add(b"\x00more", before[-1].log_index + 1, 1)
        journal.close()
        again = open_journal(path)
        assert again[:-1] == before
        again.deleteEntriesFrom(len(before))
        again.close()


def test_compaction_keeps_term_vote_members_and_the_last_two_entries(tmp_path):
    path = tmp_path / "journal"
    filled(path)
    journal = open_journal(path)
    journal.setCurrentTerm(7, "b:1")
    journal.deleteEntriesTo(500)
    assert len(journal) == 12
    journal.deleteEntriesTo(10)
    assert [entry.log_index for entry in journal[:]] == [11, 12]
    journal.close()
    again = open_journal(path)
    assert (again.getCurrentTerm(), again.getVotedForNodeId(), again.base_members) == (7, "b:1", MEMBERS)
    assert [entry.log_index for entry in again[:]] == [11, 12]
    again.close()


def test_after_a_failed_sync_nothing_is_promised_any_more(tmp_path):
    calls = []

    def broken(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    journal = Journal(tmp_path / "journal", first_members=MEMBERS, sync_file=broken)
    journal.add(b"\x01", 1, 0)
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output"):
            journal.sync()
    assert len(calls) == 1, "a second fsync would report success for pages the kernel has dropped"
    journal.close()


def test_a_vote_that_is_not_durable_does_not_count(tmp_path):
    failing = False

    def sync(descriptor: int) -> None:
        if failing:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(descriptor)

    journal = Journal(tmp_path / "journal", first_members=MEMBERS, sync_file=sync)
    journal.add(b"\x01", 1, 0)
    journal.setCurrentTerm(1, "a:1")
    failing = True
    with pytest.raises(OSError, match="Input/output"):
        journal.setCurrentTerm(2, "b:1")
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (1, "a:1")
    journal.close()


def test_a_full_disk_leaves_no_half_record(tmp_path):
    small = Path("/dev/full")
    if not small.exists():
        pytest.skip("needs /dev/full")
    path = tmp_path / "journal"
    filled(path, 3)
    journal = open_journal(path)
    real = journal._descriptor
    journal._descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError):
        journal.add(b"\x00lost", 4, 1)
    os.close(journal._descriptor)
    journal._descriptor = real
    journal.add(b"\x00kept", 4, 1)
    journal.close()
    again = open_journal(path)
    assert again.last == LogEntry(b"\x00kept", 4, 1)
    again.close()


@pytest.mark.parametrize("junk", [b"", b"DSDBRAFT", b"\0" * 4096, os.urandom(300), b"DSDBRAFT" + os.urandom(400)])
def test_a_file_that_is_no_journal_is_refused(junk, tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(junk)
    with pytest.raises(CorruptData):
        open_journal(path)


def test_a_gap_in_the_log_is_refused(tmp_path):
    path = tmp_path / "journal"
    journal = open_journal(path)
    journal.add(b"\x01", 1, 0)
    journal.add(b"\x01", 3, 0)
    journal.close()
    with pytest.raises(CorruptData, match="entry 3 follows entry 1"):
        open_journal(path)


def test_the_file_header_is_where_the_format_says(tmp_path):
    path = tmp_path / "journal"
    filled(path, 1)
    data = path.read_bytes()
    assert data[:8] == b"DSDBRAFT"
    salt = int.from_bytes(data[8:12], "little")
    record = records.parse_record(data, FILE_HEADER_BYTES, salt)
    assert record is not None
    assert record.kind is RecordType.MEMBERS
    shutil.copy(path, tmp_path / "copy")
