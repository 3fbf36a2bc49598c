"""Names, merge choice, series index and segment files, each by itself."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Column
from dsdbd.model.predicate import AllOf, AnyOf, TagEquals, TagMatches, TagPredicate, matches
from dsdbd.model.series import Series
from dsdbd.model.types import FieldType
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.merging import choose_merge, parse_segment_name, segment_name, superseded
from dsdbd.storage.names import MAX_NAME_BYTES, escape_name
from dsdbd.storage.rows import Rows
from dsdbd.storage.segment import ROW_GROUP_ROWS, Segment, column_names, row_group_bounds, write_segment
from tests.examples import examples

# --- names


@given(st.lists(st.text(), unique=True, min_size=2, max_size=8))
def test_names_are_safe_and_stay_apart(names: list[str]) -> None:
    escaped = [escape_name(name) for name in names]
    assert len(set(escaped)) == len(names)
    for name in escaped:
        assert re.fullmatch(r"[A-Za-z0-9_%~-][A-Za-z0-9_%~.-]*", name) and len(name) <= MAX_NAME_BYTES
        assert not name.endswith(".tmp") and name != "corrupt"


def test_awkward_names() -> None:
    assert escape_name("cpu_load-1.5") == "cpu_load-1.5"
    assert [escape_name(name) for name in ("..", ".", "", "a/b", "a.tmp", "corrupt")] == [
        "%2E.",
        "%2E",
        "%",
        "a%2Fb",
        "a%2Etmp",
        "%63orrupt",
    ]
    long = [escape_name("x" * 5_000 + tail) for tail in "ab"]
    assert long[0] != long[1] and all(len(name) == MAX_NAME_BYTES for name in long)


# --- merging


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_segment_names_come_back(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert parse_segment_name(segment_name(low, high)) == (low, high)


@pytest.mark.parametrize("name", ["1.parquet", "00000001.parquet.tmp", "x.parquet", "00000001-2.parquet", "shard.json"])
def test_other_files_are_no_segments(name: str) -> None:
    assert parse_segment_name(name) is None


def test_only_ranges_inside_others_are_superseded() -> None:
    assert superseded([(1, 1), (2, 2), (1, 3), (4, 4), (5, 9), (6, 6)]) == {(1, 1), (2, 2), (6, 6)}


@settings(max_examples=examples(50))
@given(st.lists(st.integers(1, 40 << 20), min_size=1, max_size=150))
def test_the_number_of_small_segments_stays_bounded(flushed: list[int]) -> None:
    """Each flush adds a segment and each merge makes one of several, as the shard does it."""
    fan, max_bytes = 4, 64 << 20
    sizes: list[int] = []
    written = 0
    for size in flushed:
        sizes.append(size)
        while (choice := choose_merge(sizes, fan=fan, max_bytes=max_bytes)) is not None:
            low, high = choice
            assert high - low >= fan and sum(sizes[low:high]) <= max_bytes
            written += sum(sizes[low:high])
            sizes[low:high] = [sum(sizes[low:high])]
    total = sum(flushed)
    # Any ``fan`` neighbours that are still apart are together too big to be merged, or wait for their tier to fill.
    assert len(sizes) <= fan * 8 + fan * 4 * total / max_bytes
    assert written <= 8 * total


# --- index

tags = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", "xy", "z"]), max_size=3)
predicates = st.recursive(
    st.one_of(
        st.builds(TagEquals, st.sampled_from("abcd"), st.sampled_from(["", "x", "y", "q"]), st.booleans()),
        st.builds(TagMatches, st.sampled_from("abcd"), st.sampled_from(["x", "^$", ".*", "^x|z$"]), st.booleans()),
    ),
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(tags, max_size=12), predicates)
def test_the_index_agrees_with_the_predicate(many: list[dict[str, str]], predicate: TagPredicate) -> None:
    index = SeriesIndex()
    index.numbers(Series("m", tuple(sorted(one.items()))).key() for one in many)
    chosen = index.select(predicate).tolist()
    assert chosen == [number for number, series in enumerate(index.series) if matches(predicate, series)]
    ordered = [index.series[number].key() for number in index.in_key_order(index.select(predicate)).tolist()]
    assert ordered == sorted(ordered) and len(ordered) == len(chosen)


def test_key_order_of_many_series_follows_new_ones() -> None:
    index = SeriesIndex()
    for count in (400, 800):
        index.numbers(b"m,a=%d" % (number * 7919 % 1000) for number in range(count))
        ordered = [index.series[n].key() for n in index.in_key_order(np.arange(len(index), dtype=np.int64)).tolist()]
        assert ordered == sorted(ordered) and len(ordered) == len(index)


# --- segments


def test_clashing_names_get_columns_of_their_own() -> None:
    assert column_names(["a", "time"], ["_version", "a", "a_1", "b"]) == (
        {"a": "a", "time": "time_1"},
        {"_version": "_version_1", "a": "a_2", "a_1": "a_1", "b": "b"},
    )


@given(st.lists(st.text("ab_1", max_size=3), unique=True), st.lists(st.text("ab_1", max_size=3), unique=True))
def test_columns_are_distinct(tag_keys: list[str], field_keys: list[str]) -> None:
    tag_columns, field_columns = column_names(tag_keys, field_keys)
    names = [*tag_columns.values(), *field_columns.values(), "time", "_version"]
    assert len(set(names)) == len(names) == len(tag_keys) + len(field_keys) + 2


@given(st.lists(st.integers(1, 3 * ROW_GROUP_ROWS), min_size=1, max_size=30))
def test_row_groups_cover_the_rows_and_begin_with_a_series_where_they_can(lengths: list[int]) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    bounds = row_group_bounds(starts, sum(lengths))
    assert bounds[0] == 0 and bounds[-1] == sum(lengths) and bounds == sorted(set(bounds))
    assert all(high - low <= 2 * ROW_GROUP_ROWS for low, high in itertools.pairwise(bounds))
    for start, length in zip(starts.tolist(), lengths, strict=True):
        touched = sum(1 for low, high in itertools.pairwise(bounds) if low < start + length and start < high)
        assert touched <= 2 + length // ROW_GROUP_ROWS


def sample_rows(series: int, each: int) -> Rows:
    count = series * each
    return Rows(
        np.repeat(np.arange(series, dtype=np.int64), each),
        np.tile(np.arange(each, dtype=np.int64) * 1_000_000_007, series),
        np.full(count, 5, dtype=np.int64),
        {
            "usage.idle": Column(FieldType.FLOAT, np.arange(count) / 3, np.arange(count) % 7 != 0),
            "hits": Column(FieldType.INTEGER, np.arange(count) - (1 << 62)),
            "host": Column(FieldType.STRING, pa.array([f"s{row % 5}" for row in range(count)])),
            "up": Column(FieldType.BOOLEAN, np.arange(count) % 2 == 0),
        },
    )


def write_sample(path: Path, series: int = 3, each: int = 50_000) -> Rows:
    names = [Series("m/ü", (("host", f"h{n:02d}"), ("only", "1")) if n else (("host", "h00"),)) for n in range(series)]
    rows = sample_rows(series, each)
    write_segment(path, "m/ü", names, rows)
    return rows


def test_a_segment_is_plain_parquet(tmp_path: Path) -> None:
    path = tmp_path / "00000001.parquet"
    rows = write_sample(path)
    table = pq.read_table(path)
    assert table.column_names == ["host", "only", "time", "hits", "host_1", "up", "usage.idle", "_version"]
    assert table.schema.field("time").type == pa.timestamp("ns", tz="UTC")
    assert pa.types.is_dictionary(table.schema.field("host").type)
    assert table.column("only").null_count == 50_000
    assert table.column("host").slice(50_000, 1).to_pylist() == ["h01"]
    assert table.column("hits").to_pylist() == rows.fields["hits"].values.tolist()
    assert table.column("usage.idle").to_pylist() == rows.fields["usage.idle"].to_arrow().to_pylist()
    assert table.column("time").cast(pa.int64()).to_pylist() == rows.time_ns.tolist()
    assert table.schema.field("host_1").metadata == {b"dsdb.role": b"field", b"dsdb.key": b"host"}
    about = pq.read_metadata(path).row_group(0)
    by_name = {about.column(n).path_in_schema: about.column(n) for n in range(about.num_columns)}
    assert "BYTE_STREAM_SPLIT" in by_name["usage.idle"].encodings
    assert "DELTA_BINARY_PACKED" in by_name["time"].encodings
    assert by_name["time"].compression == "ZSTD"


def test_a_segment_reads_back_in_part(tmp_path: Path) -> None:
    path = tmp_path / "00000001.parquet"
    rows = write_sample(path)
    segment = Segment(path, 1, 1)
    series, starts = segment.read_series()
    assert [one.tag("host") for one in series] == ["h00", "h01", "h02"] and starts.tolist() == [0, 50_000, 100_000]
    assert series[0].tags == (("host", "h00"),) and segment.measurement == "m/ü" and segment.rows == 150_000
    segment.run_series, segment.run_starts = np.array([7, 0, 3]), starts
    wanted = np.zeros(8, dtype=np.bool_)
    wanted[0] = True
    low, high = int(rows.time_ns[100]), int(rows.time_ns[40_000])
    part = segment.read(wanted, low, high, ["hits", "usage.idle", "absent"])
    assert sorted(part.fields) == ["hits", "usage.idle"]
    assert part.series.tolist() == [0] * 39_901
    expected = rows.take(np.arange(50_100, 90_001))
    assert part.time_ns.tolist() == expected.time_ns.tolist()
    for key in part.fields:
        assert part.fields[key].to_arrow().to_pylist() == expected.fields[key].to_arrow().to_pylist()
    assert len(segment.read(np.zeros(8, dtype=np.bool_), low, high, ["hits"])) == 0
    assert len(segment.read(None, low, low, [])) == 3


@pytest.mark.slow
def test_no_flipped_byte_is_read_as_good_data(tmp_path: Path) -> None:
    """Damage raises CorruptData or changes nothing; it never changes a value that is handed out."""
    path = tmp_path / "00000001.parquet"
    rows = write_sample(path, 3, 40)
    data = path.read_bytes()
    caught = 0
    for at in range(0, len(data), 11):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        try:
            segment = Segment(path, 1, 1)
            found, starts = segment.read_series()
            segment.run_series, segment.run_starts = np.arange(len(found)), starts
            if len(found) == 3:
                read = segment.read(None, -(1 << 63), (1 << 63) - 1, list(rows.fields))
                pages_end = pq.read_metadata(path).serialized_size
                if at < len(data) - pages_end - 8:
                    assert read.time_ns.tolist() == rows.time_ns.tolist()
                    for key, column in read.fields.items():
                        assert column.to_arrow().equals(rows.fields[key].to_arrow())
        except CorruptData as error:
            assert str(path) in error.message
            caught += 1
    assert caught > len(data) / 11 * 0.3


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 100, b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_files_that_are_no_segments(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "00000001.parquet"
    path.write_bytes(content)
    with pytest.raises(CorruptData):
        Segment(path, 1, 1)


def test_parquet_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "00000001.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(CorruptData):
        Segment(path, 1, 1)
