"""What the store does when the operating system refuses: failed syncs, full disks under the segments."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from dsdbd import fsio
from dsdbd.errors import DiskFull, OutcomeUnknown, ShardUnavailable, StorageCorrupt
from dsdbd.model.columns import Batch
from dsdbd.model.predicate import TagEquals
from dsdbd.storage import Store, StoreSettings
from dsdbd.storage.tombstones import Tombstone
from tests.storage.storage_model import (
    KEY,
    MAX_NS,
    MIN_NS,
    eventually,
    make_batch,
    make_points,
    open_store,
    put,
    scan,
)


def failing(code: int):
    def call(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


def test_a_failed_sync_stops_writes_for_good_and_reads_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fatal: list[BaseException] = []
    store = Store(data_dir=tmp_path / "data", wal_dir=tmp_path / "wal", on_fatal=fatal.append)
    store.open(lambda text: None)
    put(store, 1, [("a", 1, {"i": 1})])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(OutcomeUnknown, match="may be stored"):
            put(store, 2, [("a", 2, {"i": 2})])
    eventually(lambda: len(fatal) == 1)
    with pytest.raises(ShardUnavailable, match="Input/output error"):
        store.submit(KEY, make_batch(3, [("a", 3, {"i": 3})]))
    assert len(scan(store.shard(1))) == 1 and "must be restarted" in store.problems()[0]
    store.close()
    assert len(fatal) == 1


@pytest.mark.parametrize("call", ["fdatasync", "pwrite", "fsync"])
def test_no_space_rolls_the_log_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    store = open_store(tmp_path, wal_segment_bytes=1)
    put(store, 1, [("a", 1, {"i": 1})])
    before = sorted(path.name for path in (tmp_path / "wal").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.ENOSPC))
        patch.setattr(os, "statvfs", failing(errno.EIO))
        for _ in range(3):
            with pytest.raises(DiskFull):
                put(store, 2, [("a", 2, {"i": 2})])
        assert sorted(path.name for path in (tmp_path / "wal").iterdir()) == before
        assert len(store.problems()) == 1
    # Space is back: that is seen without a write, and by a write at once.
    if call == "fsync":
        eventually(lambda: store.problems() == [])
    put(store, 3, [("a", 3, {"i": 3})])
    assert store.problems() == [] and store.stats()["disk_full"] == 3
    store.close()
    store = open_store(tmp_path)
    assert [row[1] for row in scan(store.shard(1))] == [1, 3] and store.problems() == []
    store.close()


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_no_space_in_a_file_that_holds_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"i": 1})])
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.ENOSPC))
        with pytest.raises(DiskFull):
            put(store, 2, [("a", 2, {"i": 2})])
    put(store, 3, [("a", 3, {"i": 3})])
    # The file whose sync failed is never synced again: what follows is in another one.
    assert store.stats()["wal_files"] == 2
    store.close()
    store = open_store(tmp_path)
    assert [row[1] for row in scan(store.shard(1))] == [1, 3] and store.problems() == []
    store.close()


def test_a_disk_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    released, real = threading.Event(), os.fdatasync

    def hanging(fd: int) -> None:
        assert released.wait(60)
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", hanging)
        stored = store.submit(KEY, make_batch(1, [("a", 1, {"i": 1})]))
        eventually(lambda: any("has not answered for" in text for text in store.problems()))
        assert not stored.done()
        released.set()
        stored.result(60)
    eventually(lambda: store.problems() == [])
    store.close()


def test_no_space_for_segments_keeps_rows_in_memory_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path, flush_age_s=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "write_atomic", failing(errno.ENOSPC))
        put(store, 1, [("a", 1, {"i": 1})])
        eventually(lambda: any("is full" in text for text in store.problems()))
        put(store, 2, [("a", 2, {"i": 2})])
        assert len(scan(store.shard(1))) == 2
    eventually(lambda: store.stats()["head_bytes"] == 0 and store.problems() == [])
    assert len(scan(store.shard(1))) == 2
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowInvalid("offset overflow")])
def test_whatever_fails_is_named_and_rows_are_written_out_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise error

    store = open_store(tmp_path, flush_age_s=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "write_atomic", broken)
        put(store, 1, [("a", 1, {"i": 1})])
        text = str(error) or "MemoryError"
        eventually(lambda: f"shard 1 cannot be written out: {text}" in store.problems())
    eventually(lambda: store.stats()["head_bytes"] == 0 and store.problems() == [])
    assert len(scan(store.shard(1))) == 1
    store.close()


def test_rows_are_written_out_whatever_fails_around_that(tmp_path: Path) -> None:
    def broken() -> int:
        raise RuntimeError("no clock")

    settings = StoreSettings(flush_age_s=0.1)
    store = Store(data_dir=tmp_path / "data", wal_dir=tmp_path / "wal", settings=settings, late_ns=broken)
    store.open(lambda text: None)
    eventually(lambda: any("no clock" in text for text in store.problems()))
    put(store, 1, [("a", 1, {"i": 1})])
    eventually(lambda: store.stats()["head_bytes"] == 0)
    store.close()


def test_a_node_with_deletions_in_its_log_starts_though_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    # Of one measurement fields get other types behind the deletion.
    put(store, 1, [("a", 1, {"i": 1}), ("b", 2, {"i": 1})])
    put(store, 2, [("a", 1, {"i": 1})], measurement="gone")
    store.flush(1)
    put(store, 3, [("a", 3, {"i": 1})])
    store.delete(KEY, [Tombstone("m", TagEquals("host", "a"), MIN_NS, MAX_NS, 5)])
    store.delete(KEY, [Tombstone("gone", None, MIN_NS, MAX_NS, 6)])
    put(store, 7, [("a", 4, {"i": 1})])
    other = make_points([("a", 1, {"f": 1.5})], "gone")
    store.submit(KEY, Batch(8, (replace(other, fields={"i": other.fields["f"]}),))).result(20)
    expected = scan(store.shard(1)), scan(store.shard(1), "gone", fields=["i"])
    assert len(expected[0]) == 2 and len(expected[1]) == 1
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "write_atomic", failing(errno.ENOSPC))
        store = open_store(tmp_path)
        assert (scan(store.shard(1)), scan(store.shard(1), "gone", fields=["i"])) == expected
        store.close()


def test_a_data_directory_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    store = Store(data_dir=tmp_path / "data" / "x", wal_dir=tmp_path / "wal")
    with pytest.raises(StorageCorrupt, match=r"storage cannot start: .*data"):
        store.open(lambda text: None)
    store.close()
