"""Cells of answers as text: floats and strings as Go's encoding/json and InfluxDB's CSV write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Column, Int64s
from dsdbd.model.types import FieldType
from dsdbd.query.columns import is_coded, is_listed
from dsdbd.query.text_matrix import (
    Part,
    arrow_texts,
    blank,
    decimal_parts,
    digit_parts,
    fixed_width,
    integer_parts,
    longest_text,
    overwrite,
    rfc3339_parts,
)
from dsdbd.query.zones import offset_texts

_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_ESCAPED |= {code: f"\\u{code:04x}" for code in range(32)}
_ESCAPED |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", ord('"'): '\\"', ord("\\"): "\\\\"}
_NEEDS_ESCAPE = r'[\x00-\x1f"\\<>&\x{2028}\x{2029}]'
_NEEDS_QUOTES = r'[,"\r\n]|^\\\.$|^\s'
_encode = msgspec.json.Encoder().encode
_BOOLEANS = np.array([b"false", b"true"])
_LEAST, _GREATEST = 1e-4, 1e15
"""Sizes between which the JSON encoder writes floats without an exponent, as Go does."""
_TABLE_TEXTS = 1 << 16
"""Distinct texts up to which those of a whole column are made ready at once."""


@dataclass(frozen=True, slots=True)
class Style:
    """How cells are written: JSON or CSV."""

    missing: bytes
    exponents: bool
    strings: Callable[[Any], Any]
    lists: Callable[[list[str]], str]


class CellTexts:
    """A column's cells; what all its rows share is made once."""

    def __init__(self, column: Column, style: Style) -> None:
        self._column = column
        self._style = style
        self._table: Part | None = None
        self._listed: Part | None = None
        if is_listed(column):
            self._listed = fixed_width(
                pa.array([style.lists(texts) for texts in column.values.to_pylist()], pa.string())
            )
        if is_coded(column) and 0 < len(column.values.dictionary) <= _TABLE_TEXTS:
            self._table = self._with_missing(column.values.dictionary)

    def width(self, start: int, stop: int) -> int:
        """About the bytes of the widest cell of some rows."""
        if self._column.type is not FieldType.STRING:
            return 32
        if self._listed is not None:
            return int(self._listed.dtype.itemsize)
        if self._table is not None:
            return int(self._table.dtype.itemsize)
        values = self._column.values[start:stop]
        return 6 * longest_text(values.dictionary if is_coded(self._column) else values) + 8

    def parts(self, start: int, stop: int) -> list[Part]:
        """The cells of some rows."""
        column, style = self._column, self._style
        if self._listed is not None:
            return [self._listed[start:stop]]
        values = column.values[start:stop]
        valid = None if column.valid is None else column.valid[start:stop]
        if column.type is FieldType.STRING:
            return [self._string_part(values, valid)]
        if column.type is FieldType.FLOAT:
            parts = float_parts(values, exponents=style.exponents)
        elif column.type is FieldType.INTEGER:
            parts = integer_parts(values)
        else:
            parts = [_BOOLEANS[values.astype(np.intp)]]
        return parts if valid is None or bool(valid.all()) else blank(parts, ~valid, style.missing)

    def _with_missing(self, texts: Any) -> Part:
        """Texts of distinct strings, and after them that of a missing one."""
        return fixed_width(pa.concat_arrays([self._style.strings(texts), pa.array([self._style.missing], pa.string())]))

    def _string_part(self, values: Any, valid: Any) -> Part:
        table = self._table
        if table is None:
            if pa.types.is_dictionary(values.type):
                values = values.cast(pa.string())
            values = values.dictionary_encode()
            table = self._with_missing(values.dictionary)
        codes = values.indices.fill_null(len(table) - 1).to_numpy()
        return table[codes if valid is None else np.where(valid, codes, len(table) - 1)]


def float_parts(values: Any, *, exponents: bool = True) -> list[Part]:
    """Cells of floats, in the text of ``float_texts``."""
    parts, others = decimal_parts(values)
    if others is None:
        return parts
    if not parts:
        parts, others = digit_parts(values)
    if bool(others.all()):
        return [fixed_width(float_texts(values, exponents=exponents))]
    if not bool(others.any()):
        return parts
    rest = values[others]
    if exponents:
        texts = _encode(listed_floats(rest))[1:-1].split(b",")
    else:
        texts = [text.encode() for text in float_texts(rest, exponents=exponents).to_pylist()]
    return overwrite(parts, others, texts)


def time_parts(times_ns: Int64s, unit_ns: int | None, timezone: str = "") -> list[Part]:
    """Cells of times: numbers of a unit, or RFC3339 in quotes, of a time zone or UTC."""
    if unit_ns is not None:
        return integer_parts(scaled_times(times_ns, unit_ns))
    if timezone:
        local_ns, ends = offset_texts(timezone, times_ns)
        return [b'"', *rfc3339_parts(local_ns)[:-1], ends, b'"']
    return [b'"', *rfc3339_parts(times_ns), b'"']


def float_texts(values: Any, *, exponents: bool = True) -> Any:
    """Shortest decimal text that reads back as the same float, as Go's encoding/json writes it; an Arrow array.

    Exponents stand below 1e-6 and from 1e21 on; with ``exponents=False`` (CSV) nowhere. JSON has no text
    for an infinite value, which is null there.
    """
    texts = arrow_texts(np.ascontiguousarray(values, dtype=np.float64))
    size = np.abs(values)
    unusual = (size >= 1e10) & (size < 1e21)
    if not exponents:
        unusual = (size >= 1e10) | ((size < 1e-5) & (size > 0))
    finite = np.isfinite(values)
    unusual &= finite
    if not bool(finite.all()):
        infinite = np.where(values > 0, "+Inf", "-Inf") if not exponents else np.full(len(values), "null")
        texts = pc.if_else(pa.array(finite), texts, pa.array(infinite, pa.string()))
    if not bool(unusual.any()):
        return texts
    written = pa.array([_without_exponent(value) for value in values[unusual].tolist()], pa.string())
    return pc.replace_with_mask(texts, pa.array(unusual), written)


def listed_floats(values: Any) -> list[Any]:
    """Floats for the JSON encoder, which then writes them as ``float_texts`` does.

    It writes floats of usual sizes with the same shortest digits as Go; those it writes otherwise (whole numbers, which
    it gives a ".0", and very large and small ones) are in the list as their text.
    """
    found: list[Any] = values.tolist()
    size = np.abs(values)
    # Not a number has no text; it is missing, and its place here does not matter.
    usual = (size >= _LEAST) & (size < _GREATEST) & (np.trunc(values) != values)
    if not usual.all():
        for place in np.flatnonzero(~usual).tolist():
            found[place] = msgspec.Raw(float_text(found[place]).encode())
    return found


def float_text(value: float) -> str:
    """One float as ``float_texts`` writes it for JSON."""
    if not math.isfinite(value):
        return "null"
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    if 1e-6 <= abs(value) < 1e21:
        return _without_exponent(value)
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{exponent[0]}{exponent[1:].lstrip('0')}"


def _without_exponent(value: float) -> str:
    text = f"{Decimal(repr(value)):f}"
    return text.removesuffix(".0")


def quote(text: str) -> str:
    """A JSON string with the escapes of Go's encoding/json."""
    return f'"{text.translate(_ESCAPED)}"'


def quoted_list(texts: list[str]) -> str:
    """A JSON array of strings."""
    return f"[{','.join(map(quote, texts))}]"


def _csv_list(texts: list[str]) -> str:
    """Texts with commas between, in quotes where CSV needs them."""
    text: str = csv_quoted(pa.array([",".join(texts)], pa.string()))[0].as_py()
    return text


def quoted(texts: Any) -> Any:
    """``quote`` of an Arrow string array; nulls stay."""
    found = pc.binary_join_element_wise('"', texts, '"', "")
    odd = pc.fill_null(pc.match_substring_regex(texts, _NEEDS_ESCAPE), False)
    if not pc.any(odd).as_py():
        return found
    written = pa.array([quote(text) for text in texts.filter(odd).to_pylist()], pa.string())
    return pc.replace_with_mask(found, odd, written)


def csv_quoted(texts: Any) -> Any:
    """An Arrow string array in quotes where CSV needs them; nulls stay."""
    odd = pc.fill_null(pc.match_substring_regex(texts, _NEEDS_QUOTES), False)
    if not pc.any(odd).as_py():
        return texts
    return pc.if_else(odd, pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', ""), texts)


def scaled_times(times_ns: Int64s, unit_ns: int) -> Int64s:
    """Times in another unit, cut towards zero as Go divides."""
    if unit_ns == 1:
        return times_ns
    return np.where(times_ns < 0, -(-times_ns // unit_ns), times_ns // unit_ns)


JSON = Style(b"null", exponents=True, strings=quoted, lists=quoted_list)
CSV = Style(b"", exponents=False, strings=csv_quoted, lists=_csv_list)
