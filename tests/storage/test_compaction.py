"""Merging files: the result equals folding all their rows at once, whatever overlaps, and nothing half-done is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Column
from dsdbd.model.scan import SeriesSet
from dsdbd.model.series import Series
from dsdbd.model.types import FieldType
from dsdbd.storage.cache import ColumnCache
from dsdbd.storage.compaction import FREELY, CompactionStopped, Pace, compact, wait_s
from dsdbd.storage.rows import Rows, concat_rows, fold_for_storage, sort_rows
from dsdbd.storage.scanning import DamagedBlock
from dsdbd.storage.segment import Segment, schema_of, write_segment
from tests.examples import examples

SERIES = SeriesSet.of("m", [Series("m", (("host", name),)) for name in "abcd"])
TYPES = {"f": FieldType.FLOAT, "i": FieldType.INTEGER, "s": FieldType.STRING}

cells = st.fixed_dictionaries(
    {}, optional={"f": st.floats(allow_nan=False), "i": st.integers(-9, 9), "s": st.sampled_from(["", "x", "longer"])}
).filter(bool)
points = st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(1, 5), cells)
files = st.lists(st.lists(points, min_size=1, max_size=20), min_size=1, max_size=4)


def rows_of(made: list[tuple]) -> Rows:
    """Rows in arrival order from (series, time, version, values)."""
    fields = {}
    for key in sorted({key for *_, values in made for key in values}):
        valid = np.array([key in values for *_, values in made], dtype=np.bool_)
        given_cells = [values.get(key) for *_, values in made]
        if key == "s":
            column = pa.array(given_cells, pa.string())
        else:
            column = np.array([cell or 0 for cell in given_cells], dtype=np.float64 if key == "f" else np.int64)
        fields[key] = Column(TYPES[key], column, None if valid.all() else valid)
    series, times, versions = (np.array([row[at] for row in made], dtype=np.int64) for at in range(3))
    return Rows(series, times, versions, fields)


def write(path: Path, rows: Rows, number: int) -> Segment:
    runs = write_segment(path, SERIES, fold_for_storage(sort_rows(rows)))
    segment = Segment(path, number, number, ColumnCache(1 << 20))
    segment.number_series(runs)
    return segment


def everything(segment: Segment) -> Rows:
    return segment.read(None, -(1 << 63), (1 << 63) - 1, list(segment.fields))


def assert_equal_rows(one: Rows, other: Rows) -> None:
    for name in ("series", "time_ns", "version"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    for key in {*one.fields, *other.fields}:
        left, right = (
            rows.fields[key].to_arrow().to_pylist() if key in rows.fields else [None] * len(rows)
            for rows in (one, other)
        )
        assert left == right, key


def merged(home: Path, segments: list[Segment], pace: Pace = FREELY) -> Segment:
    path = home / "merged.parquet"
    runs = compact(segments, np.arange(4, dtype=np.int64), SERIES, path, pace)
    result = Segment(path, 1, 99, ColumnCache(1 << 20))
    result.number_series(runs)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("group_rows", [2, 1000])
@settings(deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=files)
def test_merging_files_equals_folding_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[list[tuple]], group_rows: int
) -> None:
    monkeypatch.setattr("dsdbd.storage.segment_format.ROW_GROUP_ROWS", group_rows)
    monkeypatch.setattr("dsdbd.storage.compaction._REFILL_ROWS", group_rows)
    segments = [write(tmp_path / f"{at}.parquet", rows_of(one), at) for at, one in enumerate(made)]
    parts = [everything(segment) for segment in segments]
    expected = fold_for_storage(sort_rows(concat_rows(parts, dict(schema_of(segments)))))
    result = merged(tmp_path, segments)
    assert_equal_rows(everything(result), expected)
    twice = (np.diff(expected.series) == 0) & (np.diff(expected.time_ns) == 0)
    assert result.unique == (not twice.any())
    # Merging in two steps gives the same: no version that still matters was lost.
    if len(segments) > 2:
        (tmp_path / "merged.parquet").rename(tmp_path / "first.parquet")
        half = merged(tmp_path, segments[:2])
        (tmp_path / "merged.parquet").rename(tmp_path / "half.parquet")
        half = Segment(tmp_path / "half.parquet", 1, 2, ColumnCache(1 << 20))
        half.number_series(np.unique(np.concatenate([one.series for one in parts[:2]])))
        assert_equal_rows(everything(merged(tmp_path, [half, *segments[2:]])), expected)


def test_a_field_of_another_type_counts_as_absent(tmp_path: Path) -> None:
    first = write(tmp_path / "1.parquet", rows_of([(0, 1, 1, {"i": 5})]), 1)
    other = Rows(np.array([0]), np.array([2]), np.array([1]), {"i": Column(FieldType.FLOAT, np.array([2.5]))})
    result = everything(merged(tmp_path, [first, write(tmp_path / "2.parquet", other, 2)]))
    assert result.fields["i"].to_arrow().to_pylist() == [5, None]


def test_an_older_row_keeps_only_what_the_newer_lacks(tmp_path: Path) -> None:
    old = write(tmp_path / "1.parquet", rows_of([(0, 1, 1, {"i": 5, "s": "kept"})]), 1)
    new = write(tmp_path / "2.parquet", rows_of([(0, 1, 2, {"i": 6})]), 2)
    assert not old.nullable_fields and not new.nullable_fields
    result = everything(merged(tmp_path, [old, new]))
    assert result.version.tolist() == [1, 2] and result.fields["i"].to_arrow().to_pylist() == [None, 6]
    assert result.fields["s"].to_arrow().to_pylist() == ["kept", None]


def test_rows_can_be_left_out_and_without_any_there_is_no_file(tmp_path: Path) -> None:
    rows = [(host, at, 1, {"i": at}) for host in range(4) for at in range(50)]
    segments = [write(tmp_path / f"{at}.parquet", rows_of(rows[at::3]), at) for at in range(3)]
    path, ranks = tmp_path / "merged.parquet", np.arange(4, dtype=np.int64)
    assert compact(segments, ranks, SERIES, path, FREELY, lambda some: some.take(np.empty(0, dtype=np.int64))) is None
    assert not path.exists()
    runs = compact(
        segments, ranks, SERIES, path, FREELY,
        lambda some: some.take(np.flatnonzero((some.time_ns > 40) & (some.series != 2))),
    )  # fmt: skip
    assert runs is not None and runs.tolist() == [0, 1, 3]
    result = Segment(path, 1, 3)
    result.number_series(runs)
    assert everything(result).time_ns.tolist() == [*range(41, 50)] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.parquet", "1.parquet", "2.parquet", "merged.parquet"
    ]  # fmt: skip


def test_a_merge_can_be_stopped_and_leaves_nothing(tmp_path: Path) -> None:
    segments = [write(tmp_path / f"{at}.parquet", rows_of([(0, at, 1, {"i": at})]), at) for at in range(3)]
    with pytest.raises(CompactionStopped):
        merged(tmp_path, segments, Pace(lambda size_bytes: None, lambda: True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.parquet", "1.parquet", "2.parquet"]


def test_damage_names_the_file_it_was_found_in(tmp_path: Path) -> None:
    segments = [write(tmp_path / f"{at}.parquet", rows_of([(0, at, 1, {"i": at})]), at) for at in range(2)]
    data = bytearray((tmp_path / "1.parquet").read_bytes())
    data[60:200] = bytes(140)
    (tmp_path / "1.parquet").write_bytes(data)
    with pytest.raises(DamagedBlock) as caught:
        merged(tmp_path, segments)
    assert caught.value.block is segments[1] and isinstance(caught.value, CorruptData)
    assert not (tmp_path / "merged.parquet").exists()


def test_many_rows_in_many_groups_are_merged_piece_by_piece(tmp_path: Path) -> None:
    """Two halves of the same series, interleaved in time, and a third file that overwrites some rows of both."""
    count = 100_000
    segments = []
    for at in range(2):
        times = np.tile(np.arange(at, count, 2), 2)
        series = np.repeat(np.array([0, 3]), count // 2)
        rows = Rows(series, times, np.full(count, at + 1), {"i": Column(FieldType.INTEGER, times * 2)})
        segments.append(write(tmp_path / f"{at}.parquet", rows, at))
    times = np.arange(0, count, 1000)
    rows = Rows(np.full(100, 3), times, np.full(100, 9), {"i": Column(FieldType.INTEGER, times * 0 - 1)})
    segments.append(write(tmp_path / "2.parquet", rows, 2))
    told: list[int] = []
    result = merged(tmp_path, segments, Pace(told.append, lambda: False))
    assert result.unique and result.runs().lengths.tolist() == [count, count] and not result.nullable_fields
    assert len(told) == result.row_groups and sum(told) == result.memory_bytes
    found = everything(result)
    expected = np.arange(count) * 2
    assert (found.fields["i"].values[:count] == expected).all()
    expected[::1000] = -1
    assert (found.fields["i"].values[count:] == expected).all()
    assert (found.version[count:][::1000] == 9).all()


def test_the_pace_is_kept() -> None:
    assert wait_s(32 << 20, 32 << 20, 0.25) == 0.75 and wait_s(1 << 20, 32 << 20, 5.0) == 0.0
