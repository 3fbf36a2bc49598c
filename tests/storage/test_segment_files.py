"""Segment files, each by itself: what is written comes back, in part and whole, and damage is noticed."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Column, Int64s
from dsdbd.model.scan import SeriesSet
from dsdbd.model.series import Series
from dsdbd.model.types import FieldType
from dsdbd.storage import segment_columns, segment_format
from dsdbd.storage.block import Block
from dsdbd.storage.cache import ColumnCache
from dsdbd.storage.rows import Rows
from dsdbd.storage.segment import Segment, write_segment
from dsdbd.storage.segment_format import ROW_GROUP_ROWS, column_names, group_end
from dsdbd.storage.segment_write import SegmentWriter


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
    rows = sum(lengths)
    bounds = [0]
    while bounds[-1] < rows:
        end = group_end(starts, bounds[-1], rows, final=True)
        assert end is not None and bounds[-1] < end <= min(rows, bounds[-1] + 2 * ROW_GROUP_ROWS)
        # What is known of the rows that came so far is enough, or is waited for; later rows change nothing.
        for known in (end, end + 1, end + ROW_GROUP_ROWS):
            early = group_end(starts[starts < known], bounds[-1], min(known, rows), final=False)
            assert early in (None, end)
        bounds.append(end)
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


def sample_series(series: int) -> SeriesSet:
    names = [Series("m/ü", (("host", f"h{n:02d}"), ("only", "1")) if n else (("host", "h00"),)) for n in range(series)]
    return SeriesSet.of("m/ü", names)


def write_sample(path: Path, series: int = 3, each: int = 50_000) -> Rows:
    rows = sample_rows(series, each)
    write_segment(path, sample_series(series), rows)
    return rows


def series_of_runs(segment: Segment) -> list[Series]:
    """The series of each run, in row order."""
    columns = [[(key, text) for text in column.to_arrow().to_pylist()] for key, column in segment.read_tags().items()]
    rows = zip(*columns, strict=True) if columns else [()] * len(segment.run_starts)
    return [Series(segment.measurement, tuple(tag for tag in row if tag[1] is not None)) for row in rows]


def open_sample(path: Path, cache_bytes: int = 64 << 20) -> Segment:
    """The segment with its series numbered 0, 1, 2 … in row order."""
    segment = Segment(path, 1, 1, ColumnCache(cache_bytes))
    segment.number_series(np.arange(len(series_of_runs(segment)), dtype=np.int64))
    return segment


def ranges(*pairs: tuple[int, int]) -> tuple[Int64s, Int64s]:
    starts, stops = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return starts, stops


def assert_equal_columns(one: Column, other: Column) -> None:
    assert one.type is other.type
    assert one.to_arrow().to_pylist() == other.to_arrow().to_pylist()


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
    assert [table.schema.field(name).nullable for name in ("usage.idle", "hits", "time")] == [True, False, False]
    about = pq.read_metadata(path).row_group(0)
    by_name = {about.column(n).path_in_schema: about.column(n) for n in range(about.num_columns)}
    assert "BYTE_STREAM_SPLIT" in by_name["usage.idle"].encodings
    assert "DELTA_BINARY_PACKED" in by_name["time"].encodings
    assert by_name["time"].compression == "ZSTD"


def test_a_segment_tells_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "00000001.parquet"
    rows = write_sample(path)
    segment = Segment(path, 1, 1, ColumnCache(1 << 20))
    series, starts = series_of_runs(segment), segment.run_starts
    assert [one.tag("host") for one in series] == ["h00", "h01", "h02"] and starts.tolist() == [0, 50_000, 100_000]
    assert series[0].tags == (("host", "h00"),) and segment.measurement == "m/ü" and segment.rows == 150_000
    tags = segment.read_tags()
    assert tags["only"].codes.tolist() == [-1, 0, 0] and list(tags["host"].values) == ["h00", "h01", "h02"]
    segment.number_series(np.array([7, 0, 3]))
    runs = segment.runs()
    assert runs.series.tolist() == [7, 0, 3] and runs.starts.tolist() == starts.tolist()
    assert runs.lengths.tolist() == [50_000] * 3 and runs.first_ns.tolist() == [0] * 3
    assert runs.last_ns.tolist() == [int(rows.time_ns[49_999])] * 3
    assert segment.unique and segment.nullable_fields == {"usage.idle"}
    block: Block = segment
    assert block.rows == 150_000


@pytest.mark.parametrize("few_ranges", [0, 32])
def test_ranges_of_rows_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_ranges: int) -> None:
    monkeypatch.setattr(segment_columns, "_FEW_RANGES", few_ranges)
    path = tmp_path / "00000001.parquet"
    rows = write_sample(path)
    scattered = [(at, at + 3) for at in range(5, 150_000 - 3, 611)]
    shapes = [
        [(0, 150_000)],
        [(100, 101)],
        [(40_000, 70_000), (70_000, 99_000), (149_000, 150_000)],
        scattered,
        scattered[::9],
        [],
    ]
    for cache_bytes in (0, 1 << 20, 256 << 20):
        segment = open_sample(path, cache_bytes)
        for shape in shapes:
            starts, stops = ranges(*shape)
            wanted = np.concatenate([np.arange(a, b) for a, b in shape] or [np.empty(0, dtype=np.int64)])
            expected = rows.take(wanted)
            segment.prepare(starts, stops, ["hits", "host"])
            assert segment.times(starts, stops).tolist() == expected.time_ns.tolist()
            assert segment.versions(starts, stops).tolist() == expected.version.tolist()
            by_range = [time for times in segment.times_of_each(starts, stops) for time in times.tolist()]
            assert by_range == expected.time_ns.tolist()
            for key in rows.fields:
                assert_equal_columns(segment.column(key, starts, stops), expected.fields[key])


def test_whole_row_groups_are_views_and_reads_are_shared(tmp_path: Path) -> None:
    path = tmp_path / "00000001.parquet"
    write_sample(path)
    cache = ColumnCache(64 << 20)
    segment = Segment(path, 1, 1, cache)
    everything = ranges((0, 150_000))
    segment.prepare(*everything, ["hits"])
    misses = cache.stats()["cache_misses"]
    one, other = (segment.column("hits", *everything).values for _ in range(2))
    assert np.shares_memory(one, other) and np.shares_memory(one, segment.column("hits", *ranges((7, 9))).values)
    assert cache.stats()["cache_misses"] == misses and cache.stats()["cache_bytes"] == 2 * 8 * 150_000
    assert len(cache.files) == 1
    segment.close()
    assert cache.stats()["cache_bytes"] == 0 and len(cache.files) == 0
    assert segment.times(*ranges((0, 2))).tolist() == [0, 1_000_000_007]


def test_narrowed_ranges_hold_every_row_in_time(tmp_path: Path) -> None:
    path = tmp_path / "00000001.parquet"
    rows = write_sample(path, 2, 140_000)
    segment = open_sample(path)
    starts, stops = ranges((0, 60_000), (60_000, 140_000), (150_000, 280_000))
    for low, high in ((0, 10), (60_000, 61_000), (139_999, 139_999), (0, 140_000)):
        min_ns, max_ns = int(rows.time_ns[low]), int(rows.time_ns[min(high, 139_999)])
        narrow = segment.narrowed(starts, stops, min_ns, max_ns)
        assert (narrow[0] < narrow[1]).all() and int((narrow[1] - narrow[0]).sum()) <= 270_000
        kept = np.concatenate([np.arange(a, b) for a, b in zip(*narrow, strict=True)])
        assert len(np.unique(kept)) == len(kept)
        inside = [at for a, b in zip(starts, stops, strict=True) for at in range(a, b)]
        wanted = [at for at in inside if min_ns <= rows.time_ns[at] <= max_ns]
        assert set(wanted) <= set(kept.tolist()) <= set(inside)
    assert len(segment.narrowed(starts, stops, -10, -1)[0]) == 0


def rows_of_length(starts: list[tuple[int, int, int]]) -> Rows:
    """Rows from (series, first time, count)."""
    series = np.concatenate([np.full(count, one, dtype=np.int64) for one, _, count in starts])
    time_ns = np.concatenate([np.arange(first, first + count, dtype=np.int64) for _, first, count in starts])
    values = Column(FieldType.INTEGER, time_ns * 3)
    return Rows(series, time_ns, np.ones(len(series), dtype=np.int64), {"v": values})


def test_rows_in_many_pieces_make_the_same_file(tmp_path: Path) -> None:
    rows = rows_of_length([(0, 0, 70_000), (1, 5, 10), (2, -9, 40_000)])
    files = []
    for pieces in (1, 7, 1000):
        path = tmp_path / f"{pieces}.parquet"
        bounds = np.linspace(0, len(rows), pieces + 1).astype(np.int64)
        with SegmentWriter(path, sample_series(3), {"v": FieldType.INTEGER}, set()) as writer:
            for low, high in itertools.pairwise(bounds):
                writer.append(rows.take(np.arange(low, high)))
            writer.finish()
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]
    segment = open_sample(tmp_path / "1.parquet")
    assert segment.runs().lengths.tolist() == [70_000, 10, 40_000] and segment.unique
    assert segment.runs().first_ns.tolist() == [0, 5, -9]


@pytest.mark.parametrize("split", [1, 2, 3])
def test_a_series_and_time_twice_is_told_also_across_pieces(tmp_path: Path, split: int) -> None:
    rows = Rows(
        np.array([0, 0, 0, 1]), np.array([1, 2, 2, 2]), np.array([1, 1, 2, 1]),
        {"v": Column(FieldType.INTEGER, np.arange(4))},
    )  # fmt: skip
    path = tmp_path / "1.parquet"
    with SegmentWriter(path, sample_series(2), {"v": FieldType.INTEGER}, set()) as writer:
        writer.append(rows.take(np.arange(split)))
        writer.append(rows.take(np.arange(split, 4)))
        writer.finish()
    segment = open_sample(path)
    assert not segment.unique and segment.runs().lengths.tolist() == [3, 1]


def test_thorough_files_are_smaller_where_values_have_few_digits(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    count = 40_000
    fields = {
        "full": chance.normal(size=count).cumsum(),
        "thousandths": np.round(chance.normal(size=count).cumsum(), 3),
        "whole": np.floor(chance.normal(size=count).cumsum()),
        "tenths": np.round(np.abs(chance.normal(size=count).cumsum()) % 100, 1),
    }
    columns = {key: Column(FieldType.FLOAT, values) for key, values in fields.items()}
    columns["status"] = Column(FieldType.INTEGER, chance.choice(np.array([200, 404, 70_000_000]), count))
    columns["counter"] = Column(FieldType.INTEGER, chance.integers(0, 1000, count).cumsum())
    rows = Rows(np.zeros(count, dtype=np.int64), np.arange(count), np.ones(count, dtype=np.int64), columns)
    types = {key: column.type for key, column in columns.items()}
    sizes = []
    for thorough in (False, True):
        path = tmp_path / f"{thorough}.parquet"
        with SegmentWriter(path, sample_series(1), types, set(), thorough=thorough) as writer:
            writer.append(rows)
            writer.finish()
        segment = open_sample(path)
        for key, column in columns.items():
            assert_equal_columns(segment.column(key, *ranges((0, count))), column)
        groups = pq.read_metadata(path).row_group(0)
        sizes.append({
            groups.column(at).path_in_schema: groups.column(at).total_compressed_size
            for at in range(groups.num_columns)
        })  # fmt: skip
    quick, small = sizes
    assert all(small[key] <= quick[key] for key in fields)
    assert small["thousandths"] < 0.7 * quick["thousandths"] and small["status"] < 0.7 * quick["status"]
    assert small["counter"] == quick["counter"]


def test_long_texts_make_short_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdbd.storage.segment_write.ROW_GROUP_BYTES", 10_000)
    texts = Column(FieldType.STRING, pa.array(["x" * 3_000] * 20 + ["y" * 30_000] + ["z"] * 20))
    rows = Rows(np.zeros(41, dtype=np.int64), np.arange(41), np.ones(41, dtype=np.int64), {"s": texts})
    write_segment(tmp_path / "1.parquet", sample_series(1), rows)
    groups = pq.read_metadata(tmp_path / "1.parquet")
    assert groups.num_row_groups > 7
    assert_equal_columns(open_sample(tmp_path / "1.parquet").column("s", *ranges((0, 41))), texts)


def test_series_without_tags_and_many_short_runs(tmp_path: Path) -> None:
    write_segment(tmp_path / "1.parquet", SeriesSet.of("m", [Series("m", ())]), sample_rows(1, 10))
    segment = open_sample(tmp_path / "1.parquet")
    assert series_of_runs(segment) == [Series("m", ())] and segment.tags == {}
    count = 70_000
    names = [Series("m", (("id", f"{number:06d}"),)) for number in range(count)]
    write_segment(tmp_path / "2.parquet", SeriesSet.of("m", names), sample_rows(count, 1))
    segment = open_sample(tmp_path / "2.parquet")
    assert series_of_runs(segment) == names and segment.runs().lengths.tolist() == [1] * count
    # The dictionary of a row group holds the texts of that row group only.
    groups = pq.read_metadata(tmp_path / "2.parquet")
    sizes = [groups.row_group(at).column(0).total_uncompressed_size for at in range(groups.num_row_groups)]
    assert len(sizes) == 3 and max(sizes[:2]) < 1.5 * min(sizes[:2]) and max(sizes) < 20 * ROW_GROUP_ROWS


# --- damage


@pytest.mark.slow
def test_no_flipped_byte_is_read_as_good_data(tmp_path: Path) -> None:
    """Damage raises CorruptData or changes nothing; it never changes a value that is handed out."""
    path = tmp_path / "00000001.parquet"
    rows = write_sample(path, 3, 40)
    data = path.read_bytes()
    everything = ranges((0, 120))
    caught = 0
    for at in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        try:
            segment = open_sample(path)
            assert series_of_runs(segment) == sample_series(3).parsed()
            footer_bytes = pq.read_metadata(path).serialized_size
            for key in segment.fields:
                read = segment.column(key, *everything)
                if at < len(data) - footer_bytes - 8:
                    assert read.to_arrow().equals(rows.fields[key].to_arrow())
            assert at > len(data) - footer_bytes - 8 or segment.times(*everything).tolist() == rows.time_ns.tolist()
        except CorruptData as error:
            assert str(path) in error.message
            caught += 1
    assert caught > len(data) / 7 * 0.3


@pytest.mark.parametrize("error", [pa.ArrowMemoryError("malloc of size 4096 failed"), MemoryError()])
def test_shortage_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: MemoryError) -> None:
    path = tmp_path / "00000001.parquet"
    rows = write_sample(path, 3, 40)
    segment = open_sample(path, 0)
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetFile, "read_row_groups", raising(error))
        with pytest.raises(OSError, match="not enough memory") as caught:
            segment.read_group(0, segment.runs().series)
        assert caught.value.errno == errno.ENOMEM and caught.value.filename == str(path)
        # Nobody has so much: it is a length that is damaged.
        patch.setattr(
            pq.ParquetFile, "read_row_groups", raising(pa.ArrowMemoryError(f"malloc of size {1 << 50} failed"))
        )
        with pytest.raises(CorruptData, match="malloc"):
            segment.read_group(0, segment.runs().series)
    assert len(segment.read_group(0, segment.runs().series)) == len(rows)
    segment.close()


def raising(error: BaseException) -> Callable[..., None]:
    def call(*arguments: object, **options: object) -> None:
        raise error

    return call


def test_damage_in_the_table_of_runs_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "00000001.parquet"
    write_sample(path, 3, 40)
    at = Segment(path, 1, 1)._runs_at
    data = bytearray(path.read_bytes())
    for offset in range(at.offset, at.offset + at.size_bytes, 5):
        data[offset] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptData, match=r"00000001\.parquet cannot be read: the table of its runs"):
            Segment(path, 1, 1).read_tags()
        data[offset] ^= 1


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


def test_an_older_format_is_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "00000001.parquet"
    old = b'{"about": {"format": 1, "measurement": "m", "columns": [], "row_group_times": []}, "crc32": 1}'
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({b"dsdb": old}), path)
    with pytest.raises(CorruptData, match="its format is not 2"):
        Segment(path, 1, 1)


def test_the_table_of_runs_is_the_first_thing_behind_the_pages(tmp_path: Path) -> None:
    path = tmp_path / "00000001.parquet"
    write_sample(path, 3, 40)
    at = Segment(path, 1, 1)._runs_at
    footer_bytes = pq.read_metadata(path).serialized_size
    assert at.offset + at.size_bytes <= path.stat().st_size - footer_bytes - 8
    with path.open("rb") as file:
        file.seek(at.offset)
        table = segment_format.decode_runs(file.read(at.size_bytes))
    assert table.lengths.tolist() == [40] * 3
