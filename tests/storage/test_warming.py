"""What a store has in memory comes back after a start, before anybody asks; and a bad list of it does no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsdbd.storage import Store
from dsdbd.storage.opener import Opener
from dsdbd.storage.warming import LIST_FILE, recall, warm_up
from tests.storage.storage_model import Model, eventually, open_store, put, scan

ROWS = [(host, time_ns, {"f": float(time_ns)}) for host in "ab" for time_ns in range(50)]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Model]:
    """A store with one file whose columns were read, closed."""
    model = Model()
    model.write(1, ROWS)
    store = open_store(tmp_path)
    put(store, 1, ROWS)
    store.flush()
    assert scan(store.shard(1)) == model.rows()
    wait_until_warm(store)
    store.close(write_out_s=60)
    return tmp_path, model


def kept(store: Store) -> int:
    return store.stats()["cache_extents"]


def wait_until_warm(store: Store) -> None:
    eventually(lambda: store._opener.is_done, 60)


def test_what_was_in_memory_is_read_without_a_question(written: tuple[Path, Model]) -> None:
    home, model = written
    store = open_store(home)
    try:
        wait_until_warm(store)
        before = store.stats()
        assert before["cache_extents"] > 0
        assert scan(store.shard(1)) == model.rows()
        after = store.stats()
        assert after["cache_hits"] > before["cache_hits"]
        assert after["cache_misses"] == before["cache_misses"]
    finally:
        store.close()


def test_it_comes_back_a_second_time_though_nobody_asked(written: tuple[Path, Model]) -> None:
    home, _ = written
    for _ in range(2):
        store = open_store(home)
        wait_until_warm(store)
        assert kept(store) > 0
        store.close()


def test_a_cache_without_room_takes_nothing(written: tuple[Path, Model]) -> None:
    home, model = written
    store = open_store(home, read_cache_bytes=0)
    try:
        wait_until_warm(store)
        assert kept(store) == 0
        assert scan(store.shard(1)) == model.rows()
    finally:
        store.close()


def listed_as(path: Path, extents: list) -> bytes:
    return json.dumps({"format": 1, "files": {path.as_posix(): extents}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xff{",
        b"[]",
        b'{"format": 2, "files": {"a": [["f", 0, 1]]}}',
        b'{"format": 1, "files": {"a": [["f", 0]]}}',
        b'{"format": 1, "files": {"../../gone.parquet": [["f", 0, 1]]}}',
        [["gone", 0, 1]],
        [["f", 0, 99]],
        [["f", -1, 1]],
        [["f", 1, 1]],
    ],
)
def test_a_list_that_is_not_right_does_no_harm(written: tuple[Path, Model], content: bytes | list | None) -> None:
    home, model = written
    data = next(home.rglob(LIST_FILE)).parent
    segment = next(data.rglob("*.parquet")).relative_to(data)
    (data / LIST_FILE).unlink()
    if content is not None:
        (data / LIST_FILE).write_bytes(content if isinstance(content, bytes) else listed_as(segment, content))
    store = open_store(home)
    try:
        wait_until_warm(store)
        assert kept(store) == 0
        assert scan(store.shard(1)) == model.rows()
        assert store.problems() == []
    finally:
        store.close()


def test_a_close_before_it_was_read_keeps_the_list(written: tuple[Path, Model]) -> None:
    home, _ = written
    path = next(home.rglob(LIST_FILE))
    listed = path.read_bytes()
    store = open_store(home)
    try:
        interrupted = Opener(store.shards, store._cache, path.parent)
        interrupted.stop()
        interrupted.run()
        path.write_bytes(listed)
        interrupted.remember()
        assert path.read_bytes() == listed
        assert recall(path.parent)
    finally:
        store.close()


def test_libraries_can_be_warmed_up_again() -> None:
    warm_up()
    warm_up()
