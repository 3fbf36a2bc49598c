"""Digests, exports and comparisons of one shard: beside writers, with damaged files, and what they remember."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dsdbd.errors import ShardUnavailable
from dsdbd.model.columns import Batch, Column, Points
from dsdbd.model.predicate import TagEquals
from dsdbd.model.types import FieldType
from dsdbd.storage import Replica, Shard, ShardKey, Store, StoreSettings, digesting
from dsdbd.storage.forgetting import Forgetter
from dsdbd.storage.tombstones import Tombstone
from tests.storage.storage_model import KEY, MAX_NS, MIN_NS, Row, eventually, make_batch, open_store, put, scan

END_NS = 10_000


def rows_at(times: range, value: int = 0) -> list[Row]:
    return [(f"h{at % 5}", at, {"i": at + value, "s": f"t{at % 7}"}) for at in times]


def replica_of(store: Store) -> Replica:
    return store.make_replica(KEY, 0, END_NS)


def total(replica: Replica, measurement: str = "m", **chosen: int) -> int:
    grid = replica.digests([measurement], **chosen).get(measurement)
    return 0 if grid is None else grid.total


def copy_to(replica: Replica, store: Store, measurement: str = "m") -> None:
    """Give another store all rows it lacks."""
    other = replica_of(store)
    for points in replica.export(measurement):
        lacking = other.lacking(points)
        if lacking is not None and lacking.versions is not None:
            store.submit(KEY, Batch(int(lacking.versions.max()), (lacking,))).result(20)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    first, second = open_store(tmp_path / "a", merge_files=2), open_store(tmp_path / "b", merge_files=2)
    yield first, second
    first.close()
    second.close()


def test_digests_beside_writers_are_never_kept_for_newer_content(stores: tuple[Store, Store]) -> None:
    """Writing, writing out, merging and deleting go on while digests are asked for; afterwards they are right."""
    store, other = stores
    replica = replica_of(store)
    failed: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                replica.digests()
                replica.digests(below=150)
                for points in replica.export("m", range(0, 1024, 2)):
                    replica.lacking(points)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        put(store, 100 + 2 * turn, rows_at(range(turn * 20, turn * 20 + 60), turn))
        if turn % 4 == 3:
            store.flush()
        if turn % 8 == 7:
            replica.shard.merge()
            store.delete(KEY, [Tombstone("m", TagEquals("host", "h1"), turn * 5, turn * 9, 101 + 2 * turn)])
    done.set()
    for thread in threads:
        thread.join(60)
    assert not failed and not any(thread.is_alive() for thread in threads)
    copy_to(replica, other)
    other.flush()
    assert total(replica) == total(replica_of(other)) != 0
    assert scan(replica.shard) == scan(other.shard(1))


def test_what_did_not_change_is_not_read_again(stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = stores
    replica = replica_of(store)
    for turn in range(3):
        put(store, 10 + turn, rows_at(range(turn * 100, turn * 100 + 100)))
        store.flush()
    put(store, 20, [("other", 1, {"f": 1.0})], measurement="n")
    before = replica.digests()
    hashed = 0
    original = digesting.row_sums

    def counted(series, times, versions, fields):
        nonlocal hashed
        hashed += len(times)
        return original(series, times, versions, fields)

    monkeypatch.setattr(digesting, "row_sums", counted)
    for chosen in ({}, {"below": 21}, {"min_ns": 0, "max_ns": 300}, {"min_ns": MIN_NS, "max_ns": MAX_NS}):
        assert {name: grid.total for name, grid in replica.digests(**chosen).items()} == {
            name: grid.total for name, grid in before.items()
        }
    changes = replica.shard.changes
    store.flush()
    replica.shard.merge()
    assert replica.digests().keys() == {"m", "n"} and hashed == 0 and replica.shard.changes == changes
    put(store, 30, rows_at(range(500, 510)))
    assert replica.digests()["n"].total == before["n"].total
    assert replica.digests()["m"].total != before["m"].total and 10 <= hashed < 400
    assert total(replica, below=30) == before["m"].total
    # A deletion of a part concerns the files of that part only.
    store.flush()
    replica.digests()
    hashed = 0
    store.delete(KEY, [Tombstone("m", None, 505, 505, 40)])
    assert total(replica) not in (0, before["m"].total) and hashed < 300
    assert replica.digests(["n", "unknown"]).keys() == {"n"}


def test_a_damaged_file_is_found_and_left_out(stores: tuple[Store, Store]) -> None:
    store, _ = stores
    replica = replica_of(store)
    for number in range(4):
        put(store, 10 + number, rows_at(range(number * 100, number * 100 + 100)))
        store.flush()
    whole, points = total(replica), list(replica.export("m"))
    notes: list[str] = []
    for turn in range(3):
        path = min(replica.shard.directory.glob("m/*.parquet"))
        damage(path)
        # A shard that has read nothing of the file yet.
        again = Replica(Shard(KEY, replica.shard.directory, StoreSettings(), notes.append), 0, END_NS)
        if turn == 0:
            assert total(again) not in (0, whole)
        elif turn == 1:
            with pytest.raises(ShardUnavailable, match="read again"):
                list(again.export("m"))
            assert sum(map(len, again.export("m"))) == 200
        else:
            found = [one for one in map(again.lacking, points) if one is not None]
            assert sum(map(len, found)) == 300
        assert not path.exists() and (path.parent / "corrupt" / path.name).exists()
    assert len(notes) == 3


def damage(path: Path) -> None:
    """Change the end of the column of times."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    (column,) = [one for at in range(group.num_columns) if (one := group.column(at)).path_in_schema == "time"]
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 4] ^= 0x55
    path.write_bytes(content)


def test_different_values_of_one_version_become_one(stores: tuple[Store, Store]) -> None:
    """It should not happen that two coordinators give one version; replicas must not differ for ever if it does."""
    for store, value in zip(stores, (1.0, 2.0), strict=True):
        put(store, 5, [("a", 1, {"f": value, "i": 7}), ("b", 1, {"s": str(value)})])
        store.flush()
    first, second = map(replica_of, stores)
    assert total(first) != total(second)
    copy_to(first, stores[1])
    copy_to(second, stores[0])
    for flushed in (False, True):
        assert total(first) == total(second), flushed
        assert scan(first.shard) == scan(second.shard)
        for store in stores:
            store.flush()
            replica_of(store).shard.merge(full=True)
    assert all(one.lacking(points) is None for one in (first, second) for points in second.export("m"))


def test_pieces_are_about_a_megabyte_whatever_is_in_them(stores: tuple[Store, Store]) -> None:
    store, other = stores
    count = 30_000
    fields = {
        "f": Column(FieldType.FLOAT, np.arange(count) / 3),
        "i": Column(FieldType.INTEGER, np.arange(count), np.arange(count) % 3 == 0),
    }
    keys = tuple(f"m,host=h{at:05d}".encode() for at in range(count // 10))
    points = Points("m", keys, np.arange(count, dtype=np.int32) // 10, np.arange(count) % 10, fields)
    store.submit(KEY, Batch(7, (points,))).result(20)
    put(store, 8, [("long", at, {"s": "x" * 60_000}) for at in range(40)])
    found = list(replica_of(store).export("m"))
    assert sum(map(len, found)) == count + 40 and 3 <= len(found) <= 12
    for one in found:
        assert len(set(one.series)) == len(one.series) == len(np.unique(one.series_index))
        assert all(column.valid is None or column.valid.any() for column in one.fields.values())
        text = one.fields.get("s")
        assert len(one) * 40 + (0 if text is None else text.values.nbytes) < 3 << 20
    copy_to(replica_of(store), other)
    assert total(replica_of(store)) == total(replica_of(other))


def test_a_replica_of_nothing_has_nothing(stores: tuple[Store, Store]) -> None:
    store, other = stores
    put(other, 5, rows_at(range(10)))
    (points,) = replica_of(other).export("m")
    replica = replica_of(store)
    assert replica.digests() == {} and list(replica.export("m")) == [] and replica.tombstones() == ()
    assert replica.lacking(points) is points
    assert replica.lacking(points.take(np.arange(0))) is None
    store.delete(KEY, [Tombstone("m", TagEquals("host", "h1"), MIN_NS, MAX_NS, 6)])
    some = replica.lacking(points)
    assert some is not None and len(some) == 8 and not any(b"h1" in key for key in some.series)
    assert replica.tombstones() == (Tombstone("m", TagEquals("host", "h1"), MIN_NS, MAX_NS, 6),)
    assert len(list(replica_of(other).export("m", []))) == 0
    store.retain(lambda key: False)
    with pytest.raises(ShardUnavailable):
        replica.lacking(points)
    assert replica.digests() == {}


def test_adopted_files_wake_the_thread_that_merges(stores: tuple[Store, Store]) -> None:
    store, other = stores
    put(other, 5, rows_at(range(10)))
    replica = replica_of(store)
    replica.shard.directory.mkdir(parents=True)
    with replica_of(other).files() as held:
        for number in range(4):
            path = replica.shard.directory / f"{number}.part"
            path.write_bytes(held.files[0].path.read_bytes())
            replica.adopt("m", path)
    eventually(lambda: store.stats()["merges"] > 0)
    assert total(replica) == total(replica_of(other)) and scan(replica.shard) == scan(other.shard(1))


@pytest.mark.parametrize(("settled", "left"), [(None, 0), (5, 0), (4, 1)])
def test_a_deletion_other_owners_may_lack_is_not_forgotten(tmp_path: Path, settled: int | None, left: int) -> None:
    shard = Shard(KEY, tmp_path / "shard", StoreSettings(), pytest.fail)
    shard.insert(make_batch(1, rows_at(range(3))), 1, 0.0)
    shard.delete(Tombstone("m", None, MIN_NS, MAX_NS, 5))
    (tmp_path / "wal").mkdir()
    asked: list[int] = []

    def version(shard_id: int) -> int:
        asked.append(shard_id)
        return settled or 0

    Forgetter(lambda: [shard], tmp_path / "wal", lambda: 0, None if settled is None else version).look()
    assert shard.tombstones == left and asked == ([] if settled is None else [1])


def test_a_shard_whose_deletions_cannot_be_written_holds_up_no_other(tmp_path: Path) -> None:
    shards = [Shard(ShardKey("db", "rp", n), tmp_path / str(n), StoreSettings(), pytest.fail) for n in range(3)]
    for shard in shards:
        shard.delete(Tombstone("m", None, MIN_NS, MAX_NS, 5))
    (path,) = shards[0].directory.glob("tombstones*")
    path.unlink()
    path.mkdir()
    (tmp_path / "wal").mkdir()
    with pytest.raises(IsADirectoryError):
        Forgetter(lambda: shards, tmp_path / "wal", lambda: 0).look()
    assert [shard.tombstones for shard in shards] == [1, 0, 0]


def test_rows_are_compared_whatever_order_they_come_in(stores: tuple[Store, Store]) -> None:
    store, other = stores
    put(store, 5, rows_at(range(50)))
    put(other, 5, rows_at(range(0, 50, 2)))
    put(other, 6, rows_at(range(10, 12), 100))
    (points,) = replica_of(store).export("m")
    assert points.versions is not None
    shuffled = points.take(np.random.default_rng(3).permutation(len(points)))
    missing = replica_of(other).lacking(shuffled)
    assert missing is not None and sorted(missing.time_ns.tolist()) == [at for at in range(1, 50, 2) if at != 11]
    twice = replace(
        points,
        series_index=np.tile(points.series_index, 2),
        time_ns=np.tile(points.time_ns, 2),
        versions=np.concatenate([points.versions, points.versions + 2]),
        fields={"i": Column(FieldType.INTEGER, np.tile(points.fields["i"].values, 2))},
    )
    again = replica_of(store).lacking(twice)
    assert again is not None and again.versions is not None and set(again.versions.tolist()) == {7}
