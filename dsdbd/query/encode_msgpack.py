"""Answers as MessagePack, with the structure and the times of InfluxDB 1.x for ``Accept: application/x-msgpack``.

An array says first how long it is. So a statement's rows are encoded as they come and kept, and the document is written
when it is complete; what is kept has a bound, and chunks, which are documents of their own, need little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import msgspec
import numpy as np

from dsdbd.errors import RequestError
from dsdbd.limits import ENCODE_CELLS, ENCODE_ROWS, MAX_MSGPACK_ANSWER_BYTES
from dsdbd.model.columns import Column, Int64s
from dsdbd.model.times import PRECISION_NS
from dsdbd.model.types import FieldType
from dsdbd.query.answer import AnswerPart
from dsdbd.query.columns import plain_strings
from dsdbd.query.encode import StatementResult
from dsdbd.query.encode_cells import scaled_times
from dsdbd.query.rows import SeriesRows, each_series

_TIME_CODE = 5
_TIME = np.dtype([("seconds", ">i8"), ("nanoseconds", ">u4")])
"""The extension type for times that the MessagePack library of InfluxDB writes: since the epoch, big-endian."""
_SECOND_NS = 1_000_000_000
_encode = msgspec.msgpack.Encoder().encode
_Ext = msgspec.msgpack.Ext
_PARTIAL = _encode("partial") + _encode(True)


def encode_results_msgpack(results: Iterable[StatementResult], *, epoch: str | None = None) -> Iterator[bytes]:
    """Pieces of ``{"results": […]}``; times are extensions without ``epoch``, numbers in its unit with it."""
    document = MsgpackDocument(epoch=epoch)
    for result in results:
        document.begin(result.statement_id, result.messages)
        for _ in document.part(AnswerPart(tuple(result.series))):
            pass
        document.end(result.error, partial=result.partial)
    yield from document.pieces()


def encode_error_msgpack(text: str) -> bytes:
    """A document that says why there is no answer."""
    return _encode({"error": text})


@dataclass(slots=True)
class _Series:
    """One series: what stands before its rows and in how many pairs, and the rows so far."""

    pairs: int
    head: bytes
    partial: bool = False
    rows: int = 0
    pieces: list[bytes] = field(default_factory=list)


class MsgpackDocument:
    """A document that is kept until all of it is there.

    Call for each statement ``begin``, any number of ``part``, ``end``; at last ``pieces``.
    """

    can_tell_errors = True

    def __init__(self, *, epoch: str | None, most_bytes: int = MAX_MSGPACK_ANSWER_BYTES) -> None:
        self._unit_ns = PRECISION_NS.get(epoch, 1) if epoch else None
        self._most_bytes = most_bytes
        self._statement = 0
        self._messages: tuple[dict[str, str], ...] = ()
        self._series: list[_Series] = []
        self._results: list[bytes] = []
        self._count = 0
        self._done_bytes = 0
        self.size_bytes = 0
        """What is kept."""

    def begin(self, statement_id: int, messages: Sequence[tuple[str, str]] = ()) -> bytes:
        """A statement's answer begins; nothing is written yet."""
        self._statement = statement_id
        self._messages = tuple({"level": level, "text": text} for level, text in messages)
        return b""

    def mark(self) -> None:
        """Remember this place, which is the beginning of a statement's rows."""

    def back(self) -> None:
        """Be as at the marked place."""
        self._series = []
        self.size_bytes = self._done_bytes

    def part(self, part: AnswerPart) -> Iterator[bytes]:
        """Keep more series, or more rows of the last one; every step is the work of a few milliseconds.

        Raises RequestError when the answer is too large for this form.
        """
        continues = part.continues and bool(self._series)
        for rows in each_series(part.series):
            if not continues:
                self._series.append(_begun(rows))
                self.size_bytes += len(self._series[-1].head)
            continues = False
            self._series[-1].partial = rows.partial
            yield from self._rows(self._series[-1], rows)

    def _rows(self, series: _Series, rows: SeriesRows) -> Iterator[bytes]:
        step = max(min(ENCODE_ROWS, ENCODE_CELLS // max(len(rows.data), 1)), 1)
        for start in range(0, len(rows), step):
            piece = _encoded(rows, start, min(start + step, len(rows)), self._unit_ns)
            series.pieces.append(piece)
            self.size_bytes += len(piece)
            if self.size_bytes > self._most_bytes:
                raise RequestError(
                    f"the answer takes more than {self._most_bytes >> 20} MB of MessagePack; ask for fewer points, for "
                    "chunks (chunked=true), or for JSON"
                )
            yield b""
        series.rows += len(rows)

    def end(self, error: str | None = None, *, partial: bool = False) -> bytes:
        """A statement's answer ends; nothing is written yet."""
        self._count += 1
        if error is not None:
            self._results.append(encode_error_msgpack(error))
        else:
            self._results += self._result(partial=partial)
        self._series = []
        self._done_bytes = self.size_bytes
        return b""

    def _result(self, *, partial: bool) -> Iterator[bytes]:
        size = 2 + bool(self._messages) + partial
        yield _map_head(size) + _encode("statement_id") + _encode(self._statement)
        if self._messages:
            yield _encode("messages") + _encode(self._messages)
        yield _encode("series") + _array_head(len(self._series))
        for series in self._series:
            yield _map_head(series.pairs + series.partial) + series.head + _array_head(series.rows)
            yield from series.pieces
            if series.partial:
                yield _PARTIAL
        if partial:
            yield _PARTIAL

    def pieces(self) -> Iterator[bytes]:
        """The whole document."""
        yield _map_head(1) + _encode("results") + _array_head(self._count)
        yield from self._results


def _begun(rows: SeriesRows) -> _Series:
    head = []
    if rows.name:
        head.append(_encode("name") + _encode(rows.name))
    if rows.tags:
        head.append(_encode("tags") + _encode({key: rows.tags[key] for key in sorted(rows.tags)}))
    head.append(_encode("columns") + _encode(rows.columns) + _encode("values"))
    return _Series(2 + bool(rows.name) + bool(rows.tags), b"".join(head))


def _encoded(rows: SeriesRows, start: int, stop: int, unit_ns: int | None) -> bytes:
    """Some rows as MessagePack arrays, one after another."""
    cells = [
        _times(column.values[start:stop], unit_ns) if position == rows.time_column else _cells(column, start, stop)
        for position, column in enumerate(rows.data)
    ]
    encoded = _encode(list(zip(*cells, strict=True)))
    return encoded[len(_array_head(stop - start)) :]


def _times(times_ns: Int64s, unit_ns: int | None) -> list[Any]:
    if unit_ns is not None:
        scaled: list[Any] = scaled_times(times_ns, unit_ns).tolist()
        return scaled
    moments = np.empty(len(times_ns), dtype=_TIME)
    moments["seconds"] = times_ns // _SECOND_NS
    moments["nanoseconds"] = times_ns % _SECOND_NS
    return list(map(_Ext, repeat(_TIME_CODE), moments.view(f"V{_TIME.itemsize}").tolist()))


def _cells(column: Column, start: int, stop: int) -> list[Any]:
    piece = Column(column.type, column.values[start:stop], None if column.valid is None else column.valid[start:stop])
    if column.type is FieldType.STRING:
        found: list[Any] = plain_strings(piece).values.to_pylist()
    else:
        found = piece.values.tolist()
    if piece.valid is None:
        return found
    return [value if valid else None for value, valid in zip(found, piece.valid.tolist(), strict=True)]


def _map_head(size: int) -> bytes:
    """The head of a map of up to 15 pairs."""
    return bytes((0x80 | size,))


def _array_head(size: int) -> bytes:
    if size < 16:
        return bytes((0x90 | size,))
    if size < 1 << 16:
        return b"\xdc" + size.to_bytes(2)
    return b"\xdd" + size.to_bytes(4)
