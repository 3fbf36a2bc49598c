"""Windows found where they should begin are those that every single time says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.query import windows
from dsdbd.query.windows import window_starts

Found = list[tuple[int, int, int]]


def by_division(runs: list[list[int]], interval_ns: int, offset_ns: int) -> Found:
    found, at = [], 0
    for run, times in enumerate(runs):
        last = None
        for time in times:
            bucket = (time - offset_ns) // interval_ns * interval_ns + offset_ns
            if bucket != last:
                found.append((at, run, bucket))
            last, at = bucket, at + 1
    return found


def found_in(runs: list[list[int]], interval_ns: int, offset_ns: int) -> Found | None:
    times = np.array([time for run in runs for time in run], dtype=np.int64)
    lengths = np.array([len(run) for run in runs], dtype=np.int64)
    found = window_starts(times, np.cumsum(lengths) - lengths, interval_ns, offset_ns)
    return None if found is None else list(zip(*(column.tolist() for column in found), strict=True))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_LEAST_ROWS", 0)
    monkeypatch.setattr(windows, "_MANY_ROWS", 0)


class TestAnyTimes:
    """Without lower limits, so that small examples take this way."""

    @given(
        st.lists(st.lists(st.integers(-60, 60), min_size=1, max_size=30).map(sorted), min_size=1, max_size=5),
        st.integers(1, 25),
        st.integers(-9, 9),
    )
    def test_they_are_those_of_division_or_none(self, runs: list[list[int]], interval: int, offset: int) -> None:
        found = found_in(runs, interval, offset)
        assert found is None or found == by_division(runs, interval, offset)

    @given(st.lists(st.tuples(st.integers(-500, 500), st.integers(1, 60)), min_size=1, max_size=5), st.integers(1, 90))
    def test_regular_times_are_found(self, runs: list[tuple[int, int]], interval: int) -> None:
        times = [[first + 10 * row for row in range(rows)] for first, rows in runs]
        assert found_in(times, interval, 0) == by_division(times, interval, 0)

    @given(st.lists(st.sampled_from([-(1 << 63), -(1 << 63) + 1, -1, 0, 1, (1 << 63) - 1]), min_size=1, max_size=5))
    def test_the_ends_of_time_are_left_alone(self, times: list[int]) -> None:
        interval = 1 << 61
        with np.errstate(over="ignore"):
            found = found_in([sorted(times)], interval, 0)
        assert found is None or found == by_division([sorted(times)], interval, 0)


def test_few_rows_are_left_to_division(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert found_in([list(range(100))], 50, 0) is None
    assert found_in([list(range(10_000))], 2, 0) is None
    assert found_in([list(range(10_000))], 5_000, 0) == [(0, 0, 0), (5_000, 0, 5_000)]
