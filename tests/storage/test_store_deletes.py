"""Deletions through the log: in the order of versions, over restarts, with series, fields and types that are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import FieldTypeConflict, ShardUnavailable
from dsdbd.limits import LATE_BATCH_NS
from dsdbd.model.columns import Batch, Points
from dsdbd.model.predicate import EVERY_SERIES, TagEquals, TagMatches, matches
from dsdbd.model.scan import ScanRequest
from dsdbd.storage import ShardKey, Store
from dsdbd.storage.forgetting import Horizon
from dsdbd.storage.tombstones import Tombstone
from tests.examples import examples
from tests.storage.storage_model import KEY, MAX_NS, MIN_NS, Model, make_batch, open_store, put, scan, series_of
from tests.storage.test_storage_rows import batches

PREDICATES = [
    None,
    TagEquals("host", "a"),
    TagEquals("host", "a", negated=True),
    TagEquals("host", ""),
    TagMatches("zone", "z[ab]"),
]
TIMES = st.sampled_from([(MIN_NS, MAX_NS), (MIN_NS, 1), (2, MAX_NS), (1, 2), (0, 0)])
# Versions are those of the model's clock, or older by some: a write or a deletion that arrives late.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), batches.map(lambda many: [rows for _, rows in many]), st.integers(0, 6)),
        st.tuples(st.just("delete"), st.sampled_from(PREDICATES), TIMES, st.integers(0, 6)),
        st.sampled_from([("flush",), ("merge",), ("purge",), ("reopen",), ("forget",)]),
    ),
    min_size=3,
    max_size=16,
)


class DeletingModel(Model):
    """Every write by its version: a cell is what is left of the writes no deletion hides."""

    def __init__(self) -> None:
        super().__init__()
        self.deletions: list[Tombstone] = []
        self.writes: list[tuple[int, list]] = []

    def settle(self) -> Model:
        left = Model()
        for version, rows in self.writes:
            left.write(version, [row for row in rows if not self._is_deleted(version, row)])
        return left

    def _is_deleted(self, version: int, row: tuple) -> bool:
        return any(
            version < one.version
            and one.min_ns <= row[1] <= one.max_ns
            and (one.predicate is None or matches(one.predicate, series_of(row[0])))
            for one in self.deletions
        )


def delete(store: Store, version: int, predicate=None, low: int = MIN_NS, high: int = MAX_NS, name: str = "m") -> None:
    store.delete(KEY, [Tombstone(name, predicate, low, high, version)])


def test_shards_that_are_deleted_from_together_share_a_sync_of_the_log(tmp_path: Path) -> None:
    keys = [ShardKey("db", "rp", number) for number in range(1, 21)]
    store = open_store(tmp_path)
    for key in keys:
        put(store, 1, [("a", 1, {"f": 1.0}), ("b", 2, {"f": 2.0})], key)
    tombstones = [Tombstone("m", TagEquals("host", "a"), MIN_NS, MAX_NS, 5)]
    before = store.stats()["groups"]
    store.delete_all([(key, tombstones) for key in keys])
    # The first may go alone, while the others come.
    assert store.stats()["groups"] - before <= 2
    store.close()
    store = open_store(tmp_path)
    for key in keys:
        assert len(scan(store.shard(key.shard_id))) == 1
    store.close()


def test_where_one_of_several_shards_cannot_delete_the_others_before_it_are_done(tmp_path: Path) -> None:
    keys = [ShardKey("db", "rp", number) for number in (1, 2, 3)]
    store = open_store(tmp_path)
    for key in keys:
        put(store, 1, [("a", 1, {"f": 1.0})], key)
        store.flush()
    broken = store.shard(2)
    (broken.directory / "tombstones.json.tmp").mkdir()
    before = store.stats()["groups"]
    with pytest.raises(ShardUnavailable, match="shard 2 cannot delete"):
        store.delete_all([(key, [Tombstone("m", None, MIN_NS, MAX_NS, 5)]) for key in keys])
    assert store.stats()["groups"] - before == 1, "the record of the first is in the log"
    assert [len(scan(store.shard(number))) for number in (1, 2, 3)] == [0, 1, 1]
    store.close()


def purge(store: Store) -> int:
    return store.shard(1).purge(1 << 62)


@settings(deadline=None, max_examples=examples(60))
@given(steps)
def test_any_sequence_with_late_writes_and_deletions_equals_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, sequence: list
) -> None:
    home = tmp_path_factory.mktemp("store")
    model = DeletingModel()
    store = open_store(home, merge_files=2, wal_segment_bytes=2_000)
    version = 10
    try:
        for step in sequence:
            version += 2
            if step[0] == "write":
                for number, rows in enumerate(step[1]):
                    # One version for one write: equal versions of one cell have no order.
                    at = version * 10 - step[2] * 20 + number
                    put(store, at, rows)
                    model.writes.append((at, rows))
            elif step[0] == "delete":
                at = version * 10 - step[3] * 20 + 5
                delete(store, at, step[1], *step[2])
                model.deletions.append(Tombstone("m", step[1], *step[2], at))
            elif step[0] == "flush":
                store.flush()
            elif step[0] == "reopen":
                store.close()
                store = open_store(home, merge_files=2, wal_segment_bytes=2_000)
            elif (shard := store.shard(1)) is not None:
                if step[0] == "merge":
                    shard.merge()
                elif step[0] == "purge":
                    purge(store)
                else:
                    # The log may bring back everything: nothing is past.
                    shard.forget_tombstones(0)
            left = model.settle().rows()
            shard = store.shard(1)
            assert scan(shard) == left
            if shard is not None:
                series = {row[0] for row in left}
                assert set(shard.series("m", EVERY_SERIES).parsed()) == series
                assert shard.measurements() == (["m"] if left else [])
                assert shard.tag_keys("m") == {key for one in series for key, _ in one.tags}
                held = {key for row in left for key in row[2]}
                assert held <= shard.field_types("m").keys() and (left or not shard.field_types("m"))
        assert store.problems() == []
    finally:
        store.close()
        shutil.rmtree(home)


def retyped(version: int, rows: list) -> Batch:
    """A batch whose field ``f`` has the type of the field it is made from."""
    (points,) = make_batch(version, rows).points
    (column,) = points.fields.values()
    return Batch(version, (Points("m", points.series, points.series_index, points.time_ns, {"f": column}),))


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_field_may_come_back_with_another_type(tmp_path: Path, flushed: bool, reopened: bool) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"f": 1.0}), ("b", 2, {"f": 2.0})])
    if flushed:
        store.flush()
    with pytest.raises(FieldTypeConflict):
        store.submit(KEY, retyped(2, [("a", 1, {"s": "x"})])).result(20)
    delete(store, 10)
    assert (store.shard(1).measurements(), list(tmp_path.rglob("*.parquet"))) == ([], [])
    assert store.shard(1).head_bytes == 0
    if reopened:
        store.close()
        store = open_store(tmp_path)
    # A write from before the deletion that arrives now has the old type; nothing of it counts.
    put(store, 3, [("a", 9, {"f": 3.0})])
    store.submit(KEY, retyped(11, [("c", 1, {"s": "x"})])).result(20)
    put(store, 4, [("a", 9, {"f": 3.0})])
    for _ in range(2):
        assert scan(store.shard(1)) == [(series_of("c"), 1, {"f": "x"})]
        assert store.shard(1).field_types("m")["f"].value == "string"
        store.close()
        store = open_store(tmp_path)
    store.flush()
    assert scan(store.shard(1)) == [(series_of("c"), 1, {"f": "x"})]
    assert store.problems() == []
    store.close()


def test_series_without_rows_are_not_named_whatever_hid_them(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", time_ns, {"f": 1.0}) for time_ns in range(10)])
    store.flush()
    put(store, 2, [("a", 5, {"f": 1.0}), ("b", 5, {"f": 1.0})])
    store.flush()
    shard = store.shard(1)

    def hosts() -> list[str]:
        return sorted(one.tag("host") for one in shard.series("m", EVERY_SERIES).parsed())

    delete(store, 10, TagEquals("host", "a"), 0, 4)
    delete(store, 11, TagEquals("host", "a"), 5, 8)
    assert hosts() == ["a", "b"], "the row at 9 is left"
    delete(store, 12, TagEquals("host", "a"), 9, 9)
    assert hosts() == ["b"]
    put(store, 20, [("a", 3, {"f": 1.0})])
    assert hosts() == ["a", "b"]
    delete(store, 21, TagMatches("host", "."))
    assert (hosts(), shard.measurements(), shard.tag_keys("m")) == ([], [], frozenset())
    assert purge(store) == 2 and list(tmp_path.rglob("0*.parquet")) == []
    store.close()


def test_rewriting_a_file_takes_out_what_is_deleted_and_readers_keep_the_old_one(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"f": 1.0}), ("b", 1, {"f": 2.0})])
    store.flush()
    shard = store.shard(1)
    reader = shard.scan(
        ScanRequest(measurement="m", predicate=EVERY_SERIES, min_ns=MIN_NS, max_ns=MAX_NS, fields=["f"])
    )
    first = next(reader)
    delete(store, 10, TagEquals("host", "a"))
    assert (shard.purge(10), shard.purge(11), shard.purge(11)) == (0, 1, 0)
    assert [path.name for path in sorted(tmp_path.rglob("0*.parquet"))] == ["00000001.parquet", "00000002.parquet"]
    assert len(first.time_ns) == 2
    reader.close()
    assert [path.name for path in tmp_path.rglob("0*.parquet")] == ["00000002.parquet"]
    assert scan(shard) == [(series_of("b"), 1, {"f": 2.0})]
    assert (shard.forget_tombstones(11), shard.tombstones) == (0, 0)
    assert [one.tag("host") for one in shard.series("m", EVERY_SERIES).parsed()] == ["b"]
    store.close()


def test_a_deletion_is_kept_while_older_rows_are_in_memory_or_may_come(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 1, [("a", 1, {"f": 1.0}), ("b", 1, {"f": 2.0})])
    delete(store, 10, TagEquals("host", "a"))
    shard = store.shard(1)
    assert shard.forget_tombstones(100) == 1
    store.flush()
    put(store, 50, [("b", 2, {"f": 2.0})])
    assert shard.forget_tombstones(9) == 1
    assert shard.forget_tombstones(100) == 0
    assert scan(shard) == [(series_of("b"), 1, {"f": 2.0}), (series_of("b"), 2, {"f": 2.0})]
    store.close()


def test_nothing_is_past_while_a_log_file_may_bring_it_back() -> None:
    hour = LATE_BATCH_NS
    horizon = Horizon()
    assert horizon.look([3], 10 * hour) == -hour
    assert horizon.look([3, 4], 20 * hour) == -hour, "nobody knows when 3 was begun"
    assert horizon.look([4], 21 * hour) == 9 * hour, "4 was begun after the look before it was seen"
    assert horizon.look([4, 5], 30 * hour) == 9 * hour
    assert horizon.look([5], 31 * hour) == 20 * hour
    assert horizon.look([], 31 * hour) == 30 * hour
