"""Answers as JSON, byte for byte as InfluxDB 1.x writes it, and the division of answers into chunks.

Columns become text as whole arrays, a few thousand rows at a time, so that no step holds the interpreter for long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.limits import ENCODE_ROWS
from dsdbd.model.columns import Column, Int64s
from dsdbd.model.times import PRECISION_NS, format_rfc3339nano
from dsdbd.model.types import FieldType
from dsdbd.query.columns import plain_strings
from dsdbd.query.rows import SeriesBlock, SeriesRows, each_series

_FEW_ROWS = 64
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_ESCAPED |= {code: f"\\u{code:04x}" for code in range(32)}
_ESCAPED |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", ord('"'): '\\"', ord("\\"): "\\\\"}
_NEEDS_ESCAPE = r'[\x00-\x1f"\\<>&\x{2028}\x{2029}]'
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\[\]{},:"]+')


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
    without it RFC3339 in UTC.
    """
    pieces = _results(results, PRECISION_NS.get(epoch, 1) if epoch else None)
    if not pretty:
        yield from pieces
        return
    yield indent(b"".join(pieces).decode()).encode()


def chunk_results(results: Iterable[StatementResult], chunk_size: int) -> Iterator[StatementResult]:
    """Each statement's answer as results of at most ``chunk_size`` rows of one series, for ``chunked=true``.

    Every result but a statement's last says ``partial``; so does every series but its last piece.
    """
    for result in results:
        held: StatementResult | None = None
        for rows in each_series(result.series):
            for start in range(0, max(len(rows), 1), chunk_size):
                if held is not None:
                    yield replace(held, partial=True)
                more = start + chunk_size < len(rows)
                held = replace(result, series=(rows.slice(start, start + chunk_size, partial=more),))
        yield replace(result, series=()) if held is None else held


def _results(results: Iterable[StatementResult], unit_ns: int | None) -> Iterator[bytes]:
    yield b'{"results":['
    for position, result in enumerate(results):
        yield b"," if position else b""
        yield f'{{"statement_id":{result.statement_id}'.encode()
        if result.messages:
            items = [f'{{"level":{quote(level)},"text":{quote(text)}}}' for level, text in result.messages]
            yield f',"messages":[{",".join(items)}]'.encode()
        some = False
        for rows in each_series(result.series):
            yield b"," if some else b',"series":['
            some = True
            yield from _series(rows, unit_ns)
        yield b"]" if some else b""
        if result.partial:
            yield b',"partial":true'
        if result.error is not None:
            yield f',"error":{quote(result.error)}'.encode()
        yield b"}"
    yield b"]}\n"


def _series(rows: SeriesRows, unit_ns: int | None) -> Iterator[bytes]:
    head = []
    if rows.name:
        head.append(f'"name":{quote(rows.name)}')
    if rows.tags:
        head.append('"tags":{' + ",".join(f"{quote(k)}:{quote(rows.tags[k])}" for k in sorted(rows.tags)) + "}")
    head.append('"columns":[' + ",".join(map(quote, rows.columns)) + "]")
    yield ("{" + ",".join(head)).encode()
    for start in range(0, len(rows), ENCODE_ROWS):
        yield b"," if start else b',"values":['
        yield _values(rows.slice(start, start + ENCODE_ROWS, partial=False), unit_ns)
    yield b"]" if len(rows) else b""
    yield b',"partial":true}' if rows.partial else b"}"


def _values(rows: SeriesRows, unit_ns: int | None) -> bytes:
    """``[…],[…]`` for the rows of one piece."""
    if len(rows) <= _FEW_ROWS:
        return _few_values(rows, unit_ns)
    texts = []
    for position, column in enumerate(rows.data):
        if position == rows.time_column:
            texts.append(_time_texts(column.values, unit_ns))
        else:
            texts.append(_texts(column))
    lines = texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, ",")
    whole = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
    joined: bytes = pc.binary_join(whole, "],[")[0].as_buffer().to_pybytes()
    return b"[" + joined + b"]"


def _few_values(rows: SeriesRows, unit_ns: int | None) -> bytes:
    """The same text row by row: for a handful of rows quicker than setting up whole-array work."""
    columns = []
    for position, column in enumerate(rows.data):
        if position == rows.time_column:
            times = column.values.tolist()
            if unit_ns is None:
                columns.append([f'"{format_rfc3339nano(time_ns)}"' for time_ns in times])
            else:
                columns.append([str(time_ns) for time_ns in scaled_times(column.values, unit_ns).tolist()])
        else:
            columns.append([_text(value) for value in column.to_arrow().to_pylist()])
    return ",".join(f"[{','.join(row)}]" for row in zip(*columns, strict=True)).encode()


def _text(value: bool | int | float | str | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return float_text(value) if isinstance(value, float) else str(value)


def float_text(value: float) -> str:
    """One float as ``float_texts`` writes it."""
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    if 1e-6 <= abs(value) < 1e21:
        return _without_exponent(value)
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{exponent[0]}{exponent[1:].lstrip('0')}"


def _texts(column: Column) -> Any:
    """Arrow string array of the column's JSON texts, ``null`` where it has no value."""
    if column.type is FieldType.STRING:
        values = plain_strings(column).values
        if values.null_count:
            values = pc.fill_null(values, "")
        texts = _string_texts(values)
        valid = np.asarray(column.values.is_valid())
        valid = valid if column.valid is None else valid & column.valid
    else:
        texts = float_texts(column.values) if column.type is FieldType.FLOAT else _plain_texts(column.values)
        if column.valid is None:
            return texts
        valid = column.valid
    return texts if bool(valid.all()) else pc.if_else(pa.array(valid), texts, "null")


def _plain_texts(values: Any) -> Any:
    return pc.cast(pa.array(values), pa.string())


def float_texts(values: Any, *, exponents: bool = True) -> Any:
    """Shortest decimal text that reads back as the same float, as Go's encoding/json writes it.

    Exponents stand below 1e-6 and from 1e21 on; with ``exponents=False`` (CSV) nowhere.
    """
    array = pa.array(np.ascontiguousarray(values), pa.float64())
    texts = pc.cast(array, pa.string())
    size = np.abs(values)
    unusual = (size >= 1e10) & (size < 1e21)
    if not exponents:
        unusual = (size >= 1e10) | ((size < 1e-5) & (size > 0))
    unusual &= np.isfinite(values)
    if not bool(unusual.any()):
        return texts
    written = pa.array([_without_exponent(value) for value in values[unusual].tolist()], pa.string())
    return pc.replace_with_mask(texts, pa.array(unusual), written)


def _without_exponent(value: float) -> str:
    text = f"{Decimal(repr(value)):f}"
    return text.removesuffix(".0")


def _string_texts(values: Any) -> Any:
    quoted = pc.binary_join_element_wise('"', values, '"', "")
    odd = pc.match_substring_regex(values, _NEEDS_ESCAPE)
    if not pc.any(odd).as_py():
        return quoted
    written = pa.array([quote(text) for text in values.filter(odd).to_pylist()], pa.string())
    return pc.replace_with_mask(quoted, odd, written)


def quote(text: str) -> str:
    """A JSON string with the escapes of Go's encoding/json."""
    return f'"{text.translate(_ESCAPED)}"'


def _time_texts(times_ns: Int64s, unit_ns: int | None) -> Any:
    if unit_ns is not None:
        return _plain_texts(scaled_times(times_ns, unit_ns))
    return pc.binary_join_element_wise('"', rfc3339_texts(times_ns), '"', "")


def scaled_times(times_ns: Int64s, unit_ns: int) -> Int64s:
    """Times in another unit, cut towards zero as Go divides."""
    if unit_ns == 1:
        return times_ns
    return np.where(times_ns < 0, -(-times_ns // unit_ns), times_ns // unit_ns)


def rfc3339_texts(times_ns: Int64s) -> Any:
    """Arrow string array such as ``2017-07-14T02:40:00.12Z``: as many digits of fraction as are not trailing zeros."""
    seconds, rest = np.divmod(times_ns, 1_000_000_000)
    whole = pa.array(np.datetime_as_string(seconds.astype("datetime64[s]")).astype(object), pa.string())
    if not bool(rest.any()):
        return pc.binary_join_element_wise(whole, "Z", "")
    digits = pc.utf8_rtrim(pc.utf8_lpad(_plain_texts(rest), 9, "0"), "0")
    fraction = pc.if_else(pa.array(rest != 0), pc.binary_join_element_wise(".", digits, ""), "")
    return pc.binary_join_element_wise(whole, fraction, "Z", "")


def indent(text: str) -> str:
    """Compact JSON laid out with four spaces, as Go's json.Indent does; a newline at the end stays."""
    out: list[str] = []
    depth = 0
    tokens = _TOKENS.findall(text.rstrip("\n"))
    for position, word in enumerate(tokens):
        if word in "[{":
            empty = tokens[position + 1] in "]}"
            depth += 1
            out.append(word if empty else word + "\n" + "    " * depth)
        elif word in "]}":
            depth -= 1
            out.append(word if tokens[position - 1] in "[{" else "\n" + "    " * depth + word)
        elif word == ",":
            out.append(",\n" + "    " * depth)
        else:
            out.append(": " if word == ":" else word)
    return "".join(out) + "\n"
