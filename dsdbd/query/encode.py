"""Answers as JSON, byte for byte as InfluxDB 1.x writes it.

Columns become text as whole arrays, a few thousand rows at a time, so that no step holds the interpreter for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsdbd.limits import ENCODE_ROWS
from dsdbd.model.columns import Column, Int32s, Int64s
from dsdbd.model.times import PRECISION_NS
from dsdbd.query.columns import coded_strings
from dsdbd.query.encode_cells import JSON, CellTexts, quote, time_parts
from dsdbd.query.encode_few import FEW_CELLS, few_block, few_rows
from dsdbd.query.json_layout import Indenter
from dsdbd.query.rows import SeriesBlock, SeriesRows
from dsdbd.query.text_matrix import Part, join_rows

_FEW_SERIES = 16
_PIECE_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class StatementResult:
    """What one statement of a request answers: rows, or an error; ``messages`` are (level, text).

    ``partial``: more chunks of this statement follow.
    """

    statement_id: int
    series: Iterable[SeriesRows | SeriesBlock] = ()
    error: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    partial: bool = False


def encode_results_json(
    results: Iterable[StatementResult], *, pretty: bool = False, epoch: str | None = None
) -> Iterator[bytes]:
    """Pieces of ``{"results":[…]}`` and a newline; each piece is the work of at most a few milliseconds.

    With ``epoch`` times are numbers in its unit (PRECISION_NS; any other word means nanoseconds, as in InfluxDB 1.x),
    without it RFC3339 in UTC, or in the time zone of the series.
    """
    pieces = _results(results, PRECISION_NS.get(epoch, 1) if epoch else None)
    if not pretty:
        yield from pieces
        return
    layout = Indenter()
    for piece in pieces:
        yield layout.text(piece)


def _results(results: Iterable[StatementResult], unit_ns: int | None) -> Iterator[bytes]:
    some_result = False
    for result in results:
        yield b"," if some_result else b'{"results":['
        some_result = True
        yield f'{{"statement_id":{result.statement_id}'.encode()
        if result.messages:
            items = [f'{{"level":{quote(level)},"text":{quote(text)}}}' for level, text in result.messages]
            yield f',"messages":[{",".join(items)}]'.encode()
        some = False
        for rows in result.series:
            yield b"," if some else b',"series":['
            some = True
            yield from encode_series(rows, unit_ns)
        yield b"]" if some else b""
        if result.partial:
            yield b',"partial":true'
        if result.error is not None:
            yield f',"error":{quote(result.error)}'.encode()
        yield b"}"
    yield b"]}\n" if some_result else b"{}\n"


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is written as series: rows of a block, or of the only series of a SeriesRows.

    ``starts``: int64[s], first row of each series. ``heads``: gives the text before the values of some series.
    """

    starts: Int64s
    heads: Callable[[int, int], list[bytes]]
    data: tuple[Column, ...]
    time_column: int | None
    tail: bytes
    timezone: str

    def __len__(self) -> int:
        return len(self.data[0])


def encode_series(rows: SeriesRows | SeriesBlock, unit_ns: int | None) -> Iterator[bytes]:
    """Pieces of the JSON objects of a block's series, or of one; ``unit_ns`` None writes times as RFC3339."""
    if isinstance(rows, SeriesRows):
        tail = b',"partial":true}' if rows.partial else b"}"
        head = series_head(rows.name, rows.tags, rows.columns)
        if len(rows) == 0:
            yield head + tail
            return
        tail = b"]" + tail
        if len(rows) * len(rows.data) <= FEW_CELLS:
            yield head + b',"values":[' + few_rows(rows.data, rows.time_column, unit_ns, rows.timezone) + tail
            return
        heads = [head + b',"values":[']
        starts = np.zeros(1, np.int64)
        yield from _many(_Rows(starts, lambda *_: heads, rows.data, rows.time_column, tail, rows.timezone), unit_ns)
    elif len(rows) * len(rows.data) <= FEW_CELLS:
        yield few_block(rows, unit_ns)
    else:
        yield from _many(_Rows(rows.starts, _block_heads(rows), rows.data, 0, b"]}", rows.timezone), unit_ns)


def series_head(name: str, tags: Mapping[str, str] | None, columns: Sequence[str]) -> bytes:
    """A series' JSON object up to its columns."""
    head = []
    if name:
        head.append(f'"name":{quote(name)}')
    if tags:
        head.append('"tags":{' + ",".join(f"{quote(k)}:{quote(tags[k])}" for k in sorted(tags)) + "}")
    head.append('"columns":[' + ",".join(map(quote, columns)) + "]")
    return ("{" + ",".join(head)).encode()


def _block_heads(block: SeriesBlock) -> Callable[[int, int], list[bytes]]:
    """The heads of a block's series, made column by column."""
    groups = block.groups
    if len(block.starts) <= _FEW_SERIES:
        return lambda first, last: [
            series_head(*block.name_and_tags(number), block.columns) + b',"values":[' for number in range(first, last)
        ]
    cells: list[bytes | CellTexts] = [b'{"name":', CellTexts(_of_groups(block, groups.names, groups.name_codes), JSON)]
    for position in sorted(range(len(block.dimensions)), key=block.dimensions.__getitem__):
        opening = ',"tags":{' if len(cells) == 2 else ","
        cells.append(f"{opening}{quote(block.dimensions[position])}:".encode())
        cells.append(CellTexts(_of_groups(block, groups.texts[position], groups.codes[position]), JSON))
    columns = '"columns":[' + ",".join(map(quote, block.columns)) + '],"values":['
    end = (("}," if block.dimensions else ",") + columns).encode()

    def heads(first: int, last: int) -> list[bytes]:
        parts: list[Part] = []
        for cell in cells:
            parts += cell.parts(first, last) if isinstance(cell, CellTexts) else [cell]
        return join_rows([*parts, b"\n"], last - first).split(b"\n")[:-1]

    return lambda first, last: [end_of + end for end_of in heads(first, last)]


def _of_groups(block: SeriesBlock, texts: Any, codes: Int32s) -> Column:
    return coded_strings(texts, codes[block.group])


def _many(rows: _Rows, unit_ns: int | None) -> Iterator[bytes]:
    """Whole columns at once, some thousand rows at a time; a piece may end in the midst of a series."""
    cells = [CellTexts(column, JSON) for column in rows.data]
    size = len(rows)
    lasts = np.append(rows.starts[1:], size) - 1
    start = 0
    while start < size:
        stop = start + piece_rows(cells, start, min(start + ENCODE_ROWS, size))
        last_rows = lasts[np.searchsorted(lasts, start) : np.searchsorted(lasts, stop)]
        separators = np.full(stop - start, ord(","), dtype=np.uint8)
        separators[last_rows - start] = ord("\n")
        parts: list[Part] = []
        for position, cell in enumerate(cells):
            parts.append(b"," if position else b"[")
            if position == rows.time_column:
                parts += time_parts(rows.data[position].values[start:stop], unit_ns, rows.timezone)
            else:
                parts += cell.parts(start, stop)
        texts = join_rows([*parts, b"]", separators], stop - start).split(b"\n")
        yield _with_heads(rows, start, stop, texts)
        start = stop


def _with_heads(rows: _Rows, start: int, stop: int, texts: list[bytes]) -> bytes:
    """The rows from ``start`` to ``stop`` with heads where series begin and tails where they end.

    ``texts``: those rows, divided where a series ends, the last one empty if one ends there.
    """
    first, last = np.searchsorted(rows.starts, (start, stop)).tolist()
    heads = rows.heads(first, last) if last > first else []
    if first:
        heads = [b"," + head for head in heads]
    elif len(heads) > 1:
        heads[1:] = [b"," + head for head in heads[1:]]
    ends = len(texts) - 1
    texts[:-1] = [text + rows.tail for text in texts[:-1]]
    if not texts[-1]:
        texts.pop()
    out = [b""] * (len(heads) + len(texts))
    if len(heads) == len(texts):
        out[0::2], out[1::2] = heads, texts
    else:
        # The first text belongs to a series that began in an earlier piece.
        assert len(texts) == len(heads) + 1 >= ends
        out[0::2], out[1::2] = texts, heads
    return b"".join(out)


def piece_rows(cells: Sequence[CellTexts], start: int, stop: int) -> int:
    """Rows of a piece from ``start`` that are encoded at once: fewer than up to ``stop`` where cells are wide."""
    width = sum(cell.width(start, stop) for cell in cells)
    return max(min(stop - start, _PIECE_BYTES // max(width, 1)), 1)
