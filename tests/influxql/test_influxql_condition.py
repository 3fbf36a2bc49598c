from __future__ import annotations

import zoneinfo

import pytest

from dsdbd.errors import RequestError
from dsdbd.influxql import ast, parse, to_text
from dsdbd.influxql.condition import TimeRange, split_condition
from dsdbd.influxql.reduce import reduce_expr

NOW_NS = 1_700_000_000_000_000_000
DAY_2020_NS = 1_577_836_800_000_000_000
HOUR_NS = 3_600_000_000_000


def split(text: str, zone: str | None = None) -> tuple[str | None, int | None, int | None]:
    (select,) = parse(f"SELECT a FROM m WHERE {text}")
    assert isinstance(select, ast.Select)
    remaining, times = split_condition(select.condition, NOW_NS, zoneinfo.ZoneInfo(zone) if zone else None)
    return (None if remaining is None else to_text(remaining)), times.min_ns, times.max_ns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("time > now() - 1h", (None, NOW_NS - HOUR_NS + 1, None)),
        ("time >= now() - 1h and time < now()", (None, NOW_NS - HOUR_NS, NOW_NS - 1)),
        ("now() > time", (None, None, NOW_NS - 1)),
        ("5 <= time", (None, 5, None)),
        ("time = '2020-01-01'", (None, DAY_2020_NS, DAY_2020_NS)),
        ("time > '2020-01-01T01:00:00+01:00'", (None, DAY_2020_NS + 1, None)),
        ("time <= '2020-01-01 00:00:00.000000001'", (None, None, DAY_2020_NS + 1)),
        ("time >= '2020-01-01' - 1h", (None, DAY_2020_NS - HOUR_NS, None)),
        ("time >= '2020-01-01' + 5", (None, DAY_2020_NS + 5, None)),
        ("time >= 1h", (None, HOUR_NS, None)),
        ("time >= -1h", (None, -HOUR_NS, None)),
        ("time >= 5 + 3", (None, 8, None)),
        ("time >= 5 + 3s", (None, 3_000_000_005, None)),
        ("time > 3.5", (None, 4, None)),
        ("time >= now() - 1h * 2", (None, NOW_NS - 2 * HOUR_NS, None)),
        ("(time >= 1 AND time <= 9)", (None, 1, 9)),
        ("time >= 1 OR time <= 9", (None, 1, 9)),
        ("time >= 5 AND time >= 7 AND time <= 3", (None, 7, 3)),
        ("host = 'a'", ("host = 'a'", None, None)),
        ("time >= 1 AND host = 'a' AND (time <= 9 AND b = 2 + 3)", ("host = 'a' AND (b = 5)", 1, 9)),
        ("(host = 'a' OR host = 'b') AND time >= 1", ("host = 'a' OR host = 'b'", 1, None)),
        ("a = 1 OR true", (None, None, None)),
        ("false AND a = 1", ("false", None, None)),
        ("Time >= 3", (None, 3, None)),
        ('"time" >= 3', (None, 3, None)),
        ("time > 9223372036854775807", (None, 2**63 - 1, None)),
        ("time < -9223372036854775808", (None, None, -(2**63))),
    ],
)
def test_split(text: str, expected: tuple[str | None, int | None, int | None]) -> None:
    assert split(text) == expected


def test_zone_applies_to_strings_without_one() -> None:
    assert split("time >= '2020-01-01'", "Europe/Paris") == (None, DAY_2020_NS - HOUR_NS, None)
    assert split("time >= '2020-01-01' + 0s", "Europe/Paris") == (None, DAY_2020_NS - HOUR_NS, None)
    assert split("time >= '2020-01-01T00:00:00Z'", "Europe/Paris") == (None, DAY_2020_NS, None)


BAD_CONDITIONS = [
    ("time > 'x'", "invalid operation: time and *influxql.StringLiteral are not compatible"),
    ("time > '2020-13-01'", "invalid timestamp string"),
    ("time > '2020-01-01T00:00:00'", "invalid timestamp string"),
    ("time > '2020-01-01 00:00'", "invalid timestamp string"),
    ("time > '2020-01-01 00:00:00Z'", "invalid timestamp string"),
    ("time > '2020-01-01 00:00:00.1234567891'", "invalid timestamp string"),
    ("time != 3", "invalid time comparison operator: !="),
    ("time =~ /x/", "invalid operation: time and *influxql.RegexLiteral are not compatible"),
    ("time > true", "invalid operation: time and *influxql.BooleanLiteral are not compatible"),
    ("time > host", "invalid operation: time and *influxql.VarRef are not compatible"),
    ("time > now() - '1h'", "invalid operation: time and *influxql.BinaryExpr are not compatible"),
    ("time > 9223372036854775808", "invalid operation: time and *influxql.UnsignedLiteral are not compatible"),
    ("time > '3000-01-01'", "time 3000-01-01T00:00:00Z overflows time literal"),
    ("time > '1500-01-01'", "time 1500-01-01T00:00:00Z underflows time literal"),
    ("time > '2262-04-11T23:47:16.854775807Z'", "time 2262-04-11T23:47:16Z overflows time literal"),
    ("time > '1677-09-21T00:12:43.145224194Z'", "time 1677-09-21T00:12:43Z underflows time literal"),
    ("a", "invalid condition expression: a"),
    ("'a'", "invalid condition expression: 'a'"),
    ("a = 1 AND b", "invalid condition expression: b"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CONDITIONS)
def test_conditions_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        split(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "reduced"),
    [
        ("2 + 3 * 4", "14"),
        ("5 / 2", "2.500"),
        ("5 / 0", "0.000"),
        ("-7 % 3", "-1"),
        ("5 % 0", "0"),
        ("6 & 3 | 8 ^ 1", "11"),
        ("1.5 + 1", "2.500"),
        ("'a' + 'b'", "'ab'"),
        ("1h + 30m", "90m"),
        ("1h * 2", "2h"),
        ("1h / 2", "30m"),
        ("1h / 0", "0s"),
        ("a + (2 + 3)", "a + 5"),
        ("(a + 2)", "a + 2"),
        ("mean(a + (1 + 1))", "mean(a + 2)"),
        ("now() - now()", "0s"),
        ("9223372036854775807 + 1", "9223372036854775807 + 1"),
        ("18446744073709551615 - 1", "18446744073709551614"),
        ("'x' - 1h", "'x' - 1h"),
    ],
)
def test_reduce(text: str, reduced: str) -> None:
    (select,) = parse(f"SELECT {text} FROM m")
    assert isinstance(select, ast.Select)
    assert to_text(reduce_expr(select.fields[0].expr, NOW_NS)) == reduced


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 = 1.0", True),
        ("1h > 59m", True),
        ("'a' = 'b'", False),
        ("'2020-01-01' = '2020-01-01T00:00:00Z'", True),
        ("'2020-01-01' < '2020-01-02'", True),
        ("true = false", False),
        ("-1 < 18446744073709551615", True),
    ],
)
def test_comparisons_of_constants(text: str, value: bool) -> None:
    (select,) = parse(f"SELECT a FROM m WHERE {text}")
    assert isinstance(select, ast.Select)
    assert select.condition is not None
    assert reduce_expr(select.condition) == ast.BooleanLiteral(value)


def test_intersection() -> None:
    assert TimeRange(1, None).intersect(TimeRange(None, 5)) == TimeRange(1, 5)
    assert TimeRange(1, 9).intersect(TimeRange(3, 5)) == TimeRange(3, 5)
    assert TimeRange().intersect(TimeRange()).is_unbounded
