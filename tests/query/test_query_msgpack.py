"""Answers as MessagePack hold what answers as JSON hold, and are refused when they grow too large."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.errors import RequestError
from dsdbd.model.columns import Column
from dsdbd.model.types import FieldType
from dsdbd.query import AnswerPart, MsgpackDocument, SeriesRows, StatementResult
from dsdbd.query.encode_msgpack import encode_results_msgpack

INT64 = st.integers(-(2**63) + 2, 2**63 - 2)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=40)
ROW = st.tuples(INT64, st.none() | FLOAT, st.none() | INT64, st.none() | st.booleans(), st.none() | TEXT)
UNITS_NS = {None: 1, "ns": 1, "ms": 10**6, "h": 3600 * 10**9}
KINDS = (FieldType.FLOAT, FieldType.INTEGER, FieldType.BOOLEAN, FieldType.STRING)
DTYPES = {FieldType.FLOAT: np.float64, FieldType.INTEGER: np.int64, FieldType.BOOLEAN: np.bool_}


def series(rows: list[tuple[Any, ...]], name: str = "m", *, partial: bool = False) -> SeriesRows:
    times, *columns = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    data = [Column(FieldType.INTEGER, np.array(times, dtype=np.int64))]
    for kind, cells in zip(KINDS, columns, strict=True):
        valid = np.array([cell is not None for cell in cells], dtype=np.bool_)
        if kind is FieldType.STRING:
            values: Any = pa.array(list(cells), pa.string())
        else:
            values = np.array([0 if cell is None else cell for cell in cells], dtype=DTYPES[kind])
        data.append(Column(kind, values, None if valid.all() else valid))
    return SeriesRows(name, {"t": "x"}, ("time", "f", "i", "b", "s"), tuple(data), partial=partial)


def moment_ns(code: int, data: bytes) -> int:
    assert code == 5
    seconds, nanoseconds = struct.unpack(">qI", data)
    return int(seconds * 10**9 + nanoseconds)


def decoded(pieces: Any) -> Any:
    return msgpack.unpackb(b"".join(pieces), ext_hook=moment_ns)


@given(st.lists(ROW, max_size=30), st.sampled_from(list(UNITS_NS)))
def test_the_rows_are_those_given(rows: list[tuple[Any, ...]], epoch: str | None) -> None:
    result = StatementResult(3, (series(rows),), messages=(("warning", "w"),))
    found = decoded(encode_results_msgpack([result], epoch=epoch))["results"][0]
    unit_ns = UNITS_NS[epoch]
    wanted = [[-(-row[0] // unit_ns) if row[0] < 0 else row[0] // unit_ns, *row[1:]] for row in rows]
    assert found["series"][0].pop("values") == wanted
    del found["series"][0]["columns"]
    assert found == {
        "statement_id": 3,
        "messages": [{"level": "warning", "text": "w"}],
        "series": [{"name": "m", "tags": {"t": "x"}}],
    }


@given(st.lists(st.lists(ROW, min_size=1, max_size=8), min_size=1, max_size=5))
def test_parts_that_continue_a_series_are_one(parts: list[list[tuple[Any, ...]]]) -> None:
    document = MsgpackDocument(epoch=None)
    document.begin(0)
    for number, rows in enumerate(parts):
        list(document.part(AnswerPart([series(rows, partial=number == len(parts) - 1)], continues=number > 0)))
    document.end()
    (found,) = decoded(document.pieces())["results"][0]["series"]
    assert found["values"] == [list(row) for rows in parts for row in rows]
    assert found["partial"] is True


@pytest.mark.parametrize("count", [15, 16, 65_535, 65_536, 70_001])
def test_lengths_of_arrays(count: int) -> None:
    times = Column(FieldType.INTEGER, np.arange(count, dtype=np.int64))
    rows = SeriesRows("m", None, ("time", "i"), (times, times))
    document = MsgpackDocument(epoch="ns")
    document.begin(0)
    steps = list(document.part(AnswerPart([rows])))
    document.end(partial=True)
    found = decoded(document.pieces())["results"][0]
    assert found["series"][0]["values"] == [[number, number] for number in range(count)]
    assert found["partial"] is True
    assert len(steps) == -(-count // 5_000)


def test_what_failed_is_taken_back() -> None:
    document = MsgpackDocument(epoch=None)
    for number, error in enumerate([None, "it failed", None]):
        document.begin(number)
        document.mark()
        list(document.part(AnswerPart([series([(1, 1.5, 2, True, "x")])])))
        if error is not None:
            document.back()
        document.end(error)
    first, failed, last = decoded(document.pieces())["results"]
    assert failed == {"error": "it failed"}
    assert first["series"] == last["series"]
    assert (first["statement_id"], last["statement_id"]) == (0, 2)


def test_an_answer_that_grows_too_large_is_refused() -> None:
    document = MsgpackDocument(epoch=None, most_bytes=10_000)
    document.begin(0)
    part = AnswerPart([series([(1, 1.5, 2, True, "x" * 100)] * 50)])
    list(document.part(part))
    with pytest.raises(RequestError, match="chunked=true"):
        list(document.part(part))
