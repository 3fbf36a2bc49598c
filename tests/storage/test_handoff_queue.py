"""Writes kept for an owner that is away: in order, durable, bounded, and never lost without a word."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.storage import HandoffQueue, QueueFull, Record, RecordKind, ShardKey
from tests.examples import examples

KEYS = (ShardKey("db", "autogen", 1), ShardKey("db", "other", 2))


def record(number: int, size: int = 50) -> Record:
    return Record(RecordKind.WRITE, KEYS[number % 2], b"%010d" % number + bytes(size))


def number_of(kept: Record) -> int:
    return int(bytes(kept.payload[:10]))


def open_queue(directory: Path, size: int = 1 << 20) -> HandoffQueue:
    return HandoffQueue(directory, max_size_bytes=size, segment_bytes=500)


def drain(queue: HandoffQueue, at_most: int = 10**6) -> list[int]:
    found: list[int] = []
    while len(found) < at_most and (records := queue.next(1)):
        (position, kept) = records[0]
        found.append(number_of(kept))
        queue.delivered(position)
    queue.save()
    return found


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 9)),
        st.tuples(st.just("deliver"), st.integers(1, 9)),
        st.just(("reopen", 0)),
        st.just(("crash", 0)),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=examples(100))
@given(steps)
def test_everything_is_delivered_in_order_over_restarts(tmp_path_factory: pytest.TempPathFactory, todo: list) -> None:
    directory = tmp_path_factory.mktemp("queue")
    queue = open_queue(directory)
    waiting: list[int] = []
    number = 0
    for step, count in todo:
        if step == "append":
            queue.append([record(number + n) for n in range(count)])
            waiting += range(number, number + count)
            number += count
        elif step == "deliver":
            assert drain(queue, count) == waiting[:count]
            del waiting[:count]
        elif step == "reopen":
            queue.close()
            queue = open_queue(directory)
        else:
            # The descriptor of the killed process is closed by the kernel; the cursor is on disk since the last save.
            queue._log.close()
            queue = open_queue(directory)
        assert queue.empty == (queue.size_bytes == 0)
    assert drain(queue) == waiting
    assert queue.empty and not list(directory.glob("*.wal")) and queue.lost == set()
    queue.close()


def test_a_full_queue_refuses_and_notes_the_shard_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, 2_000)
    for number in range(8):
        queue.append([record(number)])
    with pytest.raises(QueueFull, match="2000 bytes"):
        queue.append([record(9, 1_500)])
    assert queue.lost == {KEYS[1]} and queue.size_bytes <= 2_000
    assert drain(queue) == list(range(8))
    queue.append([record(10, 1_500)])
    assert drain(queue) == [10]
    queue.close()


def test_what_a_crash_tore_off_is_left_out_and_a_damaged_record_is_passed_over(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    for number in range(10):
        queue.append([record(number)])
    queue.close()
    first, *_, last = sorted(tmp_path.glob("*.wal"))
    os.truncate(last, last.stat().st_size - 3)
    with first.open("r+b") as file:
        file.seek(60)
        file.write(b"\xff")
    queue = open_queue(tmp_path)
    found = drain(queue)
    assert found == [1, 2, 3, *range(4, 9)] or found == list(range(1, 9))
    assert queue.lost, "the damaged file's shards need repair"
    assert [path.name for path in (tmp_path / "corrupt").iterdir()] == [first.name]
    queue.close()


def test_what_is_too_old_is_given_up_by_name(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    queue.append([record(0), record(1)])
    queue.close()
    (old,) = tmp_path.glob("*.wal")
    os.utime(old, (0, time.time() - 100))
    queue = open_queue(tmp_path)
    queue.append([record(2)])
    assert queue.oldest_s() > 90
    assert (queue.purge(200), queue.purge(50)) == (0, 1)
    assert queue.lost == set(KEYS) and drain(queue) == [2]
    queue.close()


def test_the_age_is_that_of_the_first_record_that_waits(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    assert queue.oldest_s() == 0
    queue.append([record(0)])
    (path,) = tmp_path.glob("*.wal")
    os.utime(path, (0, time.time() + 100))  # as if more were added
    assert queue.oldest_s() > 0
    queue.close()
    os.utime(path, (0, time.time() - 100))
    queue = open_queue(tmp_path)
    queue.append([record(1)])
    assert queue.oldest_s() > 90
    (position, _), *_ = queue.next(1)
    queue.delivered(position)
    queue.save()
    assert not queue.empty and 0 < queue.oldest_s() < 90
    assert drain(queue) == [1] and queue.oldest_s() == 0
    queue.close()


def test_a_file_that_cannot_be_read_is_given_up_with_the_others(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    for number in range(10):
        queue.append([record(number)])
    first, *rest = sorted(tmp_path.glob("*.wal"))
    first.unlink()
    first.symlink_to("/proc/self/mem")  # its first bytes are never there: EIO
    with pytest.raises(OSError, match="Input/output error"):
        queue.next(1)
    assert queue.purge(-1) == len(rest) + 1
    assert queue.empty and len(queue.unreadable) == 1 and queue.lost == set(KEYS)
    queue.append([record(10)])
    assert drain(queue) == [10]
    queue.close()


@pytest.mark.parametrize(("age_s", "files"), [(3_600.0, 1), (0.0, 3)])
def test_a_file_takes_records_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float, files: int
) -> None:
    monkeypatch.setattr("dsdbd.storage.handoff_queue.FILE_AGE_S", age_s)
    queue = HandoffQueue(tmp_path, max_size_bytes=1 << 20)
    for number in range(3):
        queue.append([record(number)])
    assert len(list(tmp_path.glob("*.wal"))) == files
    assert drain(queue) == [0, 1, 2]
    queue.close()


def test_refused_records_are_put_aside_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdbd.storage.handoff_queue.MAX_ASIDE_BYTES", 250)
    queue = open_queue(tmp_path)
    for number in range(5):
        queue.put_aside(record(number))
    assert queue.aside == 5 and queue.lost == set(KEYS)
    assert (tmp_path / "aside.wal").stat().st_size <= 250
    assert queue.empty and drain(queue) == []
    queue.close()


def test_damaged_files_are_kept_within_bounds_of_size_and_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdbd.storage.handoff_queue.MAX_HANDOFF_CORRUPT_BYTES", 1_000)
    queue, corrupt = open_queue(tmp_path), tmp_path / "corrupt"

    def bytes_aside() -> int:
        return sum(path.stat().st_size for path in corrupt.iterdir())

    for number in range(10):
        queue.append([record(number, 300)])
        assert not queue.empty
        newest = max(tmp_path.glob("0*.wal")).name
        queue.set_aside_oldest()
        assert (corrupt / newest).exists(), "the newest is kept"
        assert 0 < bytes_aside() <= 1_000
        assert queue.aside_bytes == bytes_aside()
    assert len(list(corrupt.iterdir())) == 2
    queue.put_aside(record(1))
    kept_bytes = bytes_aside() + (tmp_path / "aside.wal").stat().st_size
    assert queue.aside_bytes == kept_bytes
    queue.close()
    again = open_queue(tmp_path)
    assert again.aside_bytes == kept_bytes, "it is known after a start as well"
    again.purge(3_600.0)
    assert again.aside_bytes == kept_bytes
    for path in (*corrupt.iterdir(), tmp_path / "aside.wal"):
        os.utime(path, (time.time() - 7_200, time.time() - 7_200))
    again.purge(3_600.0)
    assert again.aside_bytes == 0 and not list(corrupt.iterdir()) and not (tmp_path / "aside.wal").exists()
    again.close()


def test_a_file_with_a_damaged_record_leaves_one_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsdbd.storage.handoff_queue.MAX_HANDOFF_CORRUPT_BYTES", 1_000)
    queue = open_queue(tmp_path)
    for round_number in range(6):
        for number in range(3):
            queue.append([record(number, 100)])
        path = min(tmp_path.glob("0*.wal"))
        data = bytearray(path.read_bytes())
        data[len(data) // 4] ^= 0xFF
        path.write_bytes(data)
        queue.close()
        queue = open_queue(tmp_path)
        assert len(drain(queue)) < 3, round_number
        assert 0 < queue.aside_bytes <= 1_000
        assert sum(one.stat().st_size for one in (tmp_path / "corrupt").iterdir()) == queue.aside_bytes
    queue.close()
