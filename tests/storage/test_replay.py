"""Replaying a log: what it recognises, what it reads ahead, and what it gets ready afterwards."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Batch, Column, Points, decode_batch, decode_keys, decode_lazily, encode_batch
from dsdbd.model.predicate import EVERY_SERIES
from dsdbd.model.types import FieldType
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.key_blocks import KeyBlock, KnownNumbers
from tests.examples import examples
from tests.storage.storage_model import KEY, eventually, open_store, scan

LISTS = st.lists(
    st.lists(st.integers(0, 300).map(lambda number: f"m,a={number % 7},id=x{number}".encode()), max_size=150),
    max_size=6,
)


def block_of(keys: list[bytes], known: KnownNumbers, measurement: str = "m") -> KeyBlock:
    return KeyBlock(msgspec.msgpack.encode(keys), len(keys), 1, measurement, known)


@settings(max_examples=examples(60))
@given(LISTS, st.booleans())
def test_blocks_get_the_numbers_their_keys_get(lists: list[list[bytes]], ahead: bool) -> None:
    known = KnownNumbers()
    index, plain = SeriesIndex(), SeriesIndex()
    for keys in [*lists, *lists]:
        block = block_of(keys, known)
        if ahead:
            block.parse_new()
        assert list(block) == keys and len(block) == len(keys)
        assert index.numbers(block).tolist() == plain.numbers(keys).tolist()
    assert list(index.keys) == list(plain.keys)


def test_what_is_known_is_bounded_and_can_be_forgotten() -> None:
    known = KnownNumbers(kept_bytes=4 * 250)
    first, second, third = ([f"m,id={block}-{row}".encode() for row in range(100)] for block in range(3))
    index = SeriesIndex()
    for keys in (first, second, third):
        index.numbers(block_of(keys, known))
    assert [block_of(keys, known).numbers() is not None for keys in (first, second, third)] == [False, True, True]
    # The same list of another measurement is another list.
    assert block_of(third, known, "other").numbers() is None
    known.clear()
    assert block_of(third, known).numbers() is None


@pytest.mark.parametrize("count", [0, 3, 20, 70_000])
def test_keys_are_counted_without_decoding(count: int) -> None:
    series = tuple(b"m,id=%d" % number for number in range(count))
    index = np.arange(count, dtype=np.int32)
    points = Points(
        "m", series, index, index.astype(np.int64), {"f": Column(FieldType.FLOAT, index.astype(np.float64))}
    )
    encoded = encode_batch(Batch(7, (points,)))
    counted: list[int] = []

    def keys(measurement: str, block: bytes | memoryview, length: int) -> list[bytes]:
        assert measurement == "m"
        counted.append(length)
        return decode_keys(block)

    batch = decode_lazily(memoryview(encoded), keys)
    assert counted == [count] and tuple(batch.points[0].series) == series == decode_batch(encoded).points[0].series


@pytest.mark.parametrize("keys", [7, {"a": 1}, [1, 2], ["text"], None])
def test_what_is_no_list_of_keys_is_damage(keys: object) -> None:
    encoded = encode_batch(Batch(7, (Points("m", (), np.empty(0, np.int32), np.empty(0, np.int64), {}),)))
    content = msgspec.msgpack.decode(encoded)
    content[2][0][1] = keys
    with pytest.raises(CorruptData):
        decode_batch(msgspec.msgpack.encode(content))
    with pytest.raises(CorruptData):
        decode_lazily(msgspec.msgpack.encode(content), lambda _, block, __: decode_keys(block))


def test_a_log_of_repeated_series_comes_back_and_its_index_is_ready(tmp_path: Path) -> None:
    hosts = [f"h{number:04d}" for number in range(500)]
    store = open_store(tmp_path)
    for tick in range(6):
        rows = hosts[tick % 2 :]
        index = np.arange(len(rows), dtype=np.int32)
        series = tuple(b"m,host=%s,zone=z%s" % (host.encode(), host[-1:].encode()) for host in rows)
        values = {"f": Column(FieldType.FLOAT, index.astype(np.float64) + tick)}
        times = np.full(len(rows), tick, dtype=np.int64)
        store.submit(KEY, Batch(tick + 1, (Points("m", series, index, times, values),))).result(20)
    before = scan(store.shard(1))
    store.close()
    assert len(before) == 500 * 6 - 3
    store = open_store(tmp_path)
    assert scan(store.shard(1)) == before
    store.close(write_out_s=20.0)
    store = open_store(tmp_path)
    # Nobody asked: the index is built in the background.
    eventually(lambda: store.stats()["shards"][1]["series"] == 500)
    assert len(store.shard(1).series("m", EVERY_SERIES)) == 500
    assert scan(store.shard(1)) == before
    store.close()
