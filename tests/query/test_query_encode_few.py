"""Small answers, which a JSON encoder writes, are byte for byte what whole-array work writes of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsdbd.model.columns import Column
from dsdbd.model.times import format_rfc3339nano
from dsdbd.model.types import FieldType
from dsdbd.query import SeriesBlock, SeriesRows, encode
from dsdbd.query.columns import coded_strings
from dsdbd.query.encode_cells import float_text, quote
from dsdbd.query.encode_few import few_rows
from dsdbd.query.groups import GroupSet

_FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**22), 10**22).map(float),
    st.floats(-1e16, 1e16).map(lambda value: round(value, 3)),
    st.floats(1e-8, 1e-3),
)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
_INTS = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(_FLOATS, max_size=20))
@example([0.0, -0.0, 1e15, 1e15 - 1, 999999999999999.9, 1e-4, 9.999e-5, 1e21, 1e20, 5e-324, 0.1, 3.0])
def test_floats_have_the_text_of_go(values: list[float]) -> None:
    column = Column(FieldType.FLOAT, np.array(values, dtype=np.float64))
    assert few_rows((column,), None, None).decode() == ",".join(f"[{float_text(value)}]" for value in values)


@given(st.lists(st.one_of(_TEXTS, st.none()), max_size=8))
@example(["<&>", "\u2028\u2029", '"\\', "\x08\x0c\x1f\x7f", "é\U0001f600", None, ""])
def test_strings_have_the_escapes_of_go(texts: list[str | None]) -> None:
    valid = np.array([text is not None for text in texts], dtype=np.bool_)
    column = Column(FieldType.STRING, pa.array(texts, pa.string()), None if valid.all() else valid)
    wanted = ",".join(f"[{'null' if text is None else quote(text)}]" for text in texts)
    assert few_rows((column,), None, None).decode() == wanted


@given(st.lists(_INTS, min_size=1, max_size=8))
@example([-(1 << 63), (1 << 63) - 1, -1, 0, 1_500_000_000_000_000_000, 1_500_000_000_120_000_000])
def test_times_are_those_of_go(times: list[int]) -> None:
    column = Column(FieldType.INTEGER, np.array(times, dtype=np.int64))
    assert few_rows((column,), 0, None).decode() == ",".join(f'["{format_rfc3339nano(time)}"]' for time in times)


@given(
    st.lists(_INTS | st.integers(0, 200_000).map(lambda second: second * 10**9), min_size=17, max_size=40),
    st.integers(1, 4),
)
def test_many_times_are_those_of_go(times: list[int], again: int) -> None:
    column = Column(FieldType.INTEGER, np.array(times * again, dtype=np.int64))
    wanted = ",".join(f'["{format_rfc3339nano(time)}"]' for time in times * again)
    assert few_rows((column,), 0, None).decode() == wanted


def test_times_of_whole_seconds_have_no_fraction() -> None:
    times = [second * 10**9 for second in range(-90_000, 90_000, 7_201)]
    column = Column(FieldType.INTEGER, np.array(times, dtype=np.int64))
    assert few_rows((column,), 0, None).decode() == ",".join(f'["{format_rfc3339nano(time)}"]' for time in times)


@st.composite
def _blocks(draw: st.DrawFn) -> SeriesBlock:
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=20))
    size, count = sum(lengths), len(lengths)

    def valid() -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
        marks = draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=size, max_size=size)))
        return None if marks is None else np.array(marks, dtype=np.bool_)

    tags = sorted(draw(st.sets(_TEXTS, min_size=count, max_size=count)))
    numbers = np.arange(count, dtype=np.int32)
    dimensions = draw(st.sampled_from([(), ("host",), ("zone", "host")]))
    texts = tuple(pa.array(tags, pa.string()) for _ in dimensions)
    groups = GroupSet(
        pa.array(["cpu<"], pa.string()), np.zeros(count, dtype=np.int32), texts, tuple(numbers for _ in dimensions)
    )
    codes = draw(st.lists(st.integers(-1, 1), min_size=size, max_size=size))
    data = (
        Column(FieldType.INTEGER, np.array(draw(st.lists(_INTS, min_size=size, max_size=size)), dtype=np.int64)),
        Column(FieldType.FLOAT, np.array(draw(st.lists(_FLOATS, min_size=size, max_size=size))), valid()),
        Column(FieldType.BOOLEAN, np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size))), valid()),
        coded_strings(pa.array(["a", "b<"], pa.string()), np.array(codes, dtype=np.int32)),
    )
    starts = np.cumsum([0, *lengths[:-1]])
    return SeriesBlock(groups, numbers, starts, dimensions, ("time", "f", "b", "s"), data)


@given(_blocks(), st.sampled_from([None, 1, 1000, 60_000_000_000]))
def test_blocks_are_the_same_either_way(block: SeriesBlock, unit_ns: int | None) -> None:
    few = b"".join(encode.encode_series(block, unit_ns))
    rows = [b"".join(encode.encode_series(one, unit_ns)) for one in block]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "FEW_CELLS", 0)
        many = b"".join(encode.encode_series(block, unit_ns))
    assert few == many == b",".join(rows)


def test_no_rows_are_an_empty_list() -> None:
    nothing = SeriesRows("cpu", None, ("time",), (Column(FieldType.INTEGER, np.empty(0, dtype=np.int64)),))
    assert b"".join(encode.encode_series(nothing, 1)) == b'{"name":"cpu","columns":["time"]}'
