"""Answers as CSV, as InfluxDB 1.x writes them for ``Accept: application/csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

import numpy as np

from dsdbd.limits import ENCODE_ROWS
from dsdbd.model.columns import Int64s
from dsdbd.model.times import PRECISION_NS
from dsdbd.query.encode import StatementResult, piece_rows
from dsdbd.query.encode_cells import CSV, CellTexts, time_parts
from dsdbd.query.rows import SeriesBlock, SeriesRows
from dsdbd.query.text_matrix import ZERO, Part, join_rows

_ESCAPES = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\="})


def encode_results_csv(results: Iterable[StatementResult], *, epoch: str | None = None) -> Iterator[bytes]:
    """Pieces of the CSV text: per statement one header line, again where the columns change; blank lines between.

    Times are numbers, nanoseconds without ``epoch``. Statements without rows, errors too, leave nothing. Results of
    one statement may come in chunks.
    """
    writer = CsvWriter(epoch)
    for result in results:
        yield from writer.series(result.statement_id, result.series)


class CsvWriter:
    """Writes series after series, and a header line where a statement begins or the columns change."""

    def __init__(self, epoch: str | None) -> None:
        self._unit_ns = PRECISION_NS.get(epoch or "", 1)
        self._statement: int | None = None
        self._titles: tuple[str, ...] = ()

    def series(self, statement_id: int, series: Iterable[SeriesRows | SeriesBlock]) -> Iterator[bytes]:
        """Pieces of the text of some series; rows that continue the series before them are no different."""
        for rows in series:
            if statement_id != self._statement or rows.columns != self._titles:
                yield b"" if self._statement is None else b"\n"
                self._statement, self._titles = statement_id, rows.columns
                yield _line(("name", "tags", *rows.columns))
            yield from _rows(rows, self._unit_ns)


def _line(cells: Iterable[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(list(cells))
    return out.getvalue().encode()


def _prefixes(rows: SeriesRows | SeriesBlock, first: int, last: int) -> list[bytes]:
    """What stands before the values of some series' rows."""
    found = []
    for one in [rows] if isinstance(rows, SeriesRows) else rows.series(first, last):
        tags = one.tags or {}
        pairs = [f"{key.translate(_ESCAPES)}={tags[key].translate(_ESCAPES)}" for key in sorted(tags) if tags[key]]
        found.append(_line((one.name, ",".join(pairs)))[:-1].replace(b"\0", ZERO))
    return found


def _rows(rows: SeriesRows | SeriesBlock, unit_ns: int) -> Iterator[bytes]:
    cells = [CellTexts(column, CSV) for column in rows.data]
    starts: Int64s = rows.starts if isinstance(rows, SeriesBlock) else np.zeros(1, dtype=np.int64)
    time_column = 0 if isinstance(rows, SeriesBlock) else rows.time_column
    start = 0
    while start < len(rows):
        stop = start + piece_rows(cells, start, min(start + ENCODE_ROWS, len(rows)))
        first, last = int(np.searchsorted(starts, start, side="right")) - 1, int(np.searchsorted(starts, stop))
        series = np.searchsorted(starts, np.arange(start, stop), side="right") - 1 - first
        parts: list[Part] = [np.array(_prefixes(rows, first, last))[series]]
        for position, cell in enumerate(cells):
            parts.append(b",")
            if position == time_column:
                parts += time_parts(rows.data[position].values[start:stop], unit_ns)
            else:
                parts += cell.parts(start, stop)
        yield join_rows([*parts, b"\n"], stop - start)
        start = stop
