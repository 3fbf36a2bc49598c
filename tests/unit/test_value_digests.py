"""Hashes of values and their sums: they depend on all that makes a value, and on nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.model import digest
from dsdbd.model.columns import Column
from dsdbd.model.digest import (
    CELLS,
    SERIES_BUCKETS,
    Grid,
    TimeRanges,
    add_to_cells,
    buckets,
    row_sums,
    series_hashes,
    text_hashes,
    total_of,
    value_hashes,
)
from dsdbd.model.types import FieldType

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
texts = st.lists(st.binary(max_size=40), max_size=30)


def mix(value: int) -> int:
    """The finaliser of splitmix64, one number at a time."""
    value ^= value >> 30
    value = value * 0xBF58476D1CE4E5B9 & MASK
    value ^= value >> 27
    value = value * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def hash_of(text: bytes) -> int:
    words = [int.from_bytes(text[at : at + 8], "little") for at in range(0, len(text), 8)]
    mixed = sum(mix(word + (place + 1) * GOLDEN & MASK) for place, word in enumerate(words))
    return mix(len(text) * GOLDEN + mixed & MASK)


@given(texts, st.integers(0, 5), st.sampled_from([pa.binary(), pa.large_binary()]))
def test_texts_are_hashed_as_one_at_a_time(found: list[bytes], skipped: int, kind: Any) -> None:
    array = pa.array(found, kind).slice(min(skipped, len(found)))
    assert text_hashes(array).tolist() == [hash_of(text) for text in found[skipped:]]
    assert series_hashes(found).tolist() == [hash_of(text) for text in found]


def test_texts_in_many_steps_and_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [b"x" * length for length in range(0, 400, 7)] + [b""] * 9 + [bytes(range(256)) * 30]
    expected = [hash_of(text) for text in found]
    assert text_hashes(pa.array(found)).tolist() == expected
    monkeypatch.setattr(digest, "_STEP_BYTES", 100)
    monkeypatch.setattr(digest, "_STEP_ROWS", 3)
    assert text_hashes(pa.array(found)).tolist() == expected
    assert len({*text_hashes(pa.array(["", "a", "a\0", "\0a", "\0", "aaaaaaaa", "aaaaaaaa\0"])).tolist()}) == 7
    assert text_hashes(pa.array([None, "a", None])).tolist()[1] == hash_of(b"a")


COLUMNS = {
    "f": Column(FieldType.FLOAT, np.array([1.0, -0.0, 0.0, np.nan, np.inf, 2.0])),
    "i": Column(FieldType.INTEGER, np.array([1, -(1 << 63), 0, (1 << 63) - 1, 5, 2])),
    "s": Column(FieldType.STRING, pa.array(["1", "", "x", "x\0", "long text " * 9, "2"])),
    "b": Column(FieldType.BOOLEAN, np.array([True, False, True, False, True, False])),
}
KEYS = series_hashes([b"m,h=a", b"m,h=b", b"m", b"m,h=a,z=1", b"n,h=a", b"m,h=c"])
TIMES = np.array([5, -5, 0, 1 << 62, -(1 << 62), 7])
VERSIONS = np.array([1, 1 << 40, 3, 1 << 62, 5, 7 << 10])


def test_each_part_of_a_value_counts() -> None:
    """Values that differ in one thing only, or have two things exchanged, have different hashes."""
    seen: set[int] = set()
    count = 0
    for (name, column), key, time_ns, version in itertools.product(COLUMNS.items(), KEYS, TIMES, VERSIONS):
        fill = np.full(6, key), np.full(6, time_ns), np.full(6, version)
        hashes = row_sums(*fill, {name: column}).tolist()
        count += len({str(value) for value in column.to_arrow().to_pylist()})
        seen.update(hashes)
    assert len(seen) == count > 3_000
    one = np.ones(1, np.int64)
    bits = {
        int(value_hashes(name, column)[0])
        for name, column in (
            ("a", Column(FieldType.FLOAT, one.view(np.float64))),
            ("a", Column(FieldType.INTEGER, one)),
            ("a", Column(FieldType.BOOLEAN, one.astype(np.bool_))),
            ("b", Column(FieldType.INTEGER, one)),
        )
    }
    assert len(bits) == 4, "types and names of fields count"
    swapped = row_sums(KEYS[:1], np.array([3]), np.array([4]), {"f": Column(FieldType.FLOAT, np.ones(1))})
    assert swapped != row_sums(KEYS[:1], np.array([4]), np.array([3]), {"f": Column(FieldType.FLOAT, np.ones(1))})


def test_a_row_is_the_sum_of_its_values_in_whatever_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = row_sums(KEYS, TIMES, VERSIONS, COLUMNS)
    valid = np.array([True, False, True, True, False, True])
    each = sum(row_sums(KEYS, TIMES, VERSIONS, {name: column}) for name, column in COLUMNS.items())
    assert whole.tolist() == each.tolist()
    partly = {**COLUMNS, "f": replace(COLUMNS["f"], valid=valid)}
    without = row_sums(KEYS, TIMES, VERSIONS, {name: column for name, column in COLUMNS.items() if name != "f"})
    assert row_sums(KEYS, TIMES, VERSIONS, partly).tolist() == np.where(valid, whole, without).tolist()
    monkeypatch.setattr(digest, "_STEP_ROWS", 4)
    assert row_sums(KEYS, TIMES, VERSIONS, COLUMNS).tolist() == whole.tolist()
    assert row_sums(KEYS[:0], TIMES[:0], VERSIONS[:0], {}).tolist() == []
    coded = replace(COLUMNS["s"], values=COLUMNS["s"].values.dictionary_encode())
    assert value_hashes("s", coded).tolist() == value_hashes("s", COLUMNS["s"]).tolist()


@given(
    st.integers(-(1 << 62), 1 << 62),
    st.integers(1, 1 << 62),
    st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=3)), min_size=1, max_size=40),
)
def test_every_row_has_one_cell_and_its_times_are_known(start: int, width: int, rows: list) -> None:
    ranges = TimeRanges(start, start + width)
    times, keys = np.array([at for at, _ in rows], np.int64), series_hashes([key for _, key in rows])
    cells = ranges.cells(keys, times)
    assert ((cells >= 0) & (cells < CELLS)).all()
    assert (cells % SERIES_BUCKETS).tolist() == buckets(keys).tolist() == [int(key) >> 59 for key in keys]
    for cell, at in zip(cells.tolist(), times.tolist(), strict=True):
        low, high = ranges.span_ns(cell)
        assert low <= at <= high
    spans = [ranges.span_ns(cell) for cell in range(0, CELLS, SERIES_BUCKETS)]
    used = [span for span in spans if span[0] < start + width]
    assert used[0][0] == -(1 << 63) and used[-1][1] == (1 << 63) - 1
    assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(used))


def test_cells_add_up_in_any_order_and_totals_know_their_measurement() -> None:
    random = np.random.default_rng(7)
    places, sums = random.integers(0, CELLS, 500), random.integers(0, 1 << 63, 500).astype(np.uint64) * np.uint64(2)
    expected = [0] * CELLS
    for place, value in zip(places.tolist(), sums.tolist(), strict=True):
        expected[place] = expected[place] + value & MASK
    for order in (np.arange(500), np.argsort(places), random.permutation(500)):
        cells = np.zeros(CELLS, np.uint64)
        for part in np.array_split(order, 3):
            add_to_cells(cells, places[part], sums[part])
        assert cells.tolist() == expected
    grid = Grid.of("m", cells)
    assert grid.cells.tolist() == expected and grid.total == total_of("m", cells) != total_of("n", cells)
    add_to_cells(cells, places[:0], sums[:0])
    assert cells.tolist() == expected
    one_more = cells.copy()
    one_more[3] += np.uint64(1)
    assert Grid.of("m", one_more).total != grid.total
