"""When a continuous query is due and what it selects, whatever the times of the looks and whoever leads."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.errors import RequestError
from dsdbd.influxql import parse, to_text
from dsdbd.influxql.condition import split_condition
from dsdbd.limits import MAX_CONTINUOUS_QUERY_WINDOWS
from dsdbd.services.resampling import Run, Schedule, due, read_query, schedule_of, within

SECOND_NS = 10**9
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS


def at(text: str) -> int:
    """Nanoseconds of a time with its offset from UTC."""
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_NS


def looks(schedule: Schedule, times_ns: list[int], last_run_ns: int | None = None) -> list[tuple[int, Run]]:
    """The runs of looks at these times, each with the time of its look."""
    found = []
    for now_ns in times_ns:
        run = due(schedule, last_run_ns, now_ns)
        if run is not None:
            last_run_ns = run.last_run_ns
            found.append((now_ns, run))
    return found


def selected(runs: list[tuple[int, Run]]) -> list[tuple[int, int]]:
    return [(run.start_ns, run.end_ns) for _, run in runs if run.start_ns < run.end_ns]


@pytest.mark.parametrize("interval_ns", [10 * SECOND_NS, MINUTE_NS, HOUR_NS, 24 * HOUR_NS, 7 * 24 * HOUR_NS])
def test_a_window_is_selected_once_when_it_is_over(interval_ns: int) -> None:
    start_ns = at("2000-01-06T00:00:00+00:00")  # weeks begin on Thursdays
    schedule = Schedule(interval_ns)
    end_ns = start_ns + interval_ns
    times = [start_ns + 1, start_ns + interval_ns // 2, end_ns - 1, end_ns, end_ns + 1]
    runs = looks(schedule, times)
    assert selected(runs) == [(start_ns, end_ns)]
    assert runs[-1][0] == end_ns


def test_every_and_for_select_open_and_old_windows() -> None:
    schedule = Schedule(MINUTE_NS, every_ns=10 * SECOND_NS, for_ns=2 * MINUTE_NS)
    now_ns = at("2000-01-01T10:10:00+00:00")
    runs = looks(schedule, [now_ns, now_ns + 10 * SECOND_NS, now_ns + 10 * MINUTE_NS])
    assert selected(runs) == [
        (now_ns - 2 * MINUTE_NS, now_ns),
        (now_ns - MINUTE_NS, now_ns + MINUTE_NS),
        (now_ns - MINUTE_NS, now_ns + 10 * MINUTE_NS),
    ]


def test_every_above_the_interval_reaches_back_as_far() -> None:
    schedule = Schedule(30 * SECOND_NS, every_ns=MINUTE_NS)
    now_ns = at("2000-01-01T10:10:00+00:00")
    times = [now_ns, now_ns + 30 * SECOND_NS, now_ns + MINUTE_NS]
    assert selected(looks(schedule, times)) == [(now_ns - MINUTE_NS, now_ns), (now_ns, now_ns + MINUTE_NS)]


def test_the_offset_moves_windows() -> None:
    schedule = Schedule(MINUTE_NS, offset_ns=30 * SECOND_NS)
    now_ns = at("2000-01-01T10:10:00+00:00")
    runs = looks(schedule, [now_ns, now_ns + 29 * SECOND_NS, now_ns + 30 * SECOND_NS])
    assert selected(runs)[-1] == (now_ns - 30 * SECOND_NS, now_ns + 30 * SECOND_NS)


@pytest.mark.parametrize(
    ("hours", "first", "ends"),
    [
        (24, "2000-04-02T00:00:00-05:00", ["2000-04-03T00:00:00-04:00"]),
        (2, "2000-04-02T00:00:00-05:00", ["2000-04-02T03:00:00-04:00", "2000-04-02T04:00:00-04:00"]),
        (24, "2000-10-29T00:00:00-04:00", ["2000-10-30T00:00:00-05:00"]),
        (2, "2000-10-29T00:00:00-04:00", ["2000-10-29T02:00:00-05:00", "2000-10-29T04:00:00-05:00"]),
    ],
)
def test_windows_follow_the_local_clock(hours: int, first: str, ends: list[str]) -> None:
    schedule = Schedule(hours * HOUR_NS, zone="America/New_York")
    bounds = [at(first), *map(at, ends)]
    runs = looks(schedule, [bounds[0] + 1, *bounds[1:]])
    assert selected(runs) == list(pairwise(bounds))


def test_a_last_run_of_a_wrong_clock_counts_as_none() -> None:
    now_ns = at("2000-01-01T10:10:30+00:00")
    schedule = Schedule(MINUTE_NS, for_ns=3 * MINUTE_NS)
    assert due(schedule, now_ns + 365 * 24 * HOUR_NS, now_ns) == due(schedule, None, now_ns)
    assert due(schedule, now_ns + SECOND_NS, now_ns) is None, "clocks of two nodes differ a little"


SECONDS = st.integers(1, 3600)
BEGIN_NS = at("2020-02-03T04:05:06+00:00")


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    interval_ns = draw(SECONDS) * SECOND_NS
    every_ns = draw(st.one_of(st.just(0), SECONDS.map(lambda n: n * SECOND_NS)))
    for_ns = draw(st.one_of(st.just(0), st.integers(1, 5).map(lambda n: n * max(interval_ns, every_ns))))
    return Schedule(interval_ns, draw(st.integers(0, interval_ns - 1)), every_ns, for_ns)


@st.composite
def look_times(draw: st.DrawFn) -> list[int]:
    """Times of looks, with the rhythm of a timer, with gaps as after crashes, and a few just at whole seconds."""
    time_ns = BEGIN_NS + draw(st.integers(0, HOUR_NS))
    steps = st.one_of(st.integers(1, 5 * SECOND_NS), st.integers(1, 3 * HOUR_NS), SECONDS.map(lambda n: n * SECOND_NS))
    found = []
    for step in draw(st.lists(steps, min_size=2, max_size=25)):
        found.append(time_ns)
        time_ns += step
    return found


@given(schedules(), look_times())
def test_no_window_is_left_unfinished(schedule: Schedule, times: list[int]) -> None:
    """Every window that was open at the first look or later is selected by a look after its end."""
    runs = looks(schedule, times)
    interval_ns, offset_ns = schedule.interval_ns, schedule.offset_ns
    first_ns = (times[0] - offset_ns) // interval_ns * interval_ns + offset_ns
    # What is over at the last run, which may have been some looks ago with a pace above the interval.
    last_ns = runs[-1][1].last_run_ns
    finished = [(run.start_ns, min(run.end_ns, now_ns)) for now_ns, run in runs]
    covered_ns = first_ns
    for start_ns, end_ns in finished:
        if start_ns <= covered_ns < end_ns:
            covered_ns = (end_ns - offset_ns) // interval_ns * interval_ns + offset_ns
    assert covered_ns >= (last_ns - offset_ns) // interval_ns * interval_ns + offset_ns


@given(schedules(), look_times())
def test_runs_follow_the_pace_and_begin_and_end_with_windows(schedule: Schedule, times: list[int]) -> None:
    runs = looks(schedule, times)
    for now_ns, run in runs:
        for bound_ns in (run.start_ns, run.end_ns):
            assert (bound_ns - schedule.offset_ns) % schedule.interval_ns == 0
        assert run.last_run_ns <= now_ns
        assert run.end_ns <= now_ns + schedule.interval_ns
        longest_ns = max(schedule.pace_ns, MAX_CONTINUOUS_QUERY_WINDOWS * schedule.interval_ns)
        assert run.end_ns - run.start_ns <= schedule.reach_ns + longest_ns + 3 * schedule.interval_ns
    for (_, before), (_, after) in pairwise(runs):
        assert after.last_run_ns >= before.last_run_ns + schedule.pace_ns, "two runs in one interval"


@given(schedules(), look_times(), st.integers(0, 10))
def test_a_new_leader_goes_on_where_the_last_one_was(schedule: Schedule, times: list[int], change: int) -> None:
    before = looks(schedule, times[:change])
    last_run_ns = before[-1][1].last_run_ns if before else None
    assert before + looks(schedule, times[change:], last_run_ns) == looks(schedule, times)


@given(st.integers(1, 100 * MAX_CONTINUOUS_QUERY_WINDOWS), st.integers(0, MINUTE_NS - 1))
def test_a_long_time_without_runs_is_made_up_for_in_steps(windows: int, into_ns: int) -> None:
    schedule = Schedule(MINUTE_NS)
    last_ns = BEGIN_NS // MINUTE_NS * MINUTE_NS
    now_ns = last_ns + windows * MINUTE_NS + into_ns
    runs = looks(schedule, [now_ns] * (windows // MAX_CONTINUOUS_QUERY_WINDOWS + 2), last_ns)
    bounds = [bound for pair in selected(runs) for bound in pair]
    assert bounds[0] == last_ns
    assert bounds[-1] == last_ns + windows * MINUTE_NS
    assert bounds[1:-1:2] == bounds[2::2], "each step begins where the one before ended"


CREATE = "CREATE CONTINUOUS QUERY q ON d {resample}BEGIN SELECT mean(v) INTO m2 FROM m {rest} END"


@pytest.mark.parametrize(
    ("resample", "rest", "expected"),
    [
        ("", "GROUP BY time(1m)", Schedule(MINUTE_NS)),
        ("RESAMPLE EVERY 10s FOR 5m ", "GROUP BY time(1m, 5s), host",
         Schedule(MINUTE_NS, 5 * SECOND_NS, 10 * SECOND_NS, 5 * MINUTE_NS)),
        ("RESAMPLE FOR 2h ", "GROUP BY time(1h) tz('Europe/Berlin')",
         Schedule(HOUR_NS, for_ns=2 * HOUR_NS, zone="Europe/Berlin")),
    ],
)  # fmt: skip
def test_the_schedule_is_read_from_the_statement(resample: str, rest: str, expected: Schedule) -> None:
    query = read_query(CREATE.format(resample=resample, rest=rest))
    assert schedule_of(query, 0) == expected
    assert schedule_of(read_query(to_text(query)), 0) == expected


def test_a_query_without_group_by_time_has_no_schedule() -> None:
    assert schedule_of(read_query("CREATE CONTINUOUS QUERY q ON d BEGIN SELECT v INTO m2 FROM m END"), 0) is None


def test_a_text_that_is_no_continuous_query_is_refused() -> None:
    with pytest.raises(RequestError, match="not a continuous query"):
        read_query("SELECT v FROM m")


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("", None),
        ("WHERE time > now() - 1h", None),
        ("WHERE host = 'a'", "host = 'a'"),
        ("WHERE (host = 'a' OR host = 'b') AND time > 0 ", "host = 'a' OR host = 'b'"),
    ],
)
def test_the_times_of_a_run_replace_those_of_where(where: str, left: str | None) -> None:
    (select,) = parse(f"SELECT mean(v) INTO m2 FROM m {where} GROUP BY time(1m)")
    limited = within(select, Run(BEGIN_NS, BEGIN_NS + MINUTE_NS, 0), 0)
    condition, times = split_condition(limited.condition, 0)
    assert (None if condition is None else to_text(condition).strip("()")) == left
    assert (times.min_ns, times.max_ns) == (BEGIN_NS, BEGIN_NS + MINUTE_NS - 1)
