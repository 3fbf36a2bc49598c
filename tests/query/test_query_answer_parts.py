"""An answer written part by part reads as the answer written at once, wherever it is divided."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.model.columns import Column
from dsdbd.model.types import FieldType
from dsdbd.query import (
    AnswerPart,
    Chunker,
    CsvDocument,
    Indenter,
    JsonDocument,
    SeriesBlock,
    SeriesRows,
    StatementResult,
    encode_results_csv,
    encode_results_json,
)
from dsdbd.query.groups import GroupSet

TITLES = ("time", "a,b", "s")


def rows_of(name: str, tags: dict[str, str] | None, start: int, count: int) -> SeriesRows:
    times = np.arange(start, start + count, dtype=np.int64)
    valid = times % 3 > 0
    data = (
        Column(FieldType.INTEGER, times),
        Column(FieldType.FLOAT, times / 8),
        Column(FieldType.STRING, pa.array([f'"{t}]}}' for t in times.tolist()], pa.string()), valid),
    )
    return SeriesRows(name, tags, TITLES, data)


def block_of(parts: Sequence[SeriesRows]) -> SeriesBlock:
    """Series with rows, of one tag key, as a block."""
    texts = sorted({rows.tags["h"] for rows in parts if rows.tags})
    names = sorted({rows.name for rows in parts})
    name_codes = np.array([names.index(rows.name) for rows in parts], dtype=np.int32)
    codes = np.array([texts.index((rows.tags or {})["h"]) for rows in parts], dtype=np.int32)
    groups = GroupSet(pa.array(names), name_codes, (pa.array(texts),), (codes,))
    starts = np.cumsum([0, *[len(rows) for rows in parts]])[:-1]
    data = []
    for columns in zip(*(rows.data for rows in parts), strict=True):
        if columns[0].type is FieldType.STRING:
            values = pa.concat_arrays([column.values for column in columns])
            data.append(Column(FieldType.STRING, values, np.concatenate([column.valid for column in columns])))
        else:
            data.append(Column(columns[0].type, np.concatenate([column.values for column in columns])))
    return SeriesBlock(groups, np.arange(len(parts), dtype=np.int32), starts, ("h",), TITLES, tuple(data))


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[SeriesRows], list[AnswerPart]]:
    """Series, and the same divided into parts at any rows, some parts as blocks."""
    grouped = draw(st.booleans())
    sizes = draw(st.lists(st.integers(1, 30), max_size=6))
    whole = [
        rows_of(f"m{number // 3}" if grouped else f"m{number}", {"h": f"v{number}"} if grouped else None, 7, size)
        for number, size in enumerate(sizes)
    ]
    parts: list[AnswerPart] = []
    now: list[SeriesRows] = []
    continues = False

    def cut(*, inside: bool) -> None:
        nonlocal now, continues
        as_block = grouped and now and draw(st.booleans())
        parts.append(AnswerPart([block_of(now)] if as_block else now, continues=continues))
        now, continues = [], inside

    for rows in whole:
        at = 0
        while at < len(rows):
            until = min(at + draw(st.integers(1, 40)), len(rows))
            now.append(rows.slice(at, until, partial=False))
            at = until
            if draw(st.booleans()) or at < len(rows):
                cut(inside=at < len(rows))
    if now or not parts:
        cut(inside=False)
    return whole, parts


Drawn = tuple[list[SeriesRows], list[AnswerPart]]
EPOCHS = st.sampled_from((None, "ns", "ms"))
MESSAGES = (("warning", "old"),)


@given(st.lists(answers(), min_size=1, max_size=3), EPOCHS, st.booleans())
def test_a_json_document(statements: list[Drawn], epoch: str | None, pretty: bool) -> None:
    results = [
        StatementResult(number, whole, error="bad" if number == 1 else None, messages=MESSAGES if number else ())
        for number, (whole, _) in enumerate(statements)
    ]
    document = JsonDocument(epoch=epoch)
    pieces = []
    for result, (_, parts) in zip(results, statements, strict=True):
        pieces.append(document.begin(result.statement_id, result.messages))
        for part in parts:
            pieces += document.part(part)
        pieces.append(document.end(result.error))
    pieces.append(document.close())
    if pretty:
        layout = Indenter()
        pieces = [layout.text(piece) for piece in pieces]
    assert b"".join(pieces) == b"".join(encode_results_json(results, pretty=pretty, epoch=epoch))


@given(st.lists(answers(), min_size=1, max_size=3), EPOCHS)
def test_a_csv_document(statements: list[Drawn], epoch: str | None) -> None:
    document = CsvDocument(epoch=epoch)
    pieces = []
    for number, (_, parts) in enumerate(statements):
        pieces.append(document.begin(number))
        for part in parts:
            pieces += document.part(part)
        pieces.append(document.end())
    pieces.append(document.close())
    results = [StatementResult(number, whole) for number, (whole, _) in enumerate(statements)]
    assert b"".join(pieces) == b"".join(encode_results_csv(results, epoch=epoch))


@given(answers(), st.integers(1, 50))
def test_chunks(drawn: Drawn, size: int) -> None:
    whole, parts = drawn
    chunker = Chunker(4, MESSAGES, size)
    found = [chunk for part in parts for chunk in chunker.part(part)]
    found += chunker.end()
    assert {chunk.statement_id for chunk in found} == {4}
    assert all(chunk.messages == MESSAGES for chunk in found)
    assert [chunk.partial for chunk in found] == [True] * (len(found) - 1) + [False]
    expected = []
    for rows in whole:
        for start in range(0, len(rows), size):
            expected.append(rows.slice(start, start + size, partial=start + size < len(rows)))
    expected_results = [StatementResult(4, [rows]) for rows in expected] or [StatementResult(4)]
    plain = [StatementResult(4, chunk.series) for chunk in found]
    assert b"".join(encode_results_json(plain)) == b"".join(encode_results_json(expected_results))


@pytest.mark.parametrize("document", [JsonDocument(epoch="ns"), CsvDocument(epoch="ns")])
def test_rows_are_taken_back(document: JsonDocument | CsvDocument) -> None:
    first = [document.begin(0), *document.part(AnswerPart([rows_of("m", None, 1, 2)])), document.end()]
    opening = document.begin(1)
    document.mark()
    thrown = list(document.part(AnswerPart([rows_of("n", None, 1, 2)])))
    document.back()
    again = list(document.part(AnswerPart([rows_of("n", None, 1, 2)])))
    assert thrown == again
    document.back()
    text = b"".join([*first, opening, document.end("failed"), document.close()])
    if document.can_tell_errors:
        assert json.loads(text)["results"][1] == {"statement_id": 1, "error": "failed"}
    else:
        assert text.count(b"\n") == 3


def test_a_series_with_many_rows_says_partial() -> None:
    sizes = [3, 10_001, 5, 10_000, 12_000, 1]
    block = block_of([rows_of("m", {"h": str(place)}, 0, size) for place, size in enumerate(sizes)])
    shown = rows_of("keys", None, 0, 10_500)
    cut = len(sizes) - 2
    halves = [
        part
        for rows in block.series(cut, cut + 1)
        for part in (rows.slice(0, 7_000, partial=False), rows.slice(7_000, 12_000, partial=False))
    ]
    first, second = (block_of([half]) for half in halves)
    document = JsonDocument(epoch="ns")
    text = document.begin(0) + b"".join(document.part(AnswerPart([block.series(0, cut), first])))
    text += b"".join(document.part(AnswerPart([second, block.series(cut + 1, len(sizes)), shown], continues=True)))
    series = json.loads(text + document.end() + document.close())["results"][0]["series"]
    assert [len(one["values"]) for one in series] == [*sizes, 10_500]
    assert [one.get("partial", False) for one in series] == [False, True, False, False, True, False, False]


def test_no_statement_is_a_document_too() -> None:
    assert JsonDocument(epoch=None).close() == b"".join(encode_results_json([]))
