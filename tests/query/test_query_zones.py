"""Local clocks over whole arrays agree with zoneinfo, and windows by them cover all times without overlap."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.columns import Column
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS, parse_time
from dsdbd.model.types import FieldType
from dsdbd.query.encode import encode_series
from dsdbd.query.rows import SeriesRows
from dsdbd.query.zones import offset_texts, window_bounds, window_starts, zone_offsets
from tests.examples import examples

S = 1_000_000_000
HOUR = 3600 * S
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns", "Africa/Cairo")
times = st.integers(MIN_TIME_NS // S + 1, MAX_TIME_NS // S - 1).map(lambda second: second * S)
near = st.integers(1_500_000_000, 1_600_000_000).map(lambda second: second * S)


def offset_ns(zone: str, time_ns: int) -> int:
    offset = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time_ns // S)).astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return round(offset.total_seconds()) * S


@settings(max_examples=examples(100), deadline=None)
@given(st.sampled_from(ZONES), st.lists(times, min_size=1, max_size=20))
def test_offsets_are_those_of_zoneinfo(zone: str, chosen: list[int]) -> None:
    found = zone_offsets(zone, np.array(chosen, dtype=np.int64)).tolist()
    assert found == [offset_ns(zone, time_ns) for time_ns in chosen]


@pytest.mark.parametrize(
    ("zone", "before", "change_s", "after"),
    [
        ("Europe/Berlin", 1, 1_553_994_000, 2),
        ("Europe/Berlin", 2, 1_540_688_400, 1),
        ("America/New_York", -4, 1_541_311_200, -5),
        ("Australia/Lord_Howe", 11, 1_554_562_800, 10.5),
    ],
)
def test_offsets_change_at_the_second_of_the_change(zone: str, before: float, change_s: int, after: float) -> None:
    found = zone_offsets(zone, np.array([change_s * S - 1, change_s * S]))
    assert found.tolist() == [before * HOUR, after * HOUR]


@settings(max_examples=examples(150), deadline=None)
@given(
    st.sampled_from(ZONES),
    near,
    st.sampled_from((1, 2, 3, 6, 24, 168)),
    st.integers(0, 30),
    st.lists(st.integers(0, 500)),
)
def test_windows_hold_their_times_and_follow_each_other(
    zone: str, start_ns: int, hours: int, offset_hours: int, steps: list[int]
) -> None:
    moments = start_ns + np.array(sorted({0, *steps}), dtype=np.int64) * (HOUR // 2)
    begin, end = window_bounds(moments, hours * HOUR, offset_hours * HOUR, zone)
    assert bool((begin <= moments).all()) and bool((moments < end).all())
    assert bool((np.diff(begin) >= 0).all())
    # A window ends where the next begins, or before it where time was skipped.
    later = np.flatnonzero(np.diff(begin))
    assert bool((end[later] <= begin[later + 1]).all())


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hours", [24, 168])
def test_days_begin_at_midnight_through_all_changes_of_a_year(zone: str, hours: int) -> None:
    first, _ = window_bounds(np.array([1_546_300_800 * S]), hours * HOUR, 0, zone)
    starts = window_starts(int(first[0]), 1_577_836_800 * S, hours * HOUR, zone)
    local = starts + zone_offsets(zone, starts)
    assert len(starts) in (365, 366, 53)
    if zone != "Africa/Cairo":
        assert set((local % (24 * HOUR)).tolist()) == {0}
    again, _ = window_bounds(starts, hours * HOUR, 0, zone)
    assert again.tolist() == starts.tolist()


def test_texts_of_offsets() -> None:
    moments = np.array([1_540_684_800 * S, 1_540_692_000 * S])
    local, texts = offset_texts("Europe/Berlin", moments)
    assert (local - moments).tolist() == [2 * HOUR, HOUR]
    assert texts.tolist() == [b"+02:00", b"+01:00"]
    assert offset_texts("Europe/London", moments)[1].tolist() == [b"+01:00", b"Z"]
    assert offset_texts("America/St_Johns", moments)[1].tolist() == [b"-02:30", b"-02:30"]


def test_local_times_that_are_twice_or_never() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    # Go's choice: of two the later, and a skipped one by the offset before the change.
    assert parse_time("2018-10-28 02:30:00", berlin) == parse_time("2018-10-28T02:30:00+01:00")
    assert parse_time("2019-03-31 02:30:00", berlin) == parse_time("2019-03-31T02:30:00+01:00")
    assert parse_time("2019-03-31 03:30:00", berlin) == parse_time("2019-03-31T01:30:00Z")


def test_a_window_begins_where_the_clock_makes_it_begin() -> None:
    # Berlin, 28 October 2018: 02:00 to 04:00 has three hours. 1.x lets the window begin with its first point's hour.
    late, start_ns = 1_540_690_200 * S, 1_540_684_800 * S
    begin, end = window_bounds(np.array([late]), 2 * HOUR, 0, "Europe/Berlin")
    assert (begin.tolist(), end.tolist()) == ([start_ns], [start_ns + 3 * HOUR])
    # In descending order its windows are two, as in 1.x.
    begin, _ = window_bounds(np.array([late]), 2 * HOUR, 0, "Europe/Berlin", ascending=False)
    assert begin.tolist() == [start_ns + HOUR]


def test_many_times_are_written_as_few_are() -> None:
    rows = 20_000
    times_ns = 1_540_600_000 * S + np.arange(rows, dtype=np.int64) * 37 * S + np.arange(rows) % 3
    data = (Column(FieldType.INTEGER, times_ns), Column(FieldType.INTEGER, np.arange(rows)))
    for zone in ("Europe/London", "America/St_Johns"):
        whole = SeriesRows("m", None, ("time", "n"), data, timezone=zone)
        text = b"".join(encode_series(whole, None))
        values = json.loads(text)["values"]
        pieces = [whole.slice(start, start + 1000, partial=False) for start in range(0, rows, 1000)]
        few = [row for piece in pieces for row in json.loads(b"".join(encode_series(piece, None)))["values"]]
        assert values == few
    assert values[0][0] == "2018-10-26T21:56:40-02:30"
