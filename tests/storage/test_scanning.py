"""Scans over blocks in memory, however rows are spread over them, against a dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.scan import Edge, SeriesSet
from dsdbd.model.series import Series, parse_key
from dsdbd.storage.head_block import MemoryBlock
from dsdbd.storage.rows import Rows
from dsdbd.storage.scanning import Limits, Scan, Source
from dsdbd.storage.selection import RunLookup, Wanted
from dsdbd.storage.tombstones import Hidden
from tests.examples import examples
from tests.storage.storage_model import (
    CELLS,
    MAX_NS,
    MIN_NS,
    TYPES,
    as_points,
    make_rows,
    rows_of,
    series_of,
)

HOSTS = ("a", "b", "c", "")
times = st.one_of(st.integers(0, 12), st.sampled_from([MIN_NS, MAX_NS]))
rows_written = st.lists(st.tuples(st.sampled_from(HOSTS), times, CELLS), min_size=1, max_size=14)
bounds = st.one_of(st.integers(-1, 13), st.sampled_from([MIN_NS, MAX_NS]))
edges = st.one_of(st.none(), st.builds(Edge, st.integers(1, 4), st.booleans()))
limits = st.builds(Limits, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 32]))
chosen_hosts = st.sets(st.sampled_from(HOSTS), min_size=1)
field_choices = st.one_of(st.just(()), st.sets(st.sampled_from("fisb"), min_size=1).map(tuple))
deletions = st.lists(
    st.tuples(st.sets(st.sampled_from(HOSTS)), times, times, st.integers(0, 6)).map(
        lambda one: (one[0], *sorted(one[1:3]), one[3])
    ),
    max_size=2,
)


def blocks_of(written: list[list]) -> list[MemoryBlock]:
    return [MemoryBlock.sealed(make_rows(version, rows, HOSTS)) for version, rows in enumerate(written, 1)]


def scan_of(blocks: list[MemoryBlock], hosts: set[str], low: int, high: int, fields: tuple, **more: Any) -> Scan:
    numbers = np.array([number for number, host in enumerate(HOSTS) if host in hosts], dtype=np.int64)
    series = SeriesSet.of("m", [series_of(HOSTS[number]) for number in numbers.tolist()])
    sources = [Source(block, RunLookup(block.runs())) for block in blocks]
    types = {key: TYPES[key] for key in fields}
    return Scan(series, Wanted(numbers, len(HOSTS)), sources, types, bool(fields), low, high, **more)


def found_by(scan: Scan) -> list[tuple]:
    rows = [row for piece in scan.pieces() for row in rows_of(as_points(piece))]
    assert len({row[:2] for row in rows}) == len(rows), "each series and time once"
    return sorted(rows, key=lambda row: (row[0].key(), row[1]))


def expected_rows(
    written: list[list], hosts: set[str], low: int, high: int, fields: tuple, deleted: list = ()
) -> list[tuple]:
    cells: dict[tuple[Series, int], dict[str, Any]] = {}
    for version, rows in enumerate(written, 1):
        for host, time_ns, values in rows:
            gone = any(host in who and a <= time_ns <= b and version < at for who, a, b, at in deleted)
            if host in hosts and low <= time_ns <= high and not gone:
                cells.setdefault((series_of(host), time_ns), {}).update(values)
    wanted = [(*place, {key: values[key] for key in values if key in fields}) for place, values in cells.items()]
    kept = [row for row in wanted if row[2] or not fields]
    return sorted(kept, key=lambda row: (row[0].key(), row[1]))


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(rows_written, min_size=1, max_size=7), chosen_hosts, bounds, bounds, field_choices, limits)
def test_rows_come_from_anywhere_and_each_once(
    written: list, hosts: set, one: int, other: int, fields: tuple, limit: Limits
) -> None:
    low, high = sorted((one, other))
    scan = scan_of(blocks_of(written), hosts, low, high, fields, limits=limit)
    assert found_by(scan) == expected_rows(written, hosts, low, high, fields)


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(rows_written, min_size=1, max_size=7), chosen_hosts, bounds, bounds, field_choices, limits, edges)
def test_a_hint_leaves_out_nothing_that_is_needed(
    written: list, hosts: set, one: int, other: int, fields: tuple, limit: Limits, edge: Edge | None
) -> None:
    low, high = sorted((one, other))
    found = found_by(scan_of(blocks_of(written), hosts, low, high, fields, limits=limit, edge=edge))
    every = expected_rows(written, hosts, low, high, fields)
    assert all(row in every for row in found)
    for host in hosts:
        mine = [row for row in every if row[0] == series_of(host)]
        count = len(mine) if edge is None else edge.count
        needed = mine[-count:] if edge is not None and edge.newest else mine[:count]
        assert all(row in found for row in needed)


@settings(deadline=None, max_examples=examples(60))
@given(
    st.lists(rows_written, min_size=1, max_size=6),
    chosen_hosts,
    bounds,
    bounds,
    field_choices,
    limits,
    edges,
    deletions,
)
def test_deleted_rows_are_hidden_and_what_was_written_later_is_not(
    written: list, hosts: set, one: int, other: int, fields: tuple, limit: Limits, edge: Edge | None, deleted: list
) -> None:
    low, high = sorted((one, other))
    ordered = [host for host in HOSTS if host in hosts]
    hidden = [Hidden(np.array([host in who for host in ordered]), a, b, at) for who, a, b, at in deleted]
    found = found_by(scan_of(blocks_of(written), hosts, low, high, fields, limits=limit, hidden=hidden, edge=edge))
    every = expected_rows(written, hosts, low, high, fields, deleted)
    assert all(row in every for row in found)
    if edge is None:
        assert found == every


def far_apart(series: int, each: int, blocks: int) -> list[MemoryBlock]:
    """Blocks of neighbouring times, as writing in order leaves them."""
    made = []
    for number in range(blocks):
        time_ns = np.tile(np.arange(each, dtype=np.int64) + number * each, series)
        rows = Rows(np.repeat(np.arange(series, dtype=np.int64), each), time_ns, np.full(series * each, 1), {})
        made.append(MemoryBlock.sealed(rows))
    return made


def test_blocks_of_different_times_are_handed_out_without_a_copy() -> None:
    blocks = far_apart(4, 500, 3)
    pieces = list(scan_of(blocks, set(HOSTS), MIN_NS, MAX_NS, (), limits=Limits(800, 800, 100)).pieces())
    assert sum(map(len, pieces)) == 6_000 and max(map(len, pieces)) <= 800
    assert all(any(np.shares_memory(piece.time_ns, block.time_ns) for block in blocks) for piece in pieces)


def test_small_shares_of_many_blocks_are_one_piece() -> None:
    (piece,) = scan_of(far_apart(4, 500, 3), {"b"}, 400, 1_100, ()).pieces()
    assert piece.time_ns.tolist() == list(range(400, 1_101)) and len(piece.run_starts) == 1


def test_only_series_that_two_blocks_hold_at_the_same_times_are_copied() -> None:
    blocks = [*far_apart(4, 500, 2), MemoryBlock.sealed(make_rows(2, [("c", 100, {"i": 1})], HOSTS))]
    pieces = list(scan_of(blocks, set(HOSTS), MIN_NS, MAX_NS, (), limits=Limits(join_rows=10)).pieces())
    assert sum(map(len, pieces)) == 4_000
    copied = [piece for piece in pieces if not np.shares_memory(piece.time_ns, blocks[0].time_ns)]
    assert {parse_key(key).tag("host") for key in copied[0].series.series_keys()} == set(HOSTS)
    assert set(copied[0].run_series.tolist()) == {HOSTS.index("c")}


def test_the_newest_row_of_each_series_is_found_without_reading_the_others() -> None:
    scan = scan_of(far_apart(4, 500, 3), set(HOSTS), MIN_NS, MAX_NS, (), edge=Edge(1, True))
    pieces = list(scan.pieces())
    assert sum(map(len, pieces)) == 4
    assert [time_ns for piece in pieces for time_ns in piece.time_ns.tolist()] == [1_499] * 4


@pytest.mark.parametrize("limit", [7, 64])
def test_one_long_series_in_many_versions_comes_in_pieces(limit: int) -> None:
    rng = np.random.default_rng(3)
    parts = []
    for version in range(1, 5):
        when = rng.choice(1_000, 400, replace=False).astype(np.int64)
        rows = [("a", int(time_ns), {"i": version}) for time_ns in when]
        parts.append(rows)
    scan = scan_of(blocks_of(parts), {"a"}, 50, 900, ("i",), limits=Limits(limit, limit, limit))
    assert max(len(piece) for piece in scan.pieces()) <= 8 * limit
    assert found_by(scan) == expected_rows(parts, {"a"}, 50, 900, ("i",))
