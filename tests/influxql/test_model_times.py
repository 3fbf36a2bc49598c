from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS, PRECISION_NS, format_rfc3339nano, parse_time


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01", 0),
        ("1970-01-01 00:00:01", 1_000_000_000),
        ("1970-01-01 00:00:00.5", 500_000_000),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("1970-01-01T01:30:00+01:30", 0),
        ("1969-12-31T22:00:00-02:00", 0),
        ("2262-04-11T23:47:16.854775806Z", MAX_TIME_NS),
        ("1677-09-21T00:12:43.145224194Z", MIN_TIME_NS),
        ("2016-02-29", 1_456_704_000_000_000_000),
    ],
)
def test_parse(text: str, time_ns: int) -> None:
    assert parse_time(text) == time_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2015-02-29",
        "2020-1-1",
        "2020-01-01T00:00:00",
        "2020-01-01 00:00:00Z",
        "2020-01-01 24:00:00",
        "2020-01-01 00:00:60",
        "2020-01-01 00:00:00.",
        "2020-01-01T00:00:00+99:00",
        "2020-01-01T00:00:00.1234567890Z",
        "٢٠٢٠-01-01",
        "2020-01-01 ",
        "0000-01-01",
    ],
)
def test_not_a_time(text: str) -> None:
    with pytest.raises(ValueError, match="invalid timestamp string"):
        parse_time(text)


def test_zone() -> None:
    paris = zoneinfo.ZoneInfo("Europe/Paris")
    assert format_rfc3339nano(parse_time("2020-07-01", paris)) == "2020-06-30T22:00:00Z"
    assert format_rfc3339nano(parse_time("2020-01-01", paris)) == "2019-12-31T23:00:00Z"
    assert parse_time("2020-01-01T00:00:00Z", paris) == parse_time("2020-01-01")


@given(st.integers(-(2**63), 2**63 - 1))
def test_round_trip(time_ns: int) -> None:
    text = format_rfc3339nano(time_ns)
    assert parse_time(text) == time_ns
    assert not text.endswith(("0Z", ".Z")) or "." not in text


@given(st.integers(-6_000_000_000, 9_000_000_000))
def test_seconds_agree_with_datetime(seconds: int) -> None:
    expected = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert format_rfc3339nano(seconds * 1_000_000_000) == expected


def test_precisions() -> None:
    assert {unit: PRECISION_NS[unit] for unit in ("n", "u", "ms", "s", "m", "h")} == {
        "n": 1,
        "u": 10**3,
        "ms": 10**6,
        "s": 10**9,
        "m": 60 * 10**9,
        "h": 3600 * 10**9,
    }
