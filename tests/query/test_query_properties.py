"""Any split of any points over shards and nodes answers like plain Python over the whole."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.query import SeriesRows
from tests.examples import examples
from tests.query.query_engine import MemoryShard, Row, Value, run_query

INTERVAL = 10
FUNCTIONS = ("count", "sum", "mean", "min", "max", "first", "last", "spread", "median", "stddev", "percentile")
CALLS = (
    "distinct(n) from m group by rack",
    "mode(n) from m group by rack",
    "count(distinct(n)) from m group by rack",
    "max(n), x from m group by rack",
    "last(x), host from m group by rack",
    "first(n), host from m where time >= -40 and time < 60 group by time(10ns), rack fill(none)",
    "first(n), last(x), count(x), max(n), spread(n), median(x) from m where time >= -40 group by host fill(previous)",
    "first(n), last(x), count(x), max(n) from m where time > 0 and time < 60 group by time(9ns), rack fill(linear)",
    "count(x), min(n) from m where time >= -40 and time < 60 group by time(10ns), host, rack fill(7)",
    "count(n), last(x) from m where x > 0 group by time(10ns), rack limit 2",
    "top(n, 3) from m group by rack",
    "top(n, host, 2), x from m group by rack",
    "bottom(x, host, rack, 3) from m where time >= -40 and time < 60 group by time(20ns)",
    "bottom(n, 2), host from m where time >= -40 and time < 60 group by time(20ns), rack order by time desc",
    "sample(x, 2), host from m group by rack",
    "sample(n, 3), sample(x, 1) from m where time >= -40 and time < 60 group by time(30ns)",
    "integral(n, 1ns) from m group by rack",
    "integral(x, 1ns), integral(n, 1ns) from m where time >= -40 and time < 60 group by time(9ns)",
    "exponential_moving_average(n, 2), chande_momentum_oscillator(x, 3) from m group by host",
    "count(x) from m where time >= -40 and time < 60 group by time(10ns), host tz('Asia/Kolkata')",
    "difference(last(n)), sum(n) from m where time >= -40 and time < 60 group by time(10ns) fill(linear)",
)
floats = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
rows = st.builds(
    lambda host, rack, time, x, n: Row(
        "m",
        tuple((key, value) for key, value in (("host", host), ("rack", rack)) if value),
        time,
        tuple((key, value) for key, value in (("x", x), ("n", n)) if value is not None),
    ),
    st.sampled_from(("a", "b", "c", "")),
    st.sampled_from(("r", "")),
    st.integers(-40, 60),
    st.none() | floats,
    st.none() | st.integers(-100, 100),
).filter(lambda row: row.fields)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Row], list[list[MemoryShard]]]:
    """Points, each series and time once, and the same points dealt out to shards on up to three nodes."""
    unique = {(row.tags, row.time_ns): row for row in draw(st.lists(rows, max_size=40))}
    points = list(unique.values())
    places = draw(st.lists(st.integers(0, 5), min_size=len(points), max_size=len(points)))
    shards: dict[int, list[Row]] = defaultdict(list)
    for row, place in zip(points, places, strict=True):
        shards[place].append(row)
    deals = st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=7)
    nodes = [
        [MemoryShard(shards[number], number, deal=draw(deals)) for number in range(node, 6, 3)] for node in range(3)
    ]
    return points, nodes


def value_of(row: Row, field: str) -> Value | None:
    return dict(row.fields).get(field)


def expected(function: str, points: list[tuple[int, float]]) -> float | None:
    """The aggregate of (time, value) in plain Python."""
    points = sorted(points)
    values = [value for _, value in points]
    match function:
        case "count":
            return len(values)
        case "sum":
            return math.fsum(values)
        case "mean":
            return math.fsum(values) / len(values)
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "first":
            return max(value for time, value in points if time == points[0][0])
        case "last":
            return points[-1][1]
        case "spread":
            return max(values) - min(values)
        case "median":
            return statistics.median(values)
        case "stddev":
            return statistics.stdev(values) if len(values) > 1 else None
        case "percentile":
            place = math.floor(len(values) * 0.3 + 0.5) - 1
            return sorted(values)[place] if 0 <= place < len(values) else None
    raise AssertionError(function)


def cells(answer: list[SeriesRows]) -> dict[tuple[str, ...], list[list[object]]]:
    found = {}
    for series in answer:
        columns = [column.to_arrow().to_pylist() for column in series.data]
        key = tuple(series.tags.values()) if series.tags else ()
        assert key not in found
        found[key] = [list(row) for row in zip(*columns, strict=True)]
    return found


def close(ours: object, theirs: float | None) -> bool:
    if theirs is None or ours is None:
        return ours is theirs
    assert isinstance(ours, int | float)
    return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-6)


@settings(max_examples=examples(150), deadline=None)
@given(clusters(), st.sampled_from(FUNCTIONS), st.sampled_from(("x", "n")), st.sampled_from(((), ("host",))))
def test_aggregates_by_time_equal_plain_python(
    cluster: tuple[list[Row], list[list[MemoryShard]]], function: str, field: str, by: tuple[str, ...]
) -> None:
    points, nodes = cluster
    argument = f"{field}, 30" if function == "percentile" else field
    dimensions = ", ".join((f"time({INTERVAL}ns)", *by))
    answer = cells(
        run_query(
            f"select {function}({argument}) from m where time >= -40 and time <= 60 group by {dimensions} fill(none)",
            nodes,
            0,
        )
    )
    groups: dict[tuple[str, ...], dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in points:
        value = value_of(row, field)
        if value is not None:
            key = tuple(dict(row.tags).get(name, "") for name in by)
            groups[key][row.time_ns // INTERVAL * INTERVAL].append((row.time_ns, value))  # type: ignore[arg-type]
    wanted: dict[tuple[str, ...], list[tuple[int, float | None]]] = {}
    for key, buckets in groups.items():
        lines = [(start, expected(function, values)) for start, values in sorted(buckets.items())]
        # A percentile without a point leaves its bucket out; a deviation of one point is null.
        lines = [line for line in lines if line[1] is not None or function == "stddev"]
        if lines:
            wanted[key] = lines
    assert set(answer) == set(wanted)
    for key, lines in wanted.items():
        assert [row[0] for row in answer[key]] == [start for start, _ in lines]
        assert all(close(row[1], value) for row, (_, value) in zip(answer[key], lines, strict=True))


@settings(max_examples=examples(100), deadline=None)
@given(clusters(), st.integers(0, 5), st.integers(0, 3), st.booleans())
def test_raw_points_equal_plain_python(
    cluster: tuple[list[Row], list[list[MemoryShard]]], limit: int, offset: int, ascending: bool
) -> None:
    points, nodes = cluster
    wanted: dict[tuple[str, ...], list[list[object]]] = defaultdict(list)
    for row in sorted(points, key=lambda row: row.time_ns):
        x, n = value_of(row, "x"), value_of(row, "n")
        if x is not None and not isinstance(x, str) and x > 0:
            wanted[(dict(row.tags).get("host", ""), dict(row.tags).get("rack", ""))].append([row.time_ns, x, n])
    text = "select x, n from m where x > 0 group by host, rack" + ("" if ascending else " order by time desc")
    if limit:
        text += f" limit {limit} offset {offset}"
    answer = cells(run_query(text, nodes, 0))
    for key in list(wanted):
        lines = wanted[key] if ascending else wanted[key][::-1]
        wanted[key] = lines[offset : offset + limit] if limit else lines
        if not wanted[key]:
            del wanted[key]
    if not any(value_of(row, "n") is not None for row in points):
        for lines in wanted.values():
            assert all(line[2] is None for line in lines)
    assert answer == dict(wanted)
    assert list(answer) == sorted(wanted, reverse=not ascending)


@settings(max_examples=examples(60), deadline=None)
@given(clusters(), st.sampled_from(CALLS))
def test_every_split_gives_one_answer(cluster: tuple[list[Row], list[list[MemoryShard]]], call: str) -> None:
    points, nodes = cluster
    text = f"select {call}"
    whole = cells(run_query(text, [[MemoryShard(points)]], 0))
    assert cells(run_query(text, nodes, 0)) == whole
    assert cells(run_query(text, nodes[::-1], 0)) == whole
