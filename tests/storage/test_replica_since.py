"""What is newer than a version, compared and exchanged without reading what is older; digests that adopting makes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.columns import Batch, Int32s
from dsdbd.model.digest import series_hashes
from dsdbd.model.scan import TagColumn
from dsdbd.model.series import Series
from dsdbd.model.versions import NODE_BITS, NODES
from dsdbd.storage import Replica, Store
from dsdbd.storage.index import hashes_of_columns
from dsdbd.storage.segment import Segment
from dsdbd.storage.tombstones import Tombstone
from tests.storage.storage_model import KEY, Row, open_store, put

END_NS = 10_000
HOSTS = ("a", "b", "c")
rows = st.lists(
    st.tuples(st.sampled_from(HOSTS), st.integers(0, 20), st.fixed_dictionaries({}, optional={
        "i": st.integers(-5, 5), "s": st.sampled_from(("x", "y"))})).filter(lambda row: bool(row[2])),
    min_size=1, max_size=6, unique_by=lambda row: row[:2],
)  # fmt: skip
steps = st.lists(st.tuples(st.integers(1, 30), rows, st.booleans(), st.booleans()), min_size=1, max_size=8)


def replica_of(store: Store) -> Replica:
    return store.make_replica(KEY, 0, END_NS)


def take(source: Replica, target: Store, **chosen: int) -> int:
    """Give another store the rows of the cells that differ; returns how many were sent."""
    sent, mine = 0, replica_of(target)
    own = mine.digests(**chosen)
    for name, grid in source.digests(**chosen).items():
        if name in own and own[name].total == grid.total:
            continue
        for points in source.export(name, grid.places.tolist(), **chosen):
            sent += len(points)
            lacking = mine.lacking(points)
            if lacking is not None and lacking.versions is not None:
                target.submit(KEY, Batch(int(lacking.versions.max()), (lacking,))).result(20)
    return sent


@settings(max_examples=10, deadline=None)
@given(steps, st.integers(0, 32))
def test_what_is_older_and_what_is_newer_are_all(tmp_path_factory: pytest.TempPathFactory, does, bound: int) -> None:
    """Whatever arrived in whatever order, written out or not: a copy of the two parts is a copy of the whole."""
    home = tmp_path_factory.mktemp("s")
    source, target = open_store(home / "a", merge_files=2), open_store(home / "b")
    try:
        for version, some, flush, both in does:
            put(source, version, some)
            if both:
                put(target, version, some)
            if flush:
                source.flush()
        replica = replica_of(source)
        for points in replica.export("m", since=bound + 1):
            assert points.versions is not None and (points.versions > bound).all()
        take(replica, target, below=bound + 1)
        take(replica, target, since=bound + 1)
        found, wanted = (one.digests() for one in (replica_of(target), replica))
        assert {name: grid.total for name, grid in found.items()} == {name: one.total for name, one in wanted.items()}
    finally:
        source.close()
        target.close()
        shutil.rmtree(home)


def lines(times: range) -> list[Row]:
    return [(HOSTS[at % 3], at, {"i": at, "f": 1.5}) for at in times]


def test_files_of_older_rows_are_not_read(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 10, lines(range(500)))
    store.flush()
    put(store, 20, lines(range(500, 510)))
    put(store, 30, lines(range(500, 505)))
    replica = replica_of(store)
    replica.digests()
    for one in store.shard(KEY.shard_id)._measurements["m"].segments:  # type: ignore[union-attr]
        one.path.write_bytes(b"nobody reads this")
        one.close()
    assert replica.digests(since=20)["m"].total != replica.digests(since=30)["m"].total
    assert replica.digests(since=31) == {}
    assert [sum(map(len, replica.export("m", since=since))) for since in (20, 30, 31)] == [10, 5, 0]
    assert store.problems() == []
    store.close()


@settings(max_examples=10, deadline=None)
@given(steps, st.integers(0, 20), st.integers(1, 3))
def test_only_what_one_node_gave_is_taken(
    tmp_path_factory: pytest.TempPathFactory, does, bound: int, node: int
) -> None:
    """Of other nodes nothing is taken, and of this one nothing is left."""
    home = tmp_path_factory.mktemp("s")
    source, target = open_store(home / "a", merge_files=2), open_store(home / "b")
    try:
        for turn, (version, some, flush, both) in enumerate(does):
            put(source, version << NODE_BITS | turn % 3 + 1, some)
            if both:
                put(target, version << NODE_BITS | turn % 3 + 1, some)
            if flush:
                source.flush()
        chosen = {"since": bound << NODE_BITS, "coordinator": node}
        sent = [points.versions for points in replica_of(source).export("m", **chosen)]
        assert all((versions & (NODES - 1) == node).all() for versions in sent)
        take(replica_of(source), target, **chosen)
        mine = [points.versions for points in replica_of(target).export("m")]
        newer = {version for found in mine for version in found.tolist()}
        assert {version for found in sent for version in found.tolist()} <= newer
    finally:
        source.close()
        target.close()
        shutil.rmtree(home)


def test_the_digest_of_a_file_is_known_when_it_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    put(source, 10, [*lines(range(300)), ("", 5, {"i": 1}), ("with, space=", 6, {"s": "text"})])
    put(source, 11, lines(range(200)), measurement="deleted")
    replica = replica_of(target)
    target.delete(KEY, [Tombstone("deleted", None, 50, 60, 20)])
    with replica_of(source).files() as held:
        for number, one in enumerate(held.files):
            part = replica.shard.directory / f"{number}.part.tmp"
            part.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(one.path, part)
            replica.adopt(one.measurement, part)
    read = []
    original = Segment.read_group
    monkeypatch.setattr(Segment, "read_group", lambda one, *rest: read.append(one.measurement) or original(one, *rest))
    assert replica.digests(["m"])["m"].total == replica_of(source).digests(["m"])["m"].total
    assert read.count("m") == 1, "only the source reads its file"
    # A deletion hides some of the file's rows: what was made of all of them does not count.
    assert replica.digests(["deleted"])["deleted"].total != replica_of(source).digests(["deleted"])["deleted"].total
    source.delete(KEY, [Tombstone("deleted", None, 50, 60, 20)])
    assert replica.digests(["deleted"])["deleted"].total == replica_of(source).digests(["deleted"])["deleted"].total
    source.close()
    target.close()


def test_hashes_of_columns_are_those_of_keys() -> None:
    texts = {"host": ["a b", "", "c=d,e"], "zone": ["", "", "z"]}
    tags = {}
    for name, values in texts.items():
        known = sorted({value for value in values if value})
        codes: Int32s = np.array([known.index(value) if value else -1 for value in values], dtype=np.int32)
        tags[name] = TagColumn(codes, known)
    series = [
        Series("m x", tuple((name, values[row]) for name, values in texts.items() if values[row])) for row in range(3)
    ]
    found = hashes_of_columns("m x", tags, 3)
    assert found is not None and found.tolist() == series_hashes([one.key() for one in series]).tolist()
    nothing = hashes_of_columns("m", {}, 1)
    assert nothing is not None and nothing.tolist() == series_hashes([b"m"]).tolist()
    odd = {"host": TagColumn(np.zeros(1, dtype=np.int32), ["back\\slash"])}
    assert hashes_of_columns("m", odd, 1) is None


def test_steps_do_not_change_a_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 10, lines(range(3_000)))
    whole = replica_of(store).digests()["m"].total
    monkeypatch.setattr("dsdbd.model.digest._STEP_ROWS", 7)
    again = open_store(tmp_path / "b")
    put(again, 10, lines(range(3_000)))
    assert replica_of(again).digests()["m"].total == whole
    store.close()
    again.close()
