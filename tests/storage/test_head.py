"""Rows in memory: sealed lazily, merged like with like, counted in bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.columns import Column, Points
from dsdbd.model.types import FieldType
from dsdbd.storage.head import BACKGROUND_ROWS, READER_ROWS, HeadTable, flushed, mergeable
from dsdbd.storage.head_block import MemoryBlock
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.ranges import coalesce, expand, first_at_least, gather, gather_column
from dsdbd.storage.rows import Rows, concat_rows, fold_for_storage, sort_rows, unite_versions
from tests.examples import examples
from tests.storage.storage_model import TYPES, make_points
from tests.storage.test_storage_rows import batches


def same_rows(one: Rows, other: Rows) -> None:
    assert one.series.tolist() == other.series.tolist() and one.time_ns.tolist() == other.time_ns.tolist()
    assert one.version.tolist() == other.version.tolist()
    for key in {*one.fields, *other.fields}:
        cells = [
            rows.fields[key].to_arrow().to_pylist() if key in rows.fields else [None] * len(rows)
            for rows in (one, other)
        ]
        assert cells[0] == cells[1]


def held_bytes(blocks: Iterable[MemoryBlock]) -> int:
    return sum(block.size_bytes for block in blocks)


@settings(deadline=None, max_examples=examples(60))
@given(batches, st.lists(st.booleans(), min_size=6, max_size=6))
def test_sealing_at_any_time_changes_nothing(written: list, seals: list[bool]) -> None:
    """What a table holds does not depend on when it was read; neither does what is written out."""
    index, table, lock = SeriesIndex(), HeadTable(), threading.Lock()
    changes: list[int] = []
    parts = []
    for (version, rows), seal in zip(written, seals, strict=False):
        points = make_points(rows)
        before = table.size_bytes
        table.add(points, version, index)
        changes.append(table.size_bytes - before)
        versions = np.full(len(points), version, dtype=np.int64)
        parts.append(Rows(index.numbers(points.series)[points.series_index], points.time_ns, versions, points.fields))
        if seal:
            table.seal(lock, changes.append, READER_ROWS)
    table.seal(lock, changes.append, READER_ROWS)
    blocks = table.snapshot()
    assert not table.unsealed and sum(changes) == table.size_bytes == held_bytes(blocks)
    ranks = np.arange(len(index), dtype=np.int64)[::-1].copy()
    arrived = concat_rows(parts, TYPES)
    expected = sort_rows(Rows(ranks[arrived.series], arrived.time_ns, arrived.version, arrived.fields))
    same_rows(unite_versions(flushed(blocks, TYPES, ranks)), unite_versions(expected))
    same_rows(unite_versions(flushed(blocks, TYPES, ranks)), unite_versions(fold_for_storage(expected)))
    assert table.rows == sum(map(len, parts))
    assert (table.min_ns, table.max_ns) == (int(arrived.time_ns.min()), int(arrived.time_ns.max()))


def one_field(count: int, time_ns: np.ndarray, names: Iterable[str] = ("f",)) -> Points:
    fields = {name: Column(FieldType.FLOAT, np.arange(count, dtype=np.float64)) for name in names}
    return Points("m", (b"m,a=1", b"m,a=2"), (np.arange(count) % 2).astype(np.int32), time_ns, fields)


def test_many_tiny_writes_leave_few_parts_and_few_blocks() -> None:
    index, table, lock = SeriesIndex(), HeadTable(), threading.Lock()
    sealed = 0
    for number in range(5_000):
        table.add(one_field(1, np.array([number])), number, index)
        if number % 50 == 0:
            table.seal(lock, lambda change: None, READER_ROWS)
            sealed += 1
    table.seal(lock, lambda change: None, READER_ROWS)
    blocks = table.snapshot()
    assert sealed == 100 and len(blocks) < 20 and sum(block.rows for block in blocks) == 5_000
    # Objects around a row in a block are shared by the rows of the block.
    assert table.size_bytes < 5_000 * 40


def test_rows_of_quite_different_fields_are_not_put_side_by_side() -> None:
    """A block has a cell for every row and field; a merge must not multiply memory."""
    index, table, lock = SeriesIndex(), HeadTable(), threading.Lock()
    for number in range(40):
        time_ns = np.arange(2_000) + number * 2_000
        table.add(one_field(2_000, time_ns, [f"f{number}_{at}" for at in range(10)]), number, index)
        table.seal(lock, lambda change: None, BACKGROUND_ROWS)
    values = 40 * 2_000 * 10 * 8
    assert table.size_bytes < 3 * values


@given(st.lists(st.integers(1, 300_000), max_size=60))
def test_blocks_stay_few_and_are_moved_seldom(added: list[int]) -> None:
    rows: list[int] = []
    moved = 0
    for count in added:
        rows.append(count)
        while (start := mergeable(rows, READER_ROWS)) is not None:
            moved += sum(rows[start:])
            assert sum(rows[start:]) <= max(READER_ROWS, sum(rows) // 8)
            rows[start:] = [sum(rows[start:])]
    total = sum(added)
    assert len(rows) <= 3 * 8 + total / (READER_ROWS / 8)
    assert moved <= 6 * total


ranges = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=20).map(
    lambda gaps: np.cumsum(np.array(gaps).ravel()).reshape(-1, 2).astype(np.int64)
)


@given(ranges)
def test_ranges_are_read_in_any_way_alike(bounds: np.ndarray) -> None:
    starts, stops = bounds[:, 0].copy(), bounds[:, 1].copy()
    values = np.arange(int(stops[-1]) + 3, dtype=np.int64) * 7
    wanted = [row for start, stop in bounds.tolist() for row in range(start, stop)]
    assert expand(starts, stops).tolist() == wanted
    for pair in ((starts, stops), coalesce(starts, stops)):
        assert gather(values, *pair).tolist() == values[wanted].tolist()
        column = Column(FieldType.INTEGER, values, values % 2 == 0)
        found = gather_column(column, *pair)
        assert found.values.tolist() == values[wanted].tolist() and found.valid is not None
        assert found.valid.tolist() == (values[wanted] % 2 == 0).tolist()
    assert (np.diff(coalesce(starts, stops)[0]) > 0).all()


@given(ranges, st.lists(st.integers(-5, 200), min_size=20, max_size=20))
def test_the_first_row_from_a_time_on_is_found_in_every_range(bounds: np.ndarray, wanted: list[int]) -> None:
    starts, stops = bounds[:, 0].copy(), bounds[:, 1].copy()
    times = np.arange(int(stops[-1]), dtype=np.int64) * 2
    limits = np.array(wanted[: len(starts)], dtype=np.int64)
    expected = [
        next((row for row in range(start, stop) if times[row] >= limit), stop)
        for start, stop, limit in zip(starts.tolist(), stops.tolist(), limits.tolist(), strict=True)
    ]
    assert first_at_least(times, starts, stops, limits).tolist() == expected


@pytest.mark.slow
def test_sorting_and_merging_do_not_hold_the_interpreter_for_long() -> None:
    """Another thread gets its turn all the time; what it misses at most is far below a stall of the event loop."""
    index, table, lock = SeriesIndex(), HeadTable(), threading.Lock()
    rng = np.random.default_rng(5)
    keys = tuple(b"m,host=h%d" % number for number in range(1_000))
    for number in range(60):
        fields = {f"f{at}": Column(FieldType.FLOAT, rng.random(5_000)) for at in range(10)}
        time_ns = np.repeat(np.arange(5, dtype=np.int64) + 5 * number, 1_000)
        table.add(Points("m", keys, np.tile(np.arange(1_000, dtype=np.int32), 5), time_ns, fields), number, index)
    turns = 0
    done = threading.Event()

    def count() -> None:
        nonlocal turns
        while not done.wait(0.001):
            turns += 1

    ticker = threading.Thread(target=count)
    ticker.start()
    table.seal(lock, lambda change: None, BACKGROUND_ROWS)
    rows = flushed(table.snapshot(), dict.fromkeys(fields, FieldType.FLOAT), np.arange(1_000))
    done.set()
    ticker.join()
    assert len(rows) == 300_000 and turns > 3
