"""Streams that are read by a remembered layout hold what a reader of Arrow IPC streams finds in them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Batch, Column, Points, decode_batch, encode_batch, encode_points
from dsdbd.model.stream_layout import layout_of
from dsdbd.model.types import FieldType

ROWS = st.integers(0, 40)
_VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.FLOAT: st.floats(allow_nan=False),
    FieldType.INTEGER: st.integers(-(1 << 63), (1 << 63) - 1),
    FieldType.BOOLEAN: st.booleans(),
    FieldType.STRING: st.text(max_size=3),
}
_DTYPES = {FieldType.FLOAT: np.float64, FieldType.INTEGER: np.int64, FieldType.BOOLEAN: np.bool_}


@st.composite
def columns(draw: st.DrawFn, rows: int) -> Column:
    field_type = draw(st.sampled_from(list(_VALUES)))
    drawn = draw(st.lists(_VALUES[field_type], min_size=rows, max_size=rows))
    values = pa.array(drawn, pa.string()) if field_type is FieldType.STRING else np.array(drawn, _DTYPES[field_type])
    some = draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows))
    return Column(field_type, values, None if some is None else np.array(some, np.bool_))


@st.composite
def some_points(draw: st.DrawFn) -> Points:
    rows = draw(ROWS)
    fields = {name: draw(columns(rows)) for name in draw(st.sets(st.sampled_from("abcd"), max_size=3))}
    own = draw(st.booleans())
    return Points(
        "m",
        (b"m", b"m,t=1"),
        np.arange(rows, dtype=np.int32) % 2,
        np.arange(rows) * 7,
        fields,
        np.arange(rows) + 5 if own else None,
    )


def cells(column: Column) -> list[object]:
    """The values, None where there is none."""
    found: list[object] = column.to_arrow().to_pylist()
    return found


@given(some_points())
def test_what_was_encoded_is_read_back_the_first_time_and_later(points: Points) -> None:
    encoded = encode_batch(Batch(9, (points,)))
    for _ in range(3):
        (back,) = decode_batch(encoded).points
        assert back.series_index.dtype == np.int32 and back.series_index.tolist() == points.series_index.tolist()
        assert back.time_ns.dtype == np.int64 and back.time_ns.tolist() == points.time_ns.tolist()
        assert (back.versions is None) == (points.versions is None)
        assert back.versions is None or back.versions.tolist() == (np.arange(len(points)) + 5).tolist()
        assert list(back.fields) == list(points.fields)
        for name, column in points.fields.items():
            assert back.fields[name].type is column.type
            assert cells(back.fields[name]) == cells(column)


def test_streams_of_numbers_have_a_layout_and_others_none() -> None:
    times, index = np.arange(9), np.zeros(9, np.int32)
    half = np.arange(9) % 2 == 0
    numbers = {"i": Column(FieldType.INTEGER, times, half), "b": Column(FieldType.BOOLEAN, half)}
    texts = {"s": Column(FieldType.STRING, pa.array(["x"] * 9))}
    plain = encode_points(Points("m", (b"m",), index, times, numbers))
    layout = layout_of(plain)
    assert layout is not None and layout is layout_of(bytes(bytearray(plain)))
    assert [one.name for one in layout.places] == ["series", "time", "f:i", "f:b"]
    assert layout_of(encode_points(Points("m", (b"m",), index, times, {**numbers, **texts}))) is None
    assert layout_of(encode_points(Points("m", (b"m",), index[:0], times[:0], {}))) is None


def test_a_compressed_stream_and_one_of_two_batches_are_read_by_the_library() -> None:
    batch = pa.RecordBatch.from_arrays(
        [pa.array([0] * 99, pa.int32()), pa.array(range(99), pa.int64())], names=["series", "time"]
    )
    for count, options in ((1, pa.ipc.IpcWriteOptions(compression="zstd")), (2, pa.ipc.IpcWriteOptions())):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
            for _ in range(count):
                writer.write_batch(batch)
        assert layout_of(sink.getvalue().to_pybytes()) is None


@pytest.mark.parametrize("size", [0, 7, 8, 100, -9, -200])
def test_a_stream_that_was_cut_is_not_read_by_the_layout_of_the_whole(size: int) -> None:
    whole = encode_points(Points("m", (b"m",), np.zeros(50, np.int32), np.arange(50), {}))
    assert layout_of(whole) is not None
    cut = whole[:size]
    assert layout_of(cut) is None
    if size != -9:  # A library reads a stream that only lacks its end mark.
        with pytest.raises(CorruptData):
            decode_batch(msgspec.msgpack.encode([2, 9, [["m", [b"m"], cut]]]))
