"""Answers written while they come: a document grows part by part, and chunks are cut across the parts.

What is written is what ``encode_results_json`` and ``encode_results_csv`` write of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dsdbd.model.times import PRECISION_NS
from dsdbd.query.columns import concat
from dsdbd.query.encode import StatementResult, encode_series, series_head
from dsdbd.query.encode_cells import quote
from dsdbd.query.encode_csv import CsvWriter
from dsdbd.query.ordering import run_lengths
from dsdbd.query.rows import SeriesBlock, SeriesRows, each_series

_VALUES = b',"values":['
_END = b"]}"
MARKED_ROWS = 10_000
"""A series of a SELECT with more rows says ``partial``, although all of them are there, as InfluxDB 1.x says it."""
_UNCOUNTED = -(1 << 62)


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """Some series of a statement's answer; with ``continues`` the first is more of the last one of the part before."""

    series: Sequence[SeriesRows | SeriesBlock]
    continues: bool = False

    def __len__(self) -> int:
        return sum(map(len, self.series))


class JsonDocument:
    """``{"results":[…]}`` and a newline, piece by piece; the pieces of a part are the work of a few milliseconds each.

    Call for each statement ``begin``, any number of ``part``, ``end``; at last ``close``.
    """

    can_tell_errors = True

    def __init__(self, *, epoch: str | None) -> None:
        self._unit_ns = PRECISION_NS.get(epoch, 1) if epoch else None
        self._statements = 0
        self._series = False
        self._held = b""
        self._rows = 0

    def begin(self, statement_id: int, messages: Sequence[tuple[str, str]] = ()) -> bytes:
        """The beginning of a statement's result."""
        opening = '{"results":[' if self._statements == 0 else ","
        self._statements += 1
        self._series, self._held = False, b""
        items = [f'{{"level":{quote(level)},"text":{quote(text)}}}' for level, text in messages]
        told = f',"messages":[{",".join(items)}]' if items else ""
        return f'{opening}{{"statement_id":{statement_id}{told}'.encode()

    def mark(self) -> None:
        """Remember this place, which must be the beginning of a statement's rows."""

    def back(self) -> None:
        """Be as at the marked place: what was written since then is thrown away."""
        self._series, self._held = False, b""

    def part(self, part: AnswerPart) -> Iterator[bytes]:
        """More series, or more rows of the last one."""
        series = list(part.series)
        if part.continues and self._held and series:
            yield from self._more(next(each_series(series[:1])))
            series = [*_behind_first(series[0]), *series[1:]]
        for rows in _apart(series):
            if isinstance(rows, SeriesBlock) and len(rows) == 0:
                continue
            yield self._ended() + (b"," if self._series else b',"series":[')
            self._series, self._held = True, b""
            self._rows = _last_rows(rows)
            yield from self._holding_end(encode_series(rows, self._unit_ns))

    def _ended(self) -> bytes:
        """The end of the last series."""
        held, self._held = self._held, b""
        return b'],"partial":true}' if held == _END and self._rows > MARKED_ROWS else held

    def _more(self, rows: SeriesRows) -> Iterator[bytes]:
        """Rows of the series that was written last, whose end is still held back."""
        if len(rows) == 0:
            return
        opening = len(series_head(rows.name, rows.tags, rows.columns)) + len(_VALUES)
        pieces = encode_series(rows, self._unit_ns)
        first = b""
        while len(first) < opening:
            first += next(pieces)
        yield b","
        self._held = b""
        self._rows += len(rows)
        yield from self._holding_end(_chain(first[opening:], pieces))

    def _holding_end(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces without the end of the last series, to which more rows may come."""
        held = b""
        for piece in pieces:
            text = held + piece
            held = text[-len(_END) :]
            yield text[: -len(_END)]
        self._held = held

    def end(self, error: str | None = None, *, partial: bool = False) -> bytes:
        """The end of a statement's result; ``partial``: it is not the whole answer."""
        told = b',"partial":true' if partial else b""
        told += b"" if error is None else f',"error":{quote(error)}'.encode()
        return self._ended() + (b"]" if self._series else b"") + told + b"}"

    def close(self) -> bytes:
        """The end of the document."""
        return b"]}\n" if self._statements else b"{}\n"

    def pieces(self) -> Iterator[bytes]:
        """What is left to write at the end."""
        yield self.close()


def _apart(series: Iterable[SeriesRows | SeriesBlock]) -> Iterator[SeriesRows | SeriesBlock]:
    """The same, where a series that says ``partial`` is the last of its block."""
    for rows in series:
        if not isinstance(rows, SeriesBlock) or len(rows) <= MARKED_ROWS or len(rows.starts) == 1:
            yield rows
            continue
        long = np.flatnonzero(run_lengths(rows.starts, len(rows)) > MARKED_ROWS)
        cuts = [0, *(long + 1).tolist(), len(rows.starts)]
        yield from (rows.series(first, last) for first, last in pairwise(cuts) if first < last)


def _behind_first(rows: SeriesRows | SeriesBlock) -> list[SeriesBlock]:
    """What is left without the first series."""
    if not isinstance(rows, SeriesBlock) or len(rows.starts) < 2:
        return []
    return [rows.series(1, len(rows.starts))]


def _last_rows(rows: SeriesRows | SeriesBlock) -> int:
    """Rows of the last series, as they count for ``partial``."""
    return len(rows) - int(rows.starts[-1]) if isinstance(rows, SeriesBlock) else _UNCOUNTED


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


class CsvDocument:
    """The same as CSV, which has no place for statements without rows and for errors."""

    can_tell_errors = False

    def __init__(self, *, epoch: str | None) -> None:
        self._writer = self._marked = CsvWriter(epoch)
        self._statement = 0

    def begin(self, statement_id: int, messages: Sequence[tuple[str, str]] = ()) -> bytes:
        """Nothing is written yet."""
        del messages
        self._statement = statement_id
        return b""

    def mark(self) -> None:
        """Remember this place."""
        self._marked = copy(self._writer)

    def back(self) -> None:
        """Be as at the marked place: what was written since then is thrown away."""
        self._writer = self._marked

    def part(self, part: AnswerPart) -> Iterator[bytes]:
        """More series, or more rows of the last one."""
        yield from self._writer.series(self._statement, part.series)

    def end(self, error: str | None = None, *, partial: bool = False) -> bytes:
        """Nothing is written."""
        del error, partial
        return b""

    def close(self) -> bytes:
        """Nothing is written."""
        return b""

    def pieces(self) -> Iterator[bytes]:
        """Nothing is left to write."""
        yield self.close()


class Chunker:
    """Cuts one statement's answer into results of at most ``chunk_rows`` rows of one series, for ``chunked=true``.

    Every result but the last says ``partial``; so does every series but its last piece.
    """

    def __init__(self, statement_id: int, messages: tuple[tuple[str, str], ...], chunk_rows: int) -> None:
        self._result = StatementResult(statement_id, messages=messages)
        self._size = chunk_rows
        self._pieces: list[SeriesRows] = []
        self._held: StatementResult | None = None
        """The newest piece: what it says of what follows is known when the next one comes."""

    def part(self, part: AnswerPart) -> Iterator[StatementResult]:
        """The results that are complete with this part."""
        for number, rows in enumerate(each_series(part.series)):
            if number or not part.continues:
                yield from self._close()
            yield from self._rows(rows)

    def _rows(self, rows: SeriesRows) -> Iterator[StatementResult]:
        start = 0
        while start < len(rows) or not (len(rows) or self._pieces):
            room = self._size - sum(map(len, self._pieces))
            if room == 0:
                yield from self._hold(partial=True)
                room = self._size
            self._pieces.append(rows.slice(start, start + room, partial=False))
            start += room

    def _close(self) -> Iterator[StatementResult]:
        """The series ends."""
        if self._pieces:
            yield from self._hold(partial=False)

    def _hold(self, *, partial: bool) -> Iterator[StatementResult]:
        whole = replace(_joined(self._pieces), partial=partial)
        self._pieces = []
        if self._held is not None:
            yield replace(self._held, partial=True)
        self._held = replace(self._result, series=(whole,))

    def end(self) -> Iterator[StatementResult]:
        """What is left."""
        yield from self._close()
        yield self._result if self._held is None else self._held


def _joined(pieces: Sequence[SeriesRows]) -> SeriesRows:
    if len(pieces) == 1:
        return pieces[0]
    data = tuple(concat(list(columns)) for columns in zip(*(piece.data for piece in pieces), strict=True))
    return replace(pieces[0], data=data)
