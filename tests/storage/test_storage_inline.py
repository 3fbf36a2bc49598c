"""Reading where nothing may be waited for: what is in memory is found, all else is refused at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dsdbd.model.predicate import EVERY_SERIES
from dsdbd.model.scan import ScanRequest
from dsdbd.storage.inline import NotAtOnce, NotNow, inline, locked, must_read, must_wait, spend
from dsdbd.storage.settings import StoreSettings
from dsdbd.storage.shard import Shard
from tests.storage.storage_model import KEY, as_points, make_batch, rows_of

SECOND = 10**9


def read(shard: Shard, low: int = 0, high: int = 10 * SECOND) -> list[tuple]:
    pieces = shard.scan(ScanRequest(measurement="m", predicate=EVERY_SERIES, min_ns=low, max_ns=high, fields=("f",)))
    return [row for piece in pieces for row in rows_of(as_points(piece))]


def insert(shard: Shard, version: int, times: range) -> None:
    batch = make_batch(version, [("a", second * SECOND, {"f": float(second)}) for second in times])
    shard.check_types(batch)
    shard.insert(batch, 1, 0.0)


def test_outside_nothing_is_refused() -> None:
    spend(1 << 60)
    must_wait()
    must_read()
    with inline(10):
        spend(10)
        with pytest.raises(NotAtOnce):
            spend(1)
    spend(1)


def test_waiting_is_refused_within() -> None:
    with inline(10):
        with pytest.raises(NotAtOnce):
            must_wait()
        with pytest.raises(NotNow):
            must_read()


def test_a_lock_that_another_thread_holds_is_not_waited_for() -> None:
    lock, held, done = threading.RLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        with inline(1), pytest.raises(NotNow), locked(lock):
            pass
    finally:
        done.set()
        thread.join()
    with inline(1), locked(lock):
        pass


def test_rows_that_are_not_sorted_yet_are_left_to_others(tmp_path: Path) -> None:
    shard = Shard(KEY, tmp_path / "shard", StoreSettings(), pytest.fail)
    insert(shard, 1, range(5))
    with inline(1_000), pytest.raises(NotAtOnce):
        read(shard)
    expected = read(shard)
    with inline(1_000):
        assert read(shard) == expected
    assert len(expected) == 5


def test_new_rows_of_other_times_change_nothing(tmp_path: Path) -> None:
    shard = Shard(KEY, tmp_path / "shard", StoreSettings(), pytest.fail)
    insert(shard, 1, range(5))
    shard.flush()
    expected = read(shard)
    insert(shard, 2, range(100, 105))
    with inline(1_000):
        assert read(shard) == expected
        with pytest.raises(NotAtOnce):
            read(shard, high=102 * SECOND)
    assert len(read(shard, high=102 * SECOND)) == 8


def test_files_are_read_by_others(tmp_path: Path) -> None:
    shard = Shard(KEY, tmp_path / "shard", StoreSettings(), pytest.fail)
    insert(shard, 1, range(5))
    shard.flush()
    with inline(1_000), pytest.raises(NotAtOnce):
        read(shard)
    shard.prepare(lambda: False)
    with inline(1_000), pytest.raises(NotNow):
        read(shard)
    expected = read(shard)
    with inline(1_000):
        assert read(shard) == expected
    with inline(5), pytest.raises(NotAtOnce):
        read(shard)


def test_a_glance_tells_what_is_there_without_waiting(tmp_path: Path) -> None:
    shard = Shard(KEY, tmp_path / "shard", StoreSettings(), pytest.fail)
    assert shard.glance("m") is None, "it is not open"
    insert(shard, 1, range(5))
    shard.load()
    seen = shard.glance("m")
    assert seen is not None
    assert dict(seen.types) == shard.field_types("m")
    assert seen.tags == shard.tag_keys("m")
    assert seen.extent == shard.extent("m")
    other = shard.glance("other")
    assert other is not None
    assert (dict(other.types), other.tags, other.extent) == ({}, frozenset(), None)
