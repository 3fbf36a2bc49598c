"""Names, merge choice and series index, each by itself."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.predicate import AllOf, AnyOf, TagEquals, TagMatches, TagPredicate, matches
from dsdbd.model.series import Series
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.merging import choose_merge, parse_segment_name, segment_name, superseded
from dsdbd.storage.names import MAX_NAME_BYTES, escape_name
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
