"""Kept writes that travel together: as if each had come alone, and none is left out or sent in another's place."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.cluster.parcels import MOST_BYTES, MOST_PARCELS, make_parcels
from dsdbd.model.columns import Batch, decode_batch, encode_batch
from dsdbd.storage import Record, RecordKind, ShardKey
from tests.examples import examples
from tests.storage.storage_model import make_batch, make_points, open_store, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from dsdbd.storage import Store

VALUES = st.fixed_dictionaries(
    {}, optional={"f": st.floats(-9, 9), "i": st.integers(-9, 9), "s": st.sampled_from("ab")}
)
ROWS = st.lists(
    st.tuples(st.sampled_from(["h1", "h2", "h3"]), st.integers(0, 5), VALUES.filter(bool)), min_size=1, max_size=6
)
WRITES = st.lists(st.tuples(st.sampled_from(["m", "n"]), ROWS), min_size=1, max_size=12)
NUMBERS = itertools.count(1)


def kept(payload: bytes, shard: int = 1, kind: RecordKind = RecordKind.WRITE) -> Record:
    return Record(kind, ShardKey("db", "autogen", shard), payload)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    first, second = (open_store(tmp_path_factory.mktemp("parcels")) for _ in range(2))
    yield first, second
    first.close()
    second.close()


@settings(max_examples=examples(25), deadline=None)
@given(writes=WRITES, order=st.randoms(use_true_random=False))
def test_a_copy_that_gets_writes_together_is_the_same(
    stores: tuple[Store, Store], writes: list[tuple[str, list]], order: Random
) -> None:
    alone, together = stores
    key = ShardKey("db", "autogen", next(NUMBERS))
    batches = [make_batch(version, rows, name) for version, (name, rows) in enumerate(writes, 1)]
    for batch in batches:
        alone.submit(key, batch).result(20)
    order.shuffle(batches)
    records = [Record(RecordKind.WRITE, key, encode_batch(batch)) for batch in batches]
    (parcel,) = make_parcels(records, len(records)) if len(records) > 1 else make_parcels(records, 2)
    assert parcel.places == tuple(range(len(records)))
    together.submit(key, decode_batch(parcel.record.payload)).result(20)
    sums = []
    for store in stores:
        grids = store.make_replica(key, 0, 1 << 40).digests(["m", "n"])
        sums.append({name: grid.total for name, grid in grids.items()})
    assert sums[0] == sums[1] and any(sums[0].values())


@given(
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["small", "large", "bad", "delete"])), max_size=80),
    st.integers(1, 80),
)
def test_every_record_is_in_one_parcel_of_its_shard(those: list[tuple[int, str]], most: int) -> None:
    small = encode_batch(make_batch(7, [("h1", 1, {"i": 1})]))
    payloads = {"small": small, "large": bytes(MOST_BYTES + 1), "bad": b"no batch", "delete": small}
    records = [
        kept(payloads[what], shard, RecordKind.DELETE if what == "delete" else RecordKind.WRITE)
        for shard, what in those
    ]
    parcels = make_parcels(records, most)
    places = sorted(place for parcel in parcels for place in parcel.places)
    assert places == list(range(len(places))), "the first ones, without a gap"
    assert len(places) <= most and len(parcels) <= MOST_PARCELS and bool(places) == bool(records)
    assert len(places) == min(most, len(records)) or len(parcels) == MOST_PARCELS
    for parcel in parcels:
        assert {records[place].key for place in parcel.places} == {parcel.record.key}
        if len(parcel.places) == 1:
            assert parcel.record == records[parcel.places[0]], "as it is"
        else:
            assert {those[place][1] for place in parcel.places} == {"small"}
            assert len(decode_batch(parcel.record.payload)) == len(parcel.places)


def test_rows_of_one_version_that_count_in_their_order_are_left_in_it() -> None:
    first = make_points([("h1", 1, {"i": 1, "f": 1.0})])
    later = make_points([("h1", 1, {"i": 2})])
    twice = encode_batch(Batch(5, (first, later)))
    other = encode_batch(make_batch(6, [("h2", 1, {"i": 9})]))
    parcels = make_parcels([kept(other), kept(twice), kept(other)], 3)
    assert sorted(parcel.places for parcel in parcels) == [(0, 2), (1,)]
    assert next(parcel for parcel in parcels if parcel.places == (1,)).record.payload == twice


def test_each_row_has_the_version_of_its_write() -> None:
    batches = [make_batch(version, [("h1", version, {"f": 0.5})]) for version in (30, 10, 20)]
    (parcel,) = make_parcels([kept(encode_batch(batch)) for batch in batches], 3)
    united = decode_batch(parcel.record.payload)
    (points,) = united.points
    assert united.version == 30 and points.versions is not None
    assert points.versions.tolist() == [30, 10, 20] == points.time_ns.tolist()
    assert len(points.series) == 1 and len(rows_of(points)) == 3
