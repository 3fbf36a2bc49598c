"""What the store does when the operating system refuses: failed syncs, full disks under the segments."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from dsdbd import fsio
from dsdbd.errors import DiskFull, OutcomeUnknown, ShardUnavailable, StorageCorrupt
from dsdbd.storage import Store
from tests.storage.storage_model import KEY, eventually, make_batch, open_store, put, scan


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


def test_a_data_directory_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    store = Store(data_dir=tmp_path / "data" / "x", wal_dir=tmp_path / "wal")
    with pytest.raises(StorageCorrupt, match=r"storage cannot start: .*data"):
        store.open(lambda text: None)
    store.close()
