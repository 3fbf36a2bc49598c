"""Deletions of one shard: hidden at once, gone from files after a merge, forgotten when nothing of them is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import CorruptData, Overloaded
from dsdbd.limits import MAX_SHARD_TOMBSTONES
from dsdbd.model.predicate import AllOf, AnyOf, TagEquals, TagMatches
from dsdbd.storage.tombstones import (
    Tombstone,
    after_merge,
    decode_tombstones,
    encode_tombstones,
    found_again,
    still_needed,
    with_tombstone,
)
from tests.examples import examples
from tests.storage.storage_model import KEY, MAX_NS, MIN_NS, Model, open_store, put, scan, series_of
from tests.storage.test_storage_rows import HOSTS, batches

steps = st.lists(
    st.one_of(
        batches.map(lambda many: ("write", [rows for _, rows in many])),
        st.tuples(st.just("delete"), st.sampled_from([*HOSTS, None]), st.integers(0, 3), st.integers(0, 3)),
        st.sampled_from([("flush",), ("merge",), ("reopen",), ("forget",)]),
    ),
    min_size=2,
    max_size=14,
)


@settings(deadline=None, max_examples=examples(40))
@given(steps)
def test_any_sequence_with_deletions_equals_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, sequence: list
) -> None:
    home = tmp_path_factory.mktemp("store")
    model = Model()
    store = open_store(home, merge_files=2, wal_segment_bytes=2_000)
    version = 1
    try:
        put(store, 1, [("a", 0, {"i": 1})])
        model.write(1, [("a", 0, {"i": 1})])
        for step in sequence:
            version += 1
            shard = store.shard(1)
            if step[0] == "write":
                for rows in step[1]:
                    version += 1
                    put(store, version, rows)
                    model.write(version, rows)
            elif step[0] == "delete":
                _, host, *times = step
                predicate = None if host is None else TagEquals("host", host)
                shard.delete(Tombstone("m", predicate, min(times), max(times), version))
                for series, time_ns in list(model.cells):
                    if host in (None, series.tag("host")) and min(times) <= time_ns <= max(times):
                        del model.cells[series, time_ns]
            elif step[0] == "flush":
                store.flush()
            elif step[0] == "merge":
                shard.merge()
            elif step[0] == "forget":
                # The log may still bring back everything that is not in files.
                shard.forget_tombstones(0 if shard.oldest_wal() is not None else version)
            elif step[0] == "reopen":
                store.close()
                store = open_store(home, merge_files=2, wal_segment_bytes=2_000)
            assert scan(store.shard(1)) == model.rows()
        assert store.problems() == []
    finally:
        store.close()
        shutil.rmtree(home)


def test_what_is_deleted_leaves_the_files_and_the_deletion_is_forgotten(tmp_path: Path) -> None:
    store = open_store(tmp_path, merge_files=2)
    for version in (1, 2):
        put(store, version, [("a", version, {"i": 1}), ("b", version, {"i": 1})])
        store.flush()
    shard = store.shard(1)
    shard.delete(Tombstone("m", TagEquals("host", "a"), MIN_NS, MAX_NS, 10))
    assert scan(shard) == [(series_of("b"), 1, {"i": 1}), (series_of("b"), 2, {"i": 1})]
    assert shard.forget_tombstones(20) == 1
    assert shard.merge() == 1
    (path,) = shard.directory.rglob("*.parquet")
    assert pq.read_table(path).num_rows == 2
    assert shard.forget_tombstones(9) == 1
    assert shard.forget_tombstones(10) == 0
    put(store, 3, [("a", 5, {"i": 3})])
    assert len(scan(shard)) == 3
    store.close()


def test_rows_that_are_written_out_after_a_deletion_are_not_in_the_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"i": 1})])
    shard = store.shard(1)
    shard.delete(Tombstone("m", None, 0, 5, 10))
    put(store, 11, [("a", 1, {"f": 2.0})])
    put(store, 5, [("b", 4, {"i": 9})])
    store.flush()
    (path,) = shard.directory.rglob("*.parquet")
    assert pq.read_table(path).num_rows == 1
    store.close()
    store = open_store(tmp_path)
    put(store, 6, [("b", 5, {"i": 9})])
    assert scan(store.shard(1)) == [(series_of("a"), 1, {"f": 2.0})]
    store.close()


def test_a_damaged_file_of_deletions_is_set_aside_and_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"i": 1})])
    store.flush()
    store.shard(1).delete(Tombstone("m", None, 0, 5, 10))
    path = store.shard(1).directory / "tombstones.json"
    store.close()
    path.write_bytes(b"{}")
    store = open_store(tmp_path)
    assert len(scan(store.shard(1))) == 1
    (problem,) = store.problems()
    assert str(path) in problem and (path.parent / "corrupt" / path.name).exists()
    store.close()


def test_there_is_a_bound_on_deletions(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"i": 1})], key=KEY)
    shard = store.shard(1)
    for number in range(3):
        shard.delete(Tombstone("m", None, 0, number, 10 + number))
    assert shard.forget_tombstones(0) == 1, "the widest and newest covers the others"
    many = [Tombstone("m", None, at, at, 1) for at in range(MAX_SHARD_TOMBSTONES)]
    (shard.directory / "tombstones.json").write_bytes(encode_tombstones(many))
    store.close()
    store = open_store(tmp_path)
    with pytest.raises(Overloaded, match="shard 1 keeps 1000 deletions"):
        store.shard(1).delete(Tombstone("m", None, -5, -5, 1))
    store.close()


predicates = st.recursive(
    st.one_of(
        st.builds(TagEquals, st.text(max_size=3), st.text(max_size=3), st.booleans()),
        st.builds(TagMatches, st.text(max_size=3), st.text(max_size=3), st.booleans()),
    ),
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)
ranges = st.frozensets(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=3)
tombstones = st.builds(
    Tombstone,
    st.sampled_from("mn"),
    st.none() | predicates,
    st.integers(MIN_NS, MAX_NS),
    st.integers(MIN_NS, MAX_NS),
    st.integers(0, 9),
    ranges,
)


@given(st.lists(tombstones, max_size=5))
def test_tombstones_come_back_from_their_file(many: list[Tombstone]) -> None:
    assert decode_tombstones(encode_tombstones(many)) == tuple(many)


@given(st.binary(max_size=50))
def test_other_bytes_are_no_tombstones(data: bytes) -> None:
    with pytest.raises(CorruptData):
        decode_tombstones(data)


@given(st.lists(tombstones, max_size=5), tombstones)
def test_one_more_deletion_hides_no_less(many: list[Tombstone], new: Tombstone) -> None:
    kept = with_tombstone(many, new)
    for one in (*many, new):
        assert any(other.covers(one) for other in kept)
    assert any(new.files <= one.files for one in kept if one.covers(new))


def test_a_deletion_waits_for_the_file_it_was_not_applied_to() -> None:
    old, new = (Tombstone("m", None, 0, 9, version, frozenset({(1, 1), (2, 2)})) for version in (5, 6))
    kept = after_merge((old, new), (old,), frozenset({(1, 1), (2, 2)}), (1, 2))
    assert still_needed(kept, "m", [(1, 2)], 9) == (Tombstone("m", None, 0, 9, 6, frozenset({(1, 2)})),)
    # A crash before that note: the file that stands for those it waits for may hold what they held.
    (again,) = found_again((new,), {"m": [(1, 2), (3, 3)], "n": [(1, 2)]})
    assert again.files == {(1, 2)}
