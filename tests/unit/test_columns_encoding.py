"""Encoded points are what any reader of Arrow IPC streams expects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from dsdbd.model.columns import (
    Batch,
    Column,
    Points,
    decode_batch,
    decode_keys,
    decode_lazily,
    encode_batch,
    encode_points,
)
from dsdbd.model.types import FieldType


def points(rows: int) -> Points:
    some = np.arange(rows) % 2 == 0
    fields = {
        "a": Column(FieldType.FLOAT, np.arange(rows) / 4),
        "b": Column(FieldType.INTEGER, np.arange(rows), some),
        "c": Column(FieldType.STRING, pa.array([f"text {row}" for row in range(rows)], pa.string())),
        "d": Column(FieldType.BOOLEAN, some),
    }
    return Points("m", (b"m",), np.zeros(rows, np.int32), np.arange(rows), fields)


def test_encoded_points_are_the_bytes_of_a_stream_writer() -> None:
    for rows in (0, 1, 7, 100):
        encoded = encode_points(points(rows))
        with pa.ipc.open_stream(encoded) as reader:
            schema, table = reader.schema, reader.read_all()
        assert schema.names == ["series", "time", "f:a", "f:b", "f:c", "f:d"]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table)
        if rows:
            assert sink.getvalue().to_pybytes() == encoded
        assert table["f:c"].to_pylist() == [f"text {row}" for row in range(rows)]
        assert table["f:b"].to_pylist() == [None if row % 2 else row for row in range(rows)]


def test_points_of_equal_names_and_other_types_have_a_schema_of_their_own() -> None:
    for kind, values in ((FieldType.FLOAT, np.ones(1)), (FieldType.INTEGER, np.ones(1, np.int64))):
        one = Points("m", (b"m",), np.zeros(1, np.int32), np.zeros(1, np.int64), {"v": Column(kind, values)})
        with pa.ipc.open_stream(encode_points(one)) as reader:
            assert Column.from_arrow(reader.read_all()["f:v"]).type is kind


def test_points_of_numbers_only_are_the_same_bytes_each_time() -> None:
    for rows in (1, 2, 7, 100):
        for values in (np.arange(rows) / 4, np.arange(2 * rows)[::2] * -1.5):
            fields = {"a": Column(FieldType.FLOAT, values), "b": Column(FieldType.INTEGER, np.arange(rows)[::-1])}
            one = Points("m", (b"m",), np.arange(rows, dtype=np.int32), np.arange(rows) * 3, fields)
            first, second = encode_points(one), encode_points(one)
            assert first == second
            table = pa.ipc.open_stream(second).read_all()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            assert sink.getvalue().to_pybytes() == second
            assert table["series"].to_pylist() == list(range(rows))
            assert table["time"].to_pylist() == [3 * row for row in range(rows)]
            assert table["f:a"].to_pylist() == values.tolist()
            assert table["f:b"].to_pylist() == list(reversed(range(rows)))


def test_a_column_that_lacks_values_is_told_from_one_that_has_all() -> None:
    whole = Points(
        "m", (b"m",), np.zeros(2, np.int32), np.zeros(2, np.int64), {"v": Column(FieldType.FLOAT, np.ones(2))}
    )
    part = Column(FieldType.FLOAT, np.ones(2), np.array([True, False]))
    for _ in range(2):
        for column, expected in ((whole.fields["v"], [1.0, 1.0]), (part, [1.0, None])):
            points = Points("m", whole.series, whole.series_index, whole.time_ns, {"v": column})
            assert pa.ipc.open_stream(encode_points(points)).read_all()["f:v"].to_pylist() == expected


def test_versions_of_rows_travel_with_them_and_change_nothing_where_there_are_none() -> None:
    versions = np.array([5, 3, (1 << 62) + 1, -4], np.int64)
    plain = points(4)
    own = replace(plain, versions=versions)
    table = pa.ipc.open_stream(encode_points(own)).read_all()
    assert table.schema.names == ["series", "time", "f:a", "f:b", "f:c", "f:d", "version"]
    encoded = encode_batch(Batch(own.newest_version(0), (own, plain)))
    for batch in (decode_batch(encoded), decode_lazily(encoded, lambda name, keys, count: decode_keys(keys))):
        assert batch.version == (1 << 62) + 1
        assert batch.points[0].versions is not None and batch.points[0].versions.tolist() == versions.tolist()
        assert batch.points[1].versions is None and set(batch.points[0].fields) == {"a", "b", "c", "d"}
    rows = np.array([2, 0])
    for some in (own.take(rows), own.select(rows)):
        assert some.versions is not None and some.versions.tolist() == [(1 << 62) + 1, 5]
    assert plain.take(rows).versions is None and plain.newest_version(7) == 7
    # Who cannot read versions must not take such a batch for one without.
    assert (encode_batch(Batch(1, (plain,)))[1], encoded[1]) == (2, 3)


def test_a_field_named_version_is_no_version() -> None:
    column = Column(FieldType.INTEGER, np.arange(2))
    one = Points("m", (b"m",), np.zeros(2, np.int32), np.arange(2), {"version": column}, np.array([8, 9]))
    (back,) = decode_batch(encode_batch(Batch(9, (one,)))).points
    assert back.versions is not None and back.versions.tolist() == [8, 9]
    assert back.fields["version"].values.tolist() == [0, 1]
