"""Records of the log that are in files already are not replayed, and nothing is lost for it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.predicate import EVERY_SERIES
from dsdbd.storage import ShardKey, Store, StoreSettings
from dsdbd.storage.log_mark import LOG_ID_FILE, MARK_FILE, load_mark, store_mark
from dsdbd.storage.tombstones import Tombstone
from tests.examples import examples
from tests.storage.storage_model import KEY, Model, eventually, put, scan

KEYS = [ShardKey("db", "autogen", number) for number in (1, 2)]
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([0, 1]), st.integers(0, 5)),
    st.tuples(st.just("flush"), st.sampled_from([0, 1]), st.just(0)),
    st.tuples(st.just("delete"), st.sampled_from([0, 1]), st.integers(0, 5)),
    st.tuples(st.just("remove"), st.sampled_from([0, 1]), st.just(0)),
    st.tuples(st.just("crash"), st.just(0), st.just(0)),
)


class Crashing:
    """A store that is closed and opened again and again; closing without writing out leaves what a kill leaves."""

    def __init__(self, home: Path) -> None:
        self.said: list[str] = []
        self.home = home
        self.store = self._open()

    def _open(self) -> Store:
        store = Store(data_dir=self.home / "data", wal_dir=self.home / "wal", settings=StoreSettings())
        store.open(self.said.append)
        return store

    @property
    def skipped(self) -> int:
        """Records that the last start did not replay."""
        said = next(text for text in reversed(self.said) if text.startswith("log replayed"))
        return int(said.rpartition("; ")[2].split()[0]) if ";" in said else 0

    def crash(self) -> None:
        """Go on with the files as they are."""
        self.store.close()
        self.store = self._open()

    def mark(self, key: ShardKey = KEY) -> Path:
        return self.home / "data" / key.database / key.policy / str(key.shard_id) / MARK_FILE


@contextlib.contextmanager
def crashing(root: Path) -> Iterator[Crashing]:
    crashed = Crashing(root)
    try:
        yield crashed
    finally:
        crashed.store.close()


def rows_at(*times: int) -> list[tuple[str, int, dict[str, float]]]:
    return [("a", time_ns, {"f": float(time_ns)}) for time_ns in times]


def times_in(store: Store, key: ShardKey = KEY) -> list[int]:
    return [time_ns for _, time_ns, _ in scan(store.shard(key.shard_id))]


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_whatever_was_written_out_before_a_crash_nothing_is_lost_or_comes_back(
    steps: list[tuple[str, int, int]],
) -> None:
    models = [Model(), Model()]
    version = 0
    with tempfile.TemporaryDirectory() as root, crashing(Path(root)) as crashed:
        for what, which, at in [*steps, ("crash", 0, 0), ("crash", 0, 0)]:
            key, store = KEYS[which], crashed.store
            version += 1
            match what:
                case "write":
                    rows = [("a", at, {"f": float(version)})]
                    put(store, version, rows, key)
                    models[which].write(version, rows)
                case "flush":
                    store.flush(key.shard_id)
                case "delete":
                    store.delete(key, [Tombstone("m", EVERY_SERIES, at, at, version)])
                    models[which].cells = {cell: held for cell, held in models[which].cells.items() if cell[1] != at}
                case "remove":
                    store.retain(lambda held, doomed=key: held != doomed)  # type: ignore[misc]
                    models[which] = Model()
                case "crash":
                    crashed.crash()
            for model, owned in zip(models, KEYS, strict=True):
                assert scan(crashed.store.shard(owned.shard_id)) == model.rows()


def test_records_that_are_in_files_are_not_replayed(tmp_path: Path) -> None:
    with crashing(tmp_path) as crashed:
        for number in range(10):
            put(crashed.store, number + 1, rows_at(number))
        put(crashed.store, 11, rows_at(100), KEYS[1])
        crashed.store.flush(KEY.shard_id)
        put(crashed.store, 12, rows_at(10))
        crashed.crash()
        assert crashed.skipped == 10
        assert "log replayed, 2 rows" in crashed.said[-1]
        assert times_in(crashed.store) == list(range(11)) and times_in(crashed.store, KEYS[1]) == [100]


def test_the_record_behind_those_that_are_in_files_is_replayed(tmp_path: Path) -> None:
    with crashing(tmp_path) as crashed:
        put(crashed.store, 1, rows_at(100), KEYS[1])
        for number in range(4):
            put(crashed.store, number + 1, rows_at(number))
            crashed.store.flush(KEY.shard_id)
            put(crashed.store, number + 1, rows_at(number + 50))
            crashed.crash()
            # What came back is written out, and its mark is one of the replay.
            crashed.store.flush(KEY.shard_id)
            assert times_in(crashed.store) == [*range(number + 1), *range(50, number + 51)]


def test_a_log_all_of_which_is_in_files_goes_after_a_crash(tmp_path: Path) -> None:
    with crashing(tmp_path) as crashed:
        put(crashed.store, 1, rows_at(1))
        put(crashed.store, 2, rows_at(2), KEYS[1])
        crashed.store.flush(KEY.shard_id)
        shutil.copytree(crashed.home / "wal", tmp_path / "kept")
        crashed.store.flush()
        crashed.store.close()
        shutil.rmtree(crashed.home / "wal")
        shutil.copytree(tmp_path / "kept", crashed.home / "wal")
        crashed.crash()
        assert crashed.skipped == 2 and times_in(crashed.store) == [1]
        eventually(lambda: not (crashed.home / "wal" / "00000001.wal").exists())


def test_rows_of_a_damaged_file_come_back_from_the_log(tmp_path: Path) -> None:
    with crashing(tmp_path) as crashed:
        put(crashed.store, 1, rows_at(1, 2))
        put(crashed.store, 2, rows_at(5), KEYS[1])
        crashed.store.flush(KEY.shard_id)
        (segment,) = (crashed.home / "data").rglob("*.parquet")
        segment.write_bytes(segment.read_bytes()[:-20])
        crashed.crash()
        assert crashed.skipped == 0 and times_in(crashed.store) == [1, 2]
        crashed.crash()
        assert times_in(crashed.store) == [1, 2]


def test_damage_that_is_found_later_makes_the_mark_void(tmp_path: Path) -> None:
    with crashing(tmp_path) as crashed:
        put(crashed.store, 1, rows_at(1, 2))
        put(crashed.store, 2, rows_at(5), KEYS[1])
        crashed.store.flush(KEY.shard_id)
        assert crashed.mark().exists()
        (segment,) = (crashed.home / "data").rglob("*.parquet")
        content = bytearray(segment.read_bytes())
        content[4:200] = bytes(196)
        segment.write_bytes(content)
        crashed.crash()
        assert crashed.skipped == 1
        assert times_in(crashed.store) == [] and not crashed.mark().exists()
        put(crashed.store, 3, rows_at(3))
        crashed.store.flush(KEY.shard_id)
        assert not crashed.mark().exists()
        crashed.crash()
        assert times_in(crashed.store) == [1, 2, 3]


def test_marks_mean_nothing_to_another_log(tmp_path: Path) -> None:
    with crashing(tmp_path) as crashed:
        put(crashed.store, 1, rows_at(*range(50)))
        put(crashed.store, 2, rows_at(1), KEYS[1])
        crashed.store.flush(KEY.shard_id)
        crashed.store.close()
        shutil.rmtree(crashed.home / "wal")
        crashed.crash()
        put(crashed.store, 3, rows_at(77))
        crashed.crash()
        assert crashed.skipped == 0 and times_in(crashed.store) == [*range(50), 77]


def test_marks_mean_nothing_to_an_older_copy_of_the_log(tmp_path: Path) -> None:
    with crashing(tmp_path) as crashed:
        put(crashed.store, 1, rows_at(1))
        put(crashed.store, 1, rows_at(1), KEYS[1])
        shutil.copytree(crashed.home / "wal", tmp_path / "older")
        crashed.crash()
        put(crashed.store, 2, rows_at(*range(2, 50)))
        crashed.store.flush(KEY.shard_id)
        assert '"file":2' in crashed.mark().read_text()
        crashed.store.close()
        shutil.rmtree(crashed.home / "wal")
        shutil.copytree(tmp_path / "older", crashed.home / "wal")
        crashed.crash()
        put(crashed.store, 3, rows_at(77))
        assert (crashed.home / "wal" / "00000002.wal").exists()
        crashed.crash()
        assert times_in(crashed.store) == [*range(1, 50), 77]


def test_a_log_that_was_written_anew_is_replayed_from_its_beginning(tmp_path: Path) -> None:
    with crashing(tmp_path) as crashed:
        put(crashed.store, 1, rows_at(*range(50)))
        put(crashed.store, 2, rows_at(51))
        crashed.store.flush(KEY.shard_id)
        for number in range(3):
            put(crashed.store, 3 + number, rows_at(60 + number))
        crashed.store.close()
        (log,) = (crashed.home / "wal").glob("*.wal")
        content = bytearray(log.read_bytes())
        content[40] ^= 1
        log.write_bytes(content)
        crashed.crash()
        assert len(list((crashed.home / "wal" / "corrupt").iterdir())) == 1
        crashed.crash()
        assert times_in(crashed.store) == [*range(50), 51, 60, 61, 62]


@pytest.mark.parametrize("content", [b"", b"\0" * 80, b"{}", b'{"format":2,"log":"x","file":1,"offset":1}'])
def test_a_mark_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    store_mark(tmp_path, "x", (3, 4))
    assert load_mark(tmp_path, "x") == (3, 4) and load_mark(tmp_path, "y") is None
    (tmp_path / MARK_FILE).write_bytes(content)
    assert load_mark(tmp_path, "x") is None


def test_a_log_keeps_its_id_and_gets_one_for_a_broken_one(tmp_path: Path) -> None:
    with crashing(tmp_path) as crashed:
        first = (crashed.home / "wal" / LOG_ID_FILE).read_text()
        crashed.crash()
        assert (crashed.home / "wal" / LOG_ID_FILE).read_text() == first
        (crashed.home / "wal" / LOG_ID_FILE).write_text("")
        crashed.crash()
        assert (crashed.home / "wal" / LOG_ID_FILE).read_text() not in ("", first)
