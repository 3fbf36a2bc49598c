"""Points as line protocol: what was parsed comes back as it was."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.columns import Column, Points
from dsdbd.model.line_protocol import Parsed, parse_lines
from dsdbd.model.line_protocol_text import format_lines, joined
from dsdbd.model.types import FieldType
from tests.examples import examples

NOW_NS = 1_700_000_000_123_456_789


def parsed(body: bytes) -> Parsed:
    return parse_lines(body, precision="ns", default_time_ns=NOW_NS)


def text_of(points: Points, step: int) -> bytes:
    pieces = range(0, len(points), step)
    return b"".join(joined(format_lines(points, start, min(start + step, len(points)))) for start in pieces)


def shown(value: object) -> object:
    """A value so that its type and every bit of a float count."""
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


def rows(result: Parsed) -> list[tuple]:
    found = []
    for points in result.points:
        columns = {key: column.to_arrow().to_pylist() for key, column in points.fields.items()}
        for row in range(len(points)):
            values = {key: shown(cells[row]) for key, cells in columns.items() if cells[row] is not None}
            found.append((points.series[points.series_index[row]], int(points.time_ns[row]), values))
    return found


def check(body: bytes, step: int = 3) -> None:
    first = parsed(body)
    again = parsed(b"".join(text_of(points, step) for points in first.points))
    assert not again.errors
    assert not again.conflicts
    assert rows(again) == rows(first)


# Of every special character and some others, escaped or not, in the way of clients. A backslash stands before a letter:
# where it stands before an escaped character, the end of a line depends on the lines behind it, as in InfluxDB 1.x.
def texts(pieces: list[str], least: int = 0) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), min_size=least, max_size=6).map("".join)


NAMES = texts(["a", "b", "é", "#", "{", "'", '"', "\\b", "\\,", "\\ ", "\\="], 1)
STRINGS = texts(["a", " ", ",", "=", "\n", "\r", "#", "é", "日", '\\"', "\\\\", "\\n"])
VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**63), 2**63 - 1).map("{}i".format),
    st.booleans().map(str),
    STRINGS.map('"{}"'.format),
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    name = draw(NAMES)
    tags = "".join(f",{key}={value}" for key, value in draw(st.lists(st.tuples(NAMES, NAMES), max_size=3)))
    fields = ",".join(
        f"{key}={value}" for key, value in draw(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=4))
    )
    return f"{name}{tags} {fields} {draw(st.integers(-(2**62), 2**62))}"


@settings(max_examples=examples(60))
@given(st.lists(lines(), min_size=1, max_size=4), st.integers(1, 5))
def test_what_was_parsed_comes_back(written: list[str], step: int) -> None:
    check("\n".join(written).encode(), step)


def test_a_whole_block_comes_back() -> None:
    source = [
        f'cpu,host=h{row % 7},region=eu\\ west usage={row / 7},idle={row}i,ok={row % 2 == 0},s="x {row}" {row * 10}'
        for row in range(500)
    ] + [f"cpu,host=h{row} other=1e{row % 300} {row}" for row in range(500)]
    check("\n".join(source).encode(), 300)


def test_lines_are_written_as_clients_write_them() -> None:
    (points,) = parsed(b'm\\ 1,b=2,a=1 i=-3i,f=1.5,t=T,s="a \\"b\\" \\\\ c",k\\ =F 7\nm\\ 1,a=1,b=2 f=1e300 8').points
    assert text_of(points, 2).decode().splitlines() == [
        'm\\ 1,a=1,b=2 i=-3i,f=1.5,t=true,s="a \\"b\\" \\\\ c",k\\ =false 7',
        "m\\ 1,a=1,b=2 f=1e+300 8",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_no_line_can_hold_is_left_out(value: float) -> None:
    number = Column(FieldType.FLOAT, np.array([value, value]))
    text = Column(FieldType.STRING, pa.array([None, "x"]), np.array([False, True]))
    points = Points("m", [b"m"], np.zeros(2, np.int32), np.array([1, 2], np.int64), {"v": number, "s": text})
    assert text_of(points, 2) == b'm s="x" 2\n'


def test_no_rows_give_no_lines() -> None:
    (points,) = parsed(b"m v=1 1").points
    assert joined(format_lines(points, 1, 1)) == b""
