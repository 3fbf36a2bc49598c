"""The background thread: merges what was flushed, makes few files of what rests, keeps its rate, survives refusals."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dsdbd import fsio
from dsdbd.storage import Store
from dsdbd.storage.cache import ColumnCache, Extent, OpenFiles
from tests.storage.storage_model import KEY, eventually, open_store, put, scan
from tests.storage.test_segment_files import sample_rows

pytestmark = pytest.mark.slow


def fill(store: Store, files: int) -> None:
    for number in range(files):
        put(store, number + 1, [(f"h{n}", number * 10 + n, {"i": number}) for n in range(5)])
        store.flush()


def parquet_files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "data").rglob("*.parquet"))


def test_a_shard_that_rests_becomes_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdbd.storage.compactor._REST_LOOK_S", 0.05)
    store = open_store(tmp_path, merge_files=8)
    fill(store, 5)
    time.sleep(0.2)
    assert len(parquet_files(tmp_path)) == 5, "a day has not passed"
    store.close()
    # What the log still has is written out once more before the shard counts as resting.
    store = open_store(tmp_path, merge_files=8, full_merge_age_s=0.1, flush_age_s=0.05)
    assert len(scan(store.shard(1))) == 25
    eventually(lambda: len(parquet_files(tmp_path)) == 1 and parquet_files(tmp_path)[0].startswith("00000001-"))
    assert len(scan(store.shard(1))) == 25
    eventually(lambda: store.stats()["merges"] >= 1 and store.stats()["merged_bytes"] > 0)
    store.close()


def test_a_merge_that_fails_is_named_and_done_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdbd.storage.compactor._RETRY_S", 0.05)
    original = fsio.replacing

    def refuse_merged(path: Path, **options: int):
        if "-" in path.name:
            raise OSError(5, "Input/output error")
        return original(path, **options)

    store = open_store(tmp_path, merge_files=2, flush_age_s=0.05)
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "replacing", refuse_merged)
        for number in range(2):
            put(store, number + 1, [("a", number, {"i": number})])
            eventually(lambda: store.stats()["head_bytes"] == 0)
        eventually(lambda: any("cannot be merged: [Errno 5]" in text for text in store.problems()))
        put(store, 9, [("a", 9, {"i": 9})])
        assert len(scan(store.shard(1))) == 3
    eventually(lambda: store.problems() == [] and any("-" in name for name in parquet_files(tmp_path)))
    assert len(scan(store.shard(1))) == 3
    store.close()


def test_a_slow_merge_holds_up_neither_writing_out_nor_the_end(tmp_path: Path) -> None:
    store = open_store(tmp_path, merge_files=2, merge_bytes_per_s=1, flush_age_s=0.05)
    for number in range(4):
        put(store, number + 1, [("a", number, {"i": number})])
        eventually(lambda: store.stats()["head_bytes"] == 0, 5.0)
    assert store.stats()["merges"] == 0 and len(scan(store.shard(1))) == 4
    began_s = time.monotonic()
    store.close()
    assert time.monotonic() - began_s < 10.0
    store = open_store(tmp_path)
    assert len(scan(store.shard(KEY.shard_id))) == 4 and store.problems() == []
    store.close()


# --- the cache beside it


def extent(file_id: int, name: str, first: int, stop: int, rows: int = 100) -> Extent:
    return Extent(file_id, name, first, stop, sample_rows(1, rows).fields["hits"])


def test_the_cache_keeps_within_its_bound_and_what_is_used_stays() -> None:
    cache = ColumnCache(10 * 800)
    often = extent(1, "a", 0, 1)
    cache.put(often)
    for group in range(1, 200):
        cache.put(extent(1, "a", group, group + 1))
        assert cache.get(1, "a", [0]) == {0: often}
        assert cache.stats()["cache_bytes"] <= 10 * 800
    kept = cache.get(1, "a", list(range(200)))
    assert len(kept) == 10 and max(kept) == 199
    assert cache.missing(1, "a", [0, 1]) == [1]
    cache.put(extent(2, "a", 0, 8))
    cache.forget(1)
    assert list(cache.get(2, "a", [7, 8])) == [7] and cache.get(1, "a", [0]) == {}
    assert cache.stats()["cache_bytes"] == 800


def test_the_cache_takes_no_extent_twice_and_none_that_would_fill_it() -> None:
    cache = ColumnCache(1000)
    cache.put(extent(1, "a", 0, 1))
    assert cache.stats()["cache_bytes"] == 0
    cache = ColumnCache(8000)
    for _ in range(3):
        cache.put(extent(1, "a", 0, 4))
        cache.put(extent(1, "a", 3, 5))
    assert cache.stats()["cache_bytes"] == 800 and cache.stats()["cache_extents"] == 1


class Reader:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_open_files_are_bounded_and_used_by_one_at_a_time() -> None:
    files = OpenFiles(2)
    readers = [Reader() for _ in range(4)]
    for file_id, reader in zip((1, 1, 2, 3), readers, strict=True):
        files.give(file_id, reader)
    assert [reader.closed for reader in readers] == [True, True, False, False] and len(files) == 2
    assert files.take(1) is None and files.take(2) is readers[2] and files.take(2) is None
    files.give(2, readers[2])
    files.forget(2)
    assert readers[2].closed and len(files) == 1 and files.take(3) is readers[3]
