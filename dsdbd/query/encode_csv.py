"""Answers as CSV, as InfluxDB 1.x writes them for ``Accept: application/csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.limits import ENCODE_ROWS
from dsdbd.model.columns import Column
from dsdbd.model.times import PRECISION_NS
from dsdbd.model.types import FieldType
from dsdbd.query.columns import plain_strings
from dsdbd.query.encode import StatementResult, float_texts, scaled_times
from dsdbd.query.rows import SeriesRows, each_series

_ESCAPES = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\="})
_NEEDS_QUOTES = r'[,"\r\n]|^\\\.$|^\s'


def encode_results_csv(results: Iterable[StatementResult], *, epoch: str | None = None) -> Iterator[bytes]:
    """Pieces of the CSV text: per statement one header line, again where the columns change; blank lines between.

    Times are numbers, nanoseconds without ``epoch``. Statements without rows, errors too, leave nothing. Results of
    one statement may come in chunks.
    """
    unit_ns = PRECISION_NS.get(epoch or "", 1)
    statement: int | None = None
    titles: tuple[str, ...] = ()
    for result in results:
        for rows in each_series(result.series):
            if result.statement_id != statement or rows.columns != titles:
                yield b"" if statement is None else b"\n"
                statement, titles = result.statement_id, rows.columns
                yield _line(("name", "tags", *titles))
            for start in range(0, len(rows), ENCODE_ROWS):
                yield _rows(rows, rows.slice(start, start + ENCODE_ROWS, partial=False), unit_ns)


def _line(cells: Iterable[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(list(cells))
    return out.getvalue().encode()


def _rows(whole: SeriesRows, rows: SeriesRows, unit_ns: int) -> bytes:
    tags = whole.tags or {}
    pairs = [f"{key.translate(_ESCAPES)}={tags[key].translate(_ESCAPES)}" for key in sorted(tags) if tags[key]]
    prefix = _line((whole.name, ",".join(pairs))).decode().rstrip("\n")
    texts: list[Any] = [prefix]
    for position, column in enumerate(rows.data):
        if position == rows.time_column:
            texts.append(pc.cast(pa.array(scaled_times(column.values, unit_ns)), pa.string()))
        else:
            texts.append(_texts(column))
    lines = pc.binary_join_element_wise(*texts, ",")
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines), "\n")
    encoded: bytes = joined[0].as_buffer().to_pybytes()
    return encoded + b"\n"


def _texts(column: Column) -> Any:
    if column.type is FieldType.STRING:
        texts = pc.fill_null(plain_strings(column).values, "")
        odd = pc.match_substring_regex(texts, _NEEDS_QUOTES)
        if pc.any(odd).as_py():
            quoted = pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
            texts = pc.if_else(odd, quoted, texts)
    elif column.type is FieldType.FLOAT:
        texts = float_texts(column.values, exponents=False)
    else:
        texts = pc.cast(pa.array(column.values), pa.string())
    return texts if column.valid is None else pc.if_else(pa.array(column.valid), texts, "")
