"""What a stop leaves for the next start, and what a crash during a stop leaves."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dsdbd.storage import Store
from tests.storage.crash_child import KEYS, OWNERS, ROWS, crash_child
from tests.storage.storage_model import eventually, open_store, put, scan

STOP_ROWS = 60 * ROWS


def open_and_count(home: Path) -> int:
    store = open_store(home)
    found = sum(len(scan(shard)) for shard in store.shards())
    assert store.problems() == []
    store.close()
    return found


def test_a_start_after_a_clean_stop_replays_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path, wal_segment_bytes=5_000)
    for number in range(30):
        put(store, number, [("a", number * 100 + row, {"f": 1.0}) for row in range(100)], KEYS[number % 2])
    store.close(write_out_s=20.0)
    (path,) = (tmp_path / "wal").glob("*.wal")
    told: list[str] = []
    store = Store(data_dir=tmp_path / "data", wal_dir=tmp_path / "wal")
    store.open(told.append)
    assert "log replayed, 0 rows from 0 MB" in told and store.stats()["head_bytes"] == 0
    assert [len(scan(shard)) for shard in store.shards()] == [1_500, 1_500]
    put(store, 99, [("b", 1, {"f": 1.0})])
    # Numbers of log files go on upwards.
    assert max(int(other.stem) for other in (tmp_path / "wal").glob("*.wal")) == int(path.stem) + 1
    store.close()


def test_a_stop_without_time_leaves_rows_in_the_log(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"f": 1.0})])
    store.close(write_out_s=1e-9)
    assert not list(tmp_path.rglob("*.parquet"))
    assert open_and_count(tmp_path) == 1


def test_after_a_quiet_time_nothing_is_left_to_replay(tmp_path: Path) -> None:
    store = open_store(tmp_path, flush_age_s=0.5)
    put(store, 1, [("a", 1, {"f": 1.0})])
    (path,) = (tmp_path / "wal").glob("*.wal")
    eventually(lambda: not path.exists())
    assert store.stats()["wal_files"] == 1 and store.problems() == []
    put(store, 2, [("a", 2, {"f": 1.0})])
    store.close()
    assert open_and_count(tmp_path) == 2


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", sorted({*OWNERS} - {"fdatasync"}))
def test_killed_while_a_stop_writes_out(tmp_path: Path, name: str, when: str) -> None:
    reached = 0
    for count in (1, 2, 3):
        home = tmp_path / str(count)
        with crash_child(home, 0, f"{name}:{when}:{count}", "stop") as (process, printed):
            assert len(printed.read().split()) * ROWS == STOP_ROWS
            code = process.wait(60)
        assert code in (0, -signal.SIGKILL)
        reached += code == -signal.SIGKILL
        assert open_and_count(home) == STOP_ROWS
    assert reached, f"no {name} was met"
