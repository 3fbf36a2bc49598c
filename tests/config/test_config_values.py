from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.config import values
from dsdbd.config.locate import locate_keys
from dsdbd.config.values import (
    MAX_DURATION_NS,
    format_duration,
    join_address,
    parse_address,
    parse_duration,
    parse_join,
    parse_size,
    split_address,
)


@pytest.mark.parametrize(
    ("text", "seconds", "printed"),
    [
        ("0", 0.0, "0s"),
        ("0s", 0.0, "0s"),
        ("1m0s", 60.0, "1m0s"),
        ("500ms", 0.5, "500ms"),
        ("168h", 604_800.0, "168h0m0s"),
        ("1.5h", 5_400.0, "1h30m0s"),
        ("1h15m30.918s", 4_530.918, "1h15m30.918s"),
        ("1500ms", 1.5, "1.5s"),
        ("1.5ms", 0.0015, "1.5ms"),
        ("10us", 0.00001, "10µs"),
        ("10µs", 0.00001, "10µs"),
        ("10μs", 0.00001, "10µs"),
        ("1ns", 1e-9, "1ns"),
        ("1d", 86_400.0, "24h0m0s"),
        ("1w", 604_800.0, "168h0m0s"),
        ("1w2d", 777_600.0, "216h0m0s"),
        (".5s", 0.5, "500ms"),
        ("1.s", 1.0, "1s"),
        ("+5s", 5.0, "5s"),
    ],
)
def test_durations(text: str, seconds: float, printed: str) -> None:
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == printed


@pytest.mark.parametrize("text", ["", "+", "s", "1", ".", ".s", "1s ", " 1s", "1y", "1m-1s", "1e3s", "١s", "1S"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(0, MAX_DURATION_NS))
def test_a_printed_duration_reads_back_equal(nanoseconds: int) -> None:
    seconds = parse_duration(f"{nanoseconds}ns")
    assert abs(seconds - nanoseconds / 1e9) <= 1e-9 * max(1.0, seconds / 1e6)
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_address, parse_join, values.check_host):
        try:
            parse(text)
        except ValueError as error:
            assert str(error)


@given(st.integers(0, 2**40), st.sampled_from(["", "k", "m", "g", "K", "M"]))
def test_sizes_multiply_by_1024(number: int, unit: str) -> None:
    factor = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[unit.lower()]
    if number * factor <= values.MAX_SIZE_BYTES:
        assert parse_size(f"{number}{unit}") == number * factor
    assert parse_size(number) == number


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":8088", "", 8088),
        ("localhost:1", "localhost", 1),
        ("127.0.1.1:65535", "127.0.1.1", 65535),
        ("[::1]:8088", "::1", 8088),
        ("[2001:DB8:0::1]:80", "2001:db8::1", 80),
        ("a_b-c.example.org.:80", "a_b-c.example.org.", 80),
        ("0.0.0.0:08088", "0.0.0.0", 8088),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    assert split_address(join_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text", ["a", ":", "a:", "a:-1", "a:99999999999", "[::1]", "[]:1", "-a:1", "a..b:1", "x" * 64 + ":1"]
)
def test_what_is_not_an_address(text: str) -> None:
    with pytest.raises(ValueError, match=";"):
        split_address(text)


def test_join_lists_keep_order_and_drop_repeats() -> None:
    assert parse_join(" b:1 , a,, b:1, [::1], [::1]:9 ") == ("b:1", "a:8091", "[::1]:8091", "[::1]:9")
    assert parse_join("") == ()
    with pytest.raises(ValueError, match="more than 100"):
        parse_join(",".join(f"h{number}" for number in range(101)))


def test_lines_of_keys_are_found() -> None:
    text = 'a = 1\n# b = 2\n[meta] # c\n  dir = "x = y"\n\n[[udp]]\nx=1\n[[ udp ]]\n"x" = 2\n["http"]\nq.r = 1\n'
    assert locate_keys(text) == {
        ("", None, "a"): 1,
        ("meta", None, ""): 3,
        ("meta", None, "dir"): 4,
        ("udp", 0, ""): 6,
        ("udp", 0, "x"): 7,
        ("udp", 1, ""): 8,
        ("udp", 1, "x"): 9,
        ("http", None, ""): 10,
        ("http", None, "r"): 11,
    }
