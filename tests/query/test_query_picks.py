"""top, bottom, sample and integral: the rules of each beside plain Python, and chance that is fair."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.query import QueryCancelled
from dsdbd.query.holt_winters import _best_fit, _forecast, _powers
from dsdbd.query.nelder_mead import minimise
from tests.examples import examples
from tests.query.query_engine import MemoryShard, Row, json_answer, run_query
from tests.query.sample_data import ROWS, S
from tests.query.test_query_properties import cells

NODES = [[MemoryShard(ROWS)]]
points = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from("abc"), st.integers(-5, 5)),
    min_size=1,
    max_size=30,
    unique_by=lambda p: p[:2],
)


def shards(chosen: list[tuple[int, str, int]]) -> list[list[MemoryShard]]:
    rows = [Row("m", (("host", host),), time, (("n", value), ("x", float(value)))) for time, host, value in chosen]
    return [[MemoryShard(rows[::2], 1)], [MemoryShard(rows[1::2], 2)]]


def rows_of(statement: str, nodes: list[list[MemoryShard]]) -> list[list[object]]:
    found = cells(run_query(statement, nodes, 0))
    return found.get((), [])


@settings(max_examples=examples(60), deadline=None)
@given(points, st.integers(1, 8), st.booleans())
def test_top_keeps_the_greatest_and_of_equal_ones_the_earliest(
    chosen: list[tuple[int, str, int]], count: int, greatest: bool
) -> None:
    sign = -1 if greatest else 1
    best_first = sorted(chosen, key=lambda p: (sign * p[2], p[0], p[1]))[:count]
    wanted = sorted(best_first, key=lambda p: p[0])
    name = "top" if greatest else "bottom"
    assert rows_of(f"select {name}(n, {count}), host from m", shards(chosen)) == [[t, v, h] for t, h, v in wanted]


@settings(max_examples=examples(60), deadline=None)
@given(points, st.integers(1, 4))
def test_top_with_a_tag_keeps_one_point_of_each_of_its_values(chosen: list[tuple[int, str, int]], count: int) -> None:
    best = [min((p for p in chosen if p[1] == host), key=lambda p: (-p[2], p[0])) for host in {p[1] for p in chosen}]
    wanted = sorted(sorted(best, key=lambda p: (-p[2], p[0], p[1]))[:count], key=lambda p: p[0])
    # Rows go by time, and those of one time as they were chosen.
    assert rows_of(f"select top(n, host, {count}) from m", shards(chosen)) == [[t, v, h] for t, h, v in wanted]


@settings(max_examples=examples(60), deadline=None)
@given(points, st.integers(1, 8), st.integers(0, 2**62))
def test_a_sample_is_so_many_of_the_points_and_the_same_wherever_they_are(
    chosen: list[tuple[int, str, int]], count: int, now_ns: int
) -> None:
    statement = f"select sample(n, {count}), host from m"
    found = cells(run_query(statement, shards(chosen), now_ns))[()]
    assert len(found) == min(count, len(chosen))
    assert {(t, h, v) for t, v, h in found} <= set(chosen)
    assert cells(run_query(statement, [[shard for node in shards(chosen) for shard in node]], now_ns))[()] == found


def test_every_point_is_as_likely_to_be_sampled_as_any_other() -> None:
    rows = [Row("m", (("host", "abcde"[place % 5]),), place // 5, (("n", place),)) for place in range(20)]
    seen: Counter[object] = Counter()
    for now_ns in range(400):
        seen.update(row[1] for row in cells(run_query("select sample(n, 5) from m", [[MemoryShard(rows)]], now_ns))[()])
    # 100 times each on average, with a standard deviation below 9.
    assert len(seen) == 20
    assert all(55 < count < 145 for count in seen.values())


def area(line: list[tuple[int, float]]) -> float:
    return math.fsum((b - a) * (u + v) / 2 for (a, u), (b, v) in pairwise(line))


@settings(max_examples=examples(60), deadline=None)
@given(points, st.integers(2, 30))
def test_the_areas_of_windows_sum_up_to_the_area_of_all(chosen: list[tuple[int, str, int]], width: int) -> None:
    line: dict[int, float] = {}
    for time, host, value in sorted(chosen):
        line[time] = float(value)  # of one time the last series counts
        del host
    nodes = shards(chosen)
    whole = area(sorted(line.items()))
    found = rows_of("select integral(x, 1ns) from m", nodes)
    if max(line) > 0:
        assert math.isclose(float(str(found[0][1])), whole, rel_tol=1e-9, abs_tol=1e-9)
    parts = rows_of(f"select integral(x, 1ns) from m where time >= 0 and time < 100 group by time({width}ns)", nodes)
    # A last point that begins a window has no row, and what lies before it since the last edge goes with it.
    if max(line) % width:
        assert math.isclose(math.fsum(float(str(row[1])) for row in parts), whole, rel_tol=1e-9, abs_tol=1e-6)


def test_limit_counts_rows_of_top_and_not_the_points_it_chooses_from() -> None:
    # 1.x takes the first points of each series as LIMIT says, and the top of those.
    answer = json.loads(json_answer("select top(v, 2) from cpu limit 2", NODES, 60 * S))
    assert answer["results"][0]["series"][0]["values"] == [["1970-01-01T00:00:11Z", 4], ["1970-01-01T00:00:41Z", 8.125]]


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        (
            "select holt_winters(first(v), 5, 0) from cpu where time >= 0 and time < 50s group by time(20ms) fill(0)",
            "has to find a fit for 2505 values, the limit is 2000",
        ),
        ("select mean(v) from cpu group by time(1ns) tz('Europe/Berlin')", "rows of groups and buckets, the limit is"),
        ("select chande_momentum_oscillator(v, 1) from cpu", "period must be greater than 1 without a warmup type"),
    ],
)
def test_what_is_refused_here(statement: str, part: str) -> None:
    assert part in json.loads(json_answer(statement, NODES, 60 * S))["results"][0]["error"]


def test_the_least_value_of_a_curved_valley_is_found() -> None:
    least, place = minimise(lambda p, _: 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2, [-1.2, 1.0], 1e-9)
    assert least < 1e-9
    assert [round(number, 3) for number in place] == [1.0, 1.0]


@pytest.mark.parametrize("base", [0.3, 0.7, 0.999, 1e-9, 0.0, 1.0])
def test_powers_are_those_of_the_library_to_the_last_digits(base: float) -> None:
    for count in (1, 2, 63, 64, 65, 300):
        found = _powers(base, count)
        assert len(found) == count
        assert all(math.isclose(one, base**place, rel_tol=1e-13, abs_tol=1e-300) for place, one in enumerate(found, 1))


def test_a_forecast_divides_by_zero_as_floats_do() -> None:
    # The factors of the season are 0: what is divided by them is infinite or no number, and nothing fails.
    found = _forecast([0.3, 0.3, 0.3, 0.3, 0.0, 0.0, 0.0, 0.0], 1.0, 5)
    assert found[0] == 1.0
    assert not any(map(math.isfinite, found[1:]))


def test_a_fit_that_is_cancelled_ends_at_once_and_not_when_it_is_found() -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 100

    with pytest.raises(QueryCancelled, match="query interrupted"):
        _best_fit([float(place % 7) for place in range(500)], 7, 10, cancelled)
    assert asked == 101


@settings(max_examples=examples(20), deadline=None)
@given(
    st.lists(st.floats(-50, 50), min_size=6, max_size=9),
    st.lists(st.floats(-9, 9), min_size=12, max_size=12),
    st.integers(1, 40),
)
def test_a_search_does_not_see_that_its_function_stops_at_the_bound(
    start: list[float], target: list[float], steps: int
) -> None:
    def whole(point: list[float], bound: float) -> float:
        # As a fit it changes the point, is infinite here and there, and has steps on which corners are alike.
        found = math.inf if point[0] > 40 else sum((p - t) ** 2 for p, t in zip(point, target, strict=False)) // steps
        if not found >= bound or bound_is_ignored:
            point[-1] = round(point[-1], 1)
            return found
        return bound + 1

    bound_is_ignored = True
    expected = minimise(whole, start, 1e-4)
    bound_is_ignored = False
    assert minimise(whole, start, 1e-4) == expected
