"""Answers as text: JSON, pretty JSON, chunks and CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Column
from dsdbd.model.times import format_rfc3339nano
from dsdbd.model.types import FieldType
from dsdbd.query import (
    AnswerPart,
    Chunker,
    SeriesBlock,
    SeriesRows,
    StatementResult,
    decode_plan,
    decode_schema,
    encode_results_csv,
    encode_results_json,
    show_finish,
)
from dsdbd.query.columns import coded_strings, plain_strings
from dsdbd.query.encode_cells import float_parts, float_text, float_texts, quote
from dsdbd.query.float_digits import shortest_digits
from dsdbd.query.groups import GroupSet
from dsdbd.query.text_matrix import Part, integer_parts, join_rows, rfc3339_parts
from dsdbd.query.wire import decode_parts
from tests.query.influx_reference import filled_influxd
from tests.query.query_engine import MemoryShard, Row, column_of, parse_one, run_query
from tests.query.sample_data import ROWS
from tests.reference.influxd import needs_influxd

T = 1_500_000_000_000_000_000
ODD = [
    Row("odd", (("ta,g", "x y"),), T + 123456789, (("f", 1e21), ("g", 1e-7), ("h", 'a<b>&"\\ü\t\\u0001'))),
    Row("odd", (), T + 120000000, (("f", 5.0), ("g", 123456789.125), ("k", 1e20))),
    Row("odd", (), T + 1_000_000_000, (("f", 0.000001), ("g", 1.5e15), ("k", -1e-9))),
    Row("odd", (), T + 2_000_000_000, (("s", "ctl\x01\x08\x0c\x7f\u2028line"), ("f", 1e10), ("k", 123456789012345.6))),
    Row("odd", (), -1_500_000_001, (("s", " leading"), ("b", False), ("i", -(2**63)))),
    Row("odd", (), -1, (("s", ""), ("b", True), ("i", 2**63 - 1))),
]
QUERIES = (
    "select * from odd",
    "select * from odd group by *",
    "select v, i from cpu group by host",
    "select v from no",
)


def body(rows: list[SeriesRows], *, pretty: bool = False, epoch: str | None = None) -> str:
    return b"".join(encode_results_json([StatementResult(0, rows)], pretty=pretty, epoch=epoch)).decode()


@pytest.mark.slow
@pytest.mark.debian
@needs_influxd
def test_texts_are_those_of_influxd(tmp_path: Path) -> None:
    shards = [[MemoryShard(ODD + ROWS)]]
    with filled_influxd(tmp_path, ODD + ROWS) as server:

        def theirs(query: str, **parameters: str) -> str:
            return server.query(query, db="d", **parameters).body.decode()

        for query in QUERIES:
            rows = run_query(query, shards, 0)
            for epoch in ("ns", "n", "u", "ms", "s", "m", "h", "nothing"):
                assert body(rows, epoch=epoch) == theirs(query, epoch=epoch)
            assert body(rows) == theirs(query)
            assert body(rows, pretty=True) == theirs(query, pretty="true")
            for size in (1, 2, 3, 100):
                chunks = chunked(rows, size)
                ours = "".join(b"".join(encode_results_json([chunk])).decode() for chunk in chunks)
                assert ours == theirs(query, chunked="true", chunk_size=str(size))
            ours = b"".join(encode_results_csv([StatementResult(0, rows)])).decode()
            assert ours == theirs(query, accept="application/csv")


def chunked(rows: Sequence[SeriesRows], size: int) -> list[StatementResult]:
    chunker = Chunker(0, (), size)
    return [*chunker.part(AnswerPart(rows)), *chunker.end()]


def lines(parts: list[Part], rows: int) -> list[str]:
    return join_rows([*parts, b"\n"], rows).decode().split("\n")[:-1]


DECIMALS = st.integers(-(10**16), 10**16).flatmap(lambda n: st.integers(0, 8).map(lambda places: n / 10**places))


@given(st.lists(DECIMALS | st.floats(allow_nan=False, allow_infinity=False), min_size=1))
@example([-0.0, 0.0])
@example([12.5, 0.1, 1e-7, 100.0])
def test_floats_read_back_and_use_exponents_only_far_out(values: list[float]) -> None:
    for value, text in zip(values, lines(float_parts(np.array(values)), len(values)), strict=True):
        assert float(text) == value
        assert math.copysign(1, float(text)) == math.copysign(1, value)
        assert ("e" in text) == (value != 0 and not 1e-6 <= abs(value) < 1e21)
        assert not text.endswith(".0")
        assert text == float_text(value)
    for value, text in zip(values, lines(float_parts(np.array(values), exponents=False), len(values)), strict=True):
        assert float(text) == value
        assert "e" not in text


@given(st.lists(st.floats(0.5, 2e9) | st.floats(1, 100).map(lambda value: float(f"{value:.16g}")), min_size=1))
@example([2.0**power for power in range(32)])
@example([1 / 3 + whole for whole in range(1, 5000)])
@example([math.nextafter(whole / 100, 0) for whole in range(100, 5000)])
def test_digits_are_the_shortest_or_not_known(values: list[float]) -> None:
    whole, fraction, unknown = shortest_digits(np.array(values))
    for value, above, below, missing in zip(values, whole, fraction, unknown, strict=True):
        if not missing:
            assert f"{above}.{below:016d}".rstrip("0").rstrip(".") == repr(value).removesuffix(".0")
        if not 1 <= value < 1e9:
            assert missing
    if len(values) > 1000:
        assert np.count_nonzero(unknown) < len(values) // 10


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_times_are_those_of_the_time_module(times: list[int]) -> None:
    array = np.array(times, dtype=np.int64)
    assert lines(rfc3339_parts(array), len(times)) == [format_rfc3339nano(t) for t in times]
    assert lines(integer_parts(array), len(times)) == [str(t) for t in times]


@given(st.lists(st.none() | st.text(), min_size=1, max_size=20), st.booleans())
def test_json_reads_back(texts: list[str | None], pretty: bool) -> None:
    texts = [None if text is None else text.encode("utf-8", "ignore").decode() for text in texts]
    column = column_of(list(texts), FieldType.STRING)
    rows = SeriesRows("m", {"t": "v"}, ("a",), (column,), None)
    answer = json.loads(body([rows], pretty=pretty))
    assert answer["results"][0]["series"][0]["values"] == [[text] for text in texts]
    assert all(json.loads(quote(text)) == text for text in texts if text is not None)


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.none() | st.floats(allow_nan=False, allow_infinity=False))),
    st.sampled_from((None, "s", "u")),
)
def test_few_rows_and_many_rows_read_the_same(points: list[tuple[int, float | None]], epoch: str | None) -> None:
    points = points or [(0, None)]
    times = Column(FieldType.INTEGER, np.array([time_ns for time_ns, _ in points], dtype=np.int64))
    data = (times, column_of([value for _, value in points], FieldType.FLOAT))
    few = SeriesRows("m", None, ("time", "v"), data)
    again = -(-100 // len(points))
    many = SeriesRows(
        "m", None, few.columns, tuple(column.take(np.tile(np.arange(len(few)), again)) for column in data)
    )
    one = json.loads(body([few], epoch=epoch))["results"][0]["series"][0]["values"]
    assert json.loads(body([many], epoch=epoch))["results"][0]["series"][0]["values"] == one * again


def test_results_carry_errors_messages_and_partial() -> None:
    results = [
        StatementResult(0, messages=(("warning", "deprecated"),)),
        StatementResult(1, error="it <failed>"),
        StatementResult(2, partial=True),
    ]
    assert b"".join(encode_results_json(results)).decode() == (
        '{"results":[{"statement_id":0,"messages":[{"level":"warning","text":"deprecated"}]},'
        '{"statement_id":1,"error":"it \\u003cfailed\\u003e"},{"statement_id":2,"partial":true}]}\n'
    )


@given(st.lists(st.integers(0, 7), max_size=5), st.integers(1, 4))
def test_chunks_hold_every_row_once_and_say_what_follows(lengths: list[int], size: int) -> None:
    series = [
        SeriesRows(f"m{index}", None, ("n",), (Column(FieldType.INTEGER, np.arange(length)),), None)
        for index, length in enumerate(lengths)
        if length
    ]
    chunks = chunked(series, size)
    assert [chunk.partial for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    seen: dict[str, list[int]] = {}
    for chunk in chunks:
        for rows in chunk.series:
            assert 0 < len(rows) <= size
            seen.setdefault(rows.name, []).extend(rows.data[0].values.tolist())
            assert rows.partial == (len(seen[rows.name]) < lengths[int(rows.name[1:])])
    assert seen == {rows.name: list(range(len(rows))) for rows in series}


@example(b"\x81\xa1\x80")  # a name that is not UTF-8
@given(st.binary(max_size=60))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    for decode in (decode_plan, decode_parts, decode_schema):
        try:
            decode(data)
        except CorruptData as error:
            assert str(len(data)) in error.message or "partial" in error.message
    statement = parse_one("show series")
    try:
        list(show_finish(statement, [data]))
    except CorruptData as error:
        assert "cannot be decoded" in error.message


@given(
    st.lists(st.tuples(st.text(max_size=5), st.integers(1, 40)), min_size=1, max_size=12, unique_by=lambda one: one[0]),
    st.lists(st.none() | st.text(max_size=8) | st.just("a\0b\n"), min_size=1, max_size=5),
    st.sampled_from((None, "ms")),
)
def test_a_block_reads_like_its_series_one_by_one(
    groups: list[tuple[str, int]], texts: list[str | None], epoch: str | None
) -> None:
    texts = [None if text is None else text.encode("utf-8", "ignore").decode() for text in texts]
    groups = sorted({name.encode("utf-8", "ignore").decode(): length for name, length in groups}.items())
    lengths = np.array([length for _, length in groups])
    rows, some = int(lengths.sum()), np.arange(int(lengths.sum()))
    valid = some % 3 > 0
    codes = np.array([-1 if text is None else place for place, text in enumerate(texts)], dtype=np.int32)
    coded = coded_strings(pa.array(["" if text is None else text for text in texts]), codes[some % len(texts)])
    block = SeriesBlock(
        GroupSet(
            pa.array(["m"]),
            np.zeros(len(groups), dtype=np.int32),
            (pa.array([name for name, _ in groups]),),
            (np.arange(len(groups), dtype=np.int32),),
        ),
        np.arange(len(groups), dtype=np.int32),
        np.cumsum(lengths) - lengths,
        ("t",),
        ("time", "f", "i", "b", "s", "c"),
        (
            Column(FieldType.INTEGER, T + some * 1_234_567_890),
            Column(FieldType.FLOAT, np.where(some % 5 > 0, some / 8, some / 7), valid),
            Column(FieldType.INTEGER, some**6 * -1),
            Column(FieldType.BOOLEAN, some % 2 > 0, ~valid),
            plain_strings(coded),
            coded,
        ),
    )
    assert len(block) == rows
    few = [one.slice(row, row + 1, partial=False) for one in block for row in range(len(one))]
    whole = json.loads(b"".join(encode_results_json([StatementResult(0, [block])], epoch=epoch)))
    slow = json.loads(b"".join(encode_results_json([StatementResult(0, few)], epoch=epoch)))
    series = whole["results"][0]["series"]
    assert [one["tags"] for one in series] == [{"t": name} for name, _ in groups]
    assert [len(one["values"]) for one in series] == lengths.tolist()
    assert [row for one in series for row in one["values"]] == [
        row for one in slow["results"][0]["series"] for row in one["values"]
    ]
    assert b"".join(encode_results_json([StatementResult(0, [block])])) == b"".join(
        encode_results_json([StatementResult(0, list(block))])
    )
    assert b"".join(encode_results_csv([StatementResult(0, [block])], epoch=epoch)) == b"".join(
        encode_results_csv([StatementResult(0, list(block))], epoch=epoch)
    )


def test_infinite_values_are_null_in_json_and_named_in_csv() -> None:
    values = np.array([1.5, math.inf, -math.inf])
    assert float_texts(values).to_pylist() == ["1.5", "null", "null"]
    assert [float_text(value) for value in values.tolist()] == ["1.5", "null", "null"]
    assert float_texts(values, exponents=False).to_pylist() == ["1.5", "+Inf", "-Inf"]
