"""The store as its callers see it: writes, scans, flushes, reopening, damage, removal, limits."""

from __future__ import annotations

import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import DiskFull, FieldTypeConflict, Overloaded, ShardUnavailable
from dsdbd.model.columns import Batch, Column, Points
from dsdbd.model.predicate import AllOf, AnyOf, TagEquals, TagMatches, matches
from dsdbd.model.scan import Edge, ScanRequest
from dsdbd.model.types import FieldType
from dsdbd.storage import Shard, ShardKey, Store
from tests.examples import examples
from tests.storage.storage_model import (
    KEY,
    MAX_NS,
    MIN_NS,
    Model,
    eventually,
    make_batch,
    open_store,
    put,
    scan,
    series_of,
)
from tests.storage.test_storage_rows import batches

OTHER = ShardKey("db/../ü", "a b", 2)

steps = st.lists(
    st.one_of(batches.map(lambda many: ("write", many)), st.sampled_from([("flush",), ("merge",), ("reopen",)])),
    min_size=1,
    max_size=12,
)


predicates = st.recursive(
    st.one_of(
        st.builds(
            TagEquals, st.sampled_from(["host", "zone", "x"]), st.sampled_from(["a", "b", "za", ""]), st.booleans()
        ),
        st.builds(
            TagMatches, st.sampled_from(["host", "zone"]), st.sampled_from(["a|b", "^$", ".", "^z"]), st.booleans()
        ),
    ),
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, max_size=2).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=2).map(tuple)),
    ),
    max_leaves=3,
)
questions = st.tuples(
    predicates,
    st.integers(-1, 4),
    st.integers(-1, 4),
    st.one_of(st.just(()), st.sets(st.sampled_from("fisb"), min_size=1).map(tuple)),
    st.one_of(st.none(), st.builds(Edge, st.integers(1, 3), st.booleans())),
)


def check_answer(shard: Shard | None, model: Model, question: tuple) -> None:
    predicate, one, other, fields, edge = question
    low, high = sorted((one, other))
    chosen = model.rows(lambda series, time_ns: matches(predicate, series) and low <= time_ns <= high)
    cut = [(*row[:2], {key: row[2][key] for key in row[2] if key in fields}) for row in chosen]
    expected = [row for row in cut if row[2] or not fields]
    found = scan(shard, predicate=predicate, min_ns=low, max_ns=high, fields=fields, edge=edge)
    if edge is None:
        assert found == expected
        return
    assert all(row in expected for row in found)
    for series in {row[0] for row in expected}:
        mine = [row for row in expected if row[0] == series]
        assert all(row in found for row in (mine[-edge.count :] if edge.newest else mine[: edge.count]))


@settings(deadline=None, max_examples=examples(40))
@given(steps, st.lists(questions, min_size=1, max_size=3))
def test_any_sequence_equals_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, sequence: list, asked: list
) -> None:
    home = tmp_path_factory.mktemp("store")
    model = Model()
    store = open_store(home, merge_files=2, wal_segment_bytes=2_000)
    try:
        for step in sequence:
            if step[0] == "write":
                for version, rows in step[1]:
                    put(store, version, rows)
                    model.write(version, rows)
            elif step[0] == "flush":
                store.flush()
            elif step[0] == "merge" and store.shard(1) is not None:
                store.shard(1).merge()
            elif step[0] == "reopen":
                store.close()
                store = open_store(home, merge_files=2, wal_segment_bytes=2_000)
            for question in asked:
                check_answer(store.shard(1), model, question)
        assert scan(store.shard(1)) == model.rows()
        extent = store.shard(1) and store.shard(1).extent("m")
        if model.cells:
            assert extent.rows >= len(model.cells)
            assert extent.min_ns <= min(time_ns for _, time_ns in model.cells)
            assert extent.max_ns >= max(time_ns for _, time_ns in model.cells)
        assert store.problems() == []
    finally:
        store.close()
        shutil.rmtree(home)


def test_what_a_shard_says_about_itself(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("b", 1, {"f": 1.0}), ("a", 1, {"i": 1})])
    store.flush()
    put(store, 2, [("", 1, {"s": "x"})], measurement="n")
    store.close()
    store = open_store(tmp_path)
    shard = store.shard(1)
    assert shard is not None and shard.measurements() == ["m", "n"]
    assert shard.tag_keys("m") == {"host", "zone"} and shard.tag_keys("n") == frozenset() == shard.tag_keys("x")
    assert {key: field.value for key, field in shard.field_types("m").items()} == {"f": "float", "i": "integer"}
    chosen = shard.series("m", TagEquals("host", "", negated=True))
    assert sorted(chosen.parsed()) == [series_of("a"), series_of("b")]
    assert len(shard.series("x", TagEquals("host", "a"))) == 0 and scan(shard, "x") == []
    assert scan(shard, fields=["i"]) == [(series_of("a"), 1, {"i": 1})]
    assert scan(shard, fields=["unknown"]) == []
    store.close()


def test_later_row_wins_within_a_batch_and_newer_version_across(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 5, [("a", 1, {"f": 1.0, "i": 1}), ("a", 1, {"f": 2.0})])
    store.flush()
    put(store, 4, [("a", 1, {"f": 9.0, "s": "late"}), ("a", 0, {"f": 0.0})])
    put(store, 6, [("a", 1, {"i": 6})])
    expected = [(series_of("a"), 0, {"f": 0.0}), (series_of("a"), 1, {"f": 2.0, "i": 6, "s": "late"})]
    assert scan(store.shard(1)) == expected
    store.flush()
    assert scan(store.shard(1)) == expected
    store.close()


def test_field_types_are_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"f": 1.0})])
    store.flush()
    store.close()
    store = open_store(tmp_path)
    batch = make_batch(2, [("a", 2, {"i": 1})])
    points = batch.points[0]
    points.fields["f"] = points.fields.pop("i")  # type: ignore[attr-defined]
    with pytest.raises(FieldTypeConflict, match='input field "f" on measurement "m" is type integer, already'):
        store.submit(KEY, batch).result(10)
    assert len(scan(store.shard(1))) == 1
    store.close()
    assert open_and_count(tmp_path) == 1


def open_and_count(home: Path) -> int:
    store = open_store(home)
    try:
        return len(scan(store.shard(1)))
    finally:
        store.close()


def test_many_small_segments_are_merged(tmp_path: Path) -> None:
    store = open_store(tmp_path, merge_files=4)
    model = Model()
    for number in range(40):
        rows = [("a", number % 7, {"i": number}), ("b", number, {"f": float(number)})]
        put(store, number, rows)
        model.write(number, rows)
        store.flush()
        store.shard(1).merge()
        assert len(list(tmp_path.rglob("*.parquet"))) <= 8
    assert scan(store.shard(1)) == model.rows()
    store.close()
    assert open_and_count(tmp_path) == len(model.rows())


def test_files_left_by_a_crashed_merge_are_removed(tmp_path: Path) -> None:
    store = open_store(tmp_path, merge_files=2)
    for number in (1, 2):
        put(store, number, [("a", number, {"i": number})])
        store.flush()
    kept = {path: path.read_bytes() for path in tmp_path.rglob("0*.parquet")}
    store.shard(1).merge()
    store.close()
    for path, content in kept.items():
        path.write_bytes(content)
    (next(iter(kept)).parent / "00000009.parquet.tmp").write_bytes(b"half")
    assert open_and_count(tmp_path) == 2
    assert [path.name for path in tmp_path.rglob("*.parquet*")] == ["00000001-00000002.parquet"]


def test_heads_are_written_out_by_size_and_by_age_and_the_log_follows(tmp_path: Path) -> None:
    store = open_store(tmp_path, head_max_bytes=20_000, flush_age_s=1.0, wal_segment_bytes=10_000)
    for number in range(60):
        put(store, number, [("a", number * 100 + row, {"f": 1.0}) for row in range(100)])
    eventually(lambda: store.stats()["flushes"] > 0 and store.stats()["head_bytes"] == 0)
    eventually(lambda: store.stats()["wal_files"] == 1)
    assert len(scan(store.shard(1))) == 6_000
    store.close()


def test_names_are_never_paths(tmp_path: Path) -> None:
    key = ShardKey("../../x", "..", 3)
    store = open_store(tmp_path / "home")
    put(store, 1, [("a", 1, {"i": 1})], key=key, measurement="../../" + "long" * 200)
    store.flush()
    store.close()
    assert {path.name for path in tmp_path.iterdir()} == {"home"}
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"data", "wal"}
    store = open_store(tmp_path / "home")
    assert store.shard(3).key == key and len(scan(store.shard(3), "../../" + "long" * 200)) == 1
    store.close()


# --- removal


def test_removed_shards_never_come_back(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for key in (KEY, OTHER):
        put(store, 1, [("a", 1, {"i": 1})], key=key)
    store.flush(1)
    put(store, 2, [("a", 2, {"i": 2})])
    gone = store.shard(1)
    assert store.retain(lambda key: key == OTHER) == 1 and store.retain(lambda key: key == OTHER) == 0
    assert store.shard(1) is None and scan(gone) == []
    assert not list((tmp_path / "data").rglob("*.parquet"))
    store.close()
    store = open_store(tmp_path)
    assert [shard.key for shard in store.shards()] == [OTHER] and len(scan(store.shard(2))) == 1
    # A shard that is moved away and back again holds only what came after.
    put(store, 3, [("a", 3, {"i": 3})])
    store.flush(1)
    store.close()
    store = open_store(tmp_path)
    assert scan(store.shard(1)) == [(series_of("a"), 3, {"i": 3})]
    store.close()


def test_a_removal_that_a_crash_interrupted_is_finished(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"i": 1})])
    store.flush()
    directory = store.shard(1).directory
    store.close()
    directory.rename(directory.with_name("1.tmp"))
    shutil.rmtree(tmp_path / "wal")
    store = open_store(tmp_path)
    assert store.shards() == [] and list(directory.parent.iterdir()) == []
    store.close()


def test_a_shard_id_belongs_to_one_policy(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"i": 1})])
    with pytest.raises(ShardUnavailable, match="shard 1 belongs to 'db'"):
        put(store, 1, [("a", 1, {"i": 1})], key=ShardKey("other", "autogen", 1))
    store.close()
    with pytest.raises(ShardUnavailable, match="not open"):
        put(store, 1, [("a", 1, {"i": 1})])


# --- damage


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def middle_of(path: Path, column: str, group: int = 0) -> int:
    """A byte in the pages of a column."""
    about = pq.read_metadata(path).row_group(group)
    (chunk,) = (one for at in range(about.num_columns) if (one := about.column(at)).path_in_schema == column)
    return chunk.data_page_offset + chunk.total_compressed_size // 2


@pytest.mark.parametrize("place", ["page", "footer"])
def test_a_damaged_segment_is_set_aside_and_the_rest_served(tmp_path: Path, place: str) -> None:
    """A page is found damaged by a read, the footer's size when the shard is opened."""
    store = open_store(tmp_path, wal_segment_bytes=1)
    for number in (1, 2):
        put(store, number, [("a", number * 1_000 + row, {"f": row / 3}) for row in range(100)])
        store.flush()
    put(store, 3, [("a", 0, {"f": 1.0})])
    store.flush()
    store.close()
    victim = next(tmp_path.rglob("00000002.parquet"))
    damage(victim, -6 if place == "footer" else middle_of(victim, "f"))
    store = open_store(tmp_path)
    assert len(scan(store.shard(1))) == 101
    assert not victim.exists() and (victim.parent / "corrupt" / victim.name).exists()
    (problem,) = store.problems()
    assert str(victim) in problem and "corrupt" in problem
    store.close()
    assert open_and_count(tmp_path) == 101


@pytest.mark.slow
def test_damage_found_after_rows_were_given_fails_the_scan_and_not_the_next(tmp_path: Path) -> None:
    store = open_store(tmp_path, wal_segment_bytes=1)
    count = 700_000
    column = Column(FieldType.FLOAT, np.random.default_rng(1).random(count))
    every = Points("m", (b"m,host=a",), np.zeros(count, dtype=np.int32), np.arange(count), {"f": column})
    store.submit(KEY, Batch(1, (every,))).result(20)
    store.flush()
    put(store, 2, [("b", 1, {"f": 1.0})])
    store.flush()
    store.close()
    path = next(tmp_path.rglob("00000001.parquet"))
    last = pq.read_metadata(path).num_row_groups - 1
    damage(path, middle_of(path, "f", last))
    store = open_store(tmp_path)
    shard = store.shard(1)
    of_a = TagEquals("host", "a")
    pieces = shard.scan(ScanRequest(measurement="m", predicate=of_a, min_ns=MIN_NS, max_ns=MAX_NS, fields=["f"]))
    assert len(next(pieces)) >= 100_000
    with pytest.raises(ShardUnavailable, match="read again"):
        list(pieces)
    assert scan(shard) == [(series_of("b"), 1, {"f": 1.0})]
    assert len(store.problems()) == 1 and (path.parent / "corrupt" / path.name).exists()
    store.close()


def test_a_damaged_log_is_set_aside_and_the_rest_served(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for number in range(5):
        put(store, number, [("a", number, {"i": number})])
    store.close()
    (path,) = (tmp_path / "wal").glob("*.wal")
    damage(path, path.stat().st_size // 2)
    store = open_store(tmp_path)
    assert [row[1] for row in scan(store.shard(1))] == [0, 1, 3, 4]
    assert len(store.problems()) == 1 and "is damaged at byte" in store.problems()[0]
    store.close()
    assert open_and_count(tmp_path) == 4
    assert [kept.name for kept in (tmp_path / "wal" / "corrupt").iterdir()] == [path.name]


def test_a_torn_last_record_at_every_byte(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"i": 1})])
    before = next((tmp_path / "wal").iterdir()).stat().st_size
    put(store, 2, [("a", 2, {"i": 2})])
    store.close()
    (path,) = (tmp_path / "wal").glob("*.wal")
    content = path.read_bytes()
    for size in range(before, len(content), 13):
        path.write_bytes(content[:size])
        store = open_store(tmp_path)
        assert len(scan(store.shard(1))) == 1 and store.problems() == []
        store.close()
        for other in (tmp_path / "wal").glob("*.wal"):
            assert other == path


@pytest.mark.parametrize("damaged", [b"{", b'{"database":"\x80"}'])
def test_shard_directory_with_a_damaged_description_is_named(tmp_path: Path, damaged: bytes) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"i": 1})])
    store.flush()
    about = store.shard(1).directory / "shard.json"
    store.close()
    about.write_bytes(damaged)
    for log in (tmp_path / "wal").glob("*.wal"):
        log.unlink()
    store = open_store(tmp_path)
    assert store.shards() == [] and str(about) in store.problems()[0]
    store.close()


# --- limits


def test_overload_is_refused_and_passes(tmp_path: Path) -> None:
    store = open_store(tmp_path, head_hard_bytes=5_000)
    with pytest.raises(Overloaded, match="retry later"):
        for number in range(200):
            put(store, number, [("a", number * 10 + row, {"f": 1.0}) for row in range(10)])
    store.flush()
    put(store, 1_000, [("a", 1, {"f": 1.0})])
    assert store.stats()["overloaded"] == 1
    store.close()


@pytest.mark.root
@pytest.mark.slow
def test_a_full_disk_refuses_writes_and_recovers(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], capture_output=True)
    if made.returncode:
        pytest.skip("cannot mount a tmpfs here")
    store = Store(data_dir=tmp_path / "data", wal_dir=mount / "wal")
    stored = 0
    try:
        store.open(lambda text: None)
        filler = mount / "filler"
        filler.write_bytes(bytes(1_500_000))
        with pytest.raises(DiskFull, match="write-ahead log"):
            for number in range(1_000):
                put(store, number, [("a", number * 100 + row, {"f": row / 7}) for row in range(100)])
                stored += 100
        assert stored > 1_000
        for _ in range(20):
            with pytest.raises(DiskFull):
                put(store, 5_000, [("z", row, {"f": row / 7}) for row in range(20_000)])
        assert len(scan(store.shard(1))) == stored and any("write-ahead log" in text for text in store.problems())
        assert len(list((mount / "wal").iterdir())) <= 3
        filler.unlink()
        put(store, 10_000, [("b", 1, {"f": 1.0})])
        assert store.problems() == []
        store.close()
        store = Store(data_dir=tmp_path / "data", wal_dir=mount / "wal")
        store.open(lambda text: None)
        assert len(scan(store.shard(1))) == stored + 1 and store.problems() == []
    finally:
        store.close()
        subprocess.run(["umount", str(mount)], check=True)


# --- many at once


@pytest.mark.slow
def test_writers_readers_flushes_and_merges_at_once(tmp_path: Path) -> None:
    """A scan sees every row that was acknowledged before it began, whole, and each exactly once."""
    store = open_store(tmp_path, head_max_bytes=30_000, merge_files=2, wal_segment_bytes=20_000)
    acknowledged = [0, 0, 0]
    stop = threading.Event()

    def write(writer: int) -> None:
        for number in range(120):
            first = number * 20
            put(store, number, [(f"h{writer}", first + row, {"i": row, "f": 1.0}) for row in range(20)])
            acknowledged[writer] = first + 20

    def read() -> int:
        scans = 0
        while not stop.is_set():
            floor = list(acknowledged)
            rows = scan(store.shard(1)) if store.shard(1) is not None else []
            for writer in range(3):
                mine = [row for row in rows if row[0].tag("host") == f"h{writer}"]
                assert [row[1] for row in mine] == list(range(len(mine)))
                assert len(mine) >= floor[writer] and len(mine) % 20 == 0
                assert all(row[2] == {"i": row[1] % 20, "f": 1.0} for row in mine)
            scans += 1
        return scans

    def tidy() -> None:
        while not stop.is_set():
            store.flush()
            for shard in store.shards():
                shard.merge()

    with ThreadPoolExecutor(8) as pool:
        background = [pool.submit(read), pool.submit(read), pool.submit(tidy)]
        try:
            for future in [pool.submit(write, writer) for writer in range(3)]:
                future.result(120)
        finally:
            stop.set()
        assert background[0].result(60) + background[1].result(60) > 2
        background[2].result(60)
    assert len(scan(store.shard(1))) == 3 * 2_400 and store.problems() == []
    store.close()
    assert open_and_count(tmp_path) == 3 * 2_400


def test_waiting_writers_share_a_sync(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    futures = [store.submit(KEY, make_batch(number, [("a", number, {"i": number})])) for number in range(300)]
    for future in futures:
        future.result(20)
    assert store.stats()["writes"] == 300 and store.stats()["groups"] < 300
    assert len(scan(store.shard(1))) == 300
    store.close()
