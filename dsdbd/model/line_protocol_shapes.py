"""Lines that have the same fields in the same order, read column by column."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

from dsdbd import limits
from dsdbd.decoding import json_decoder
from dsdbd.model.columns import Column, Int64s
from dsdbd.model.line_protocol_patterns import PatternCache, compile_lines, pattern_bytes
from dsdbd.model.line_protocol_scan import BOOLEANS
from dsdbd.model.types import FieldType

_TRUE = [text for text, value in BOOLEANS.items() if value]
_FALSE = [text for text, value in BOOLEANS.items() if not value]
_TRUE_BYTES = frozenset(text.encode() for text in _TRUE)
_BOOLEAN_BYTES = frozenset(text.encode() for text in BOOLEANS)
_TYPES = dict(zip(b"fisb", (FieldType.FLOAT, FieldType.INTEGER, FieldType.STRING, FieldType.BOOLEAN), strict=True))
_VALUE_PATTERNS = {
    # Short enough that no integer and no exponent overflows; the scanner reads longer ones.
    FieldType.FLOAT: rb"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?",
    FieldType.INTEGER: rb"-?[0-9]{1,18}i",
    FieldType.STRING: rb'"',
    FieldType.BOOLEAN: b"(?:" + b"|".join(sorted(_BOOLEAN_BYTES)) + b")",
}
_TIME_PATTERN = rb" -?(?:[0-9]{1,18}|[0-8][0-9]{18})"
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPE = re.compile(rb'\\(["\\])')
_NUMBER_CHARACTERS = b"0123456789.-+eE"
_NAME = re.compile(rb'[^\x00-\x1f\x7f"\\ ,=]+')
_SEPARATORS = bytes.maketrans(b"= \n", b",,,")
_CSV_SEPARATORS = bytes.maketrans(b"= ", b",,")
_CSV_MIN_CELLS = 3_000
"""Values from which Arrow's reader is quicker than Python's own conversions, in spite of what it takes to start."""
_ARROW_TYPES = {FieldType.FLOAT: pa.float64(), FieldType.INTEGER: pa.int64(), FieldType.BOOLEAN: pa.bool_()}
_CAST_MIN_ROWS = 500
"""Strings from which Arrow's check of UTF-8 is quicker than Python's."""
_WORTH_ROWS = 100
_decode_floats = json_decoder(list[float]).decode
_decode_integers = json_decoder(list[int]).decode


_REFUSED = b"\\"
"""Stands for a line that no pattern may accept."""


def take_strings(rests: list[bytes], escaped: bool) -> tuple[list[bytes], list[list[bytes]]]:
    """Take the strings out of fields and times of lines.

    Returns what is left, where each string leaves one quote behind, and of each line the pieces: what is in front of
    the first string, the string, what is between it and the next one, and so on. Where quotes are not paired, there
    are either no strings or fewer than quotes left behind. ``escaped`` says that there may be backslashes.
    """
    pieces = [_QUOTED.split(rest) for rest in rests] if escaped else [rest.split(b'"') for rest in rests]
    return [b'"'.join(parts[::2]) if len(parts) & 1 else _REFUSED for parts in pieces], pieces


def signature(outer: bytes) -> bytes:
    """What lines of one shape have in common, and lines of different shapes seldom."""
    return outer.translate(None, _NUMBER_CHARACTERS)


class ShapeKey(NamedTuple):
    """Names and types of a line's fields in their order, and whether a time follows.

    ``types`` has one byte for each field, a key of ``_TYPES``.
    """

    names: tuple[bytes, ...]
    types: bytes
    timed: bool


def shape_key(outer: bytes) -> ShapeKey | None:
    """The shape that a line seems to have; None for one that only the scanner should read."""
    if len(outer) > limits.MAX_PARSER_FORM_BYTES:
        return None
    fields, _, time = outer.partition(b" ")
    names: list[bytes] = []
    types = bytearray()
    for part in fields.split(b","):
        name, _, text = part.partition(b"=")
        if not text:
            return None
        names.append(name)
        if text == b'"':
            types += b"s"
        elif text in _BOOLEAN_BYTES:
            types += b"b"
        else:
            types += b"i" if text.endswith(b"i") else b"f"
    if len(names) > limits.MAX_PARSER_PATTERN_FIELDS:
        return None
    return ShapeKey(tuple(names), bytes(types), bool(time))


class Shape:
    """A shape with the pattern that proves it and what reads its lines; raises UnicodeDecodeError for bad names."""

    def __init__(self, key: ShapeKey) -> None:
        self.names = tuple(name.decode() for name in key.names)
        self.types = tuple(_TYPES[code] for code in key.types)
        self.timed = key.timed
        self.strings = self.types.count(FieldType.STRING)
        pairs = [
            re.escape(name) + b"=" + _VALUE_PATTERNS[kind] for name, kind in zip(key.names, self.types, strict=True)
        ]
        pattern = b",".join(pairs) + (_TIME_PATTERN if key.timed else b"")
        self.pattern = compile_lines(pattern, len(pairs))
        self._width = 2 * len(pairs) + key.timed
        # The suffix of integers is taken away with all other letters i, which names may lose: they are known.
        self._dropped = b"i" if FieldType.INTEGER in self.types else b""
        self._inline = [(number, kind) for number, kind in enumerate(self.types) if kind is not FieldType.STRING]
        arrow = {f"f{2 * number + 1}": _ARROW_TYPES[kind] for number, kind in self._inline}
        if key.timed:
            arrow[f"f{self._width - 1}"] = pa.int64()
        self._floats = [number for number, kind in self._inline if kind is FieldType.FLOAT]
        self._integers = [number for number, kind in self._inline if kind is FieldType.INTEGER]
        self._booleans = [number for number, kind in self._inline if kind is FieldType.BOOLEAN]
        self._read = pacsv.ReadOptions(use_threads=False, block_size=1 << 30, autogenerate_column_names=True)
        self._parse = pacsv.ParseOptions(quote_char=False, double_quote=False, escape_char=False)
        self._convert = pacsv.ConvertOptions(
            check_utf8=False,
            column_types=arrow,
            include_columns=list(arrow),
            null_values=[],
            true_values=_TRUE,
            false_values=_FALSE,
            strings_can_be_null=False,
        )

    def read(self, text: bytes, rows: int, pieces: list[list[bytes]]) -> tuple[dict[str, Column], Int64s | None] | None:
        """Columns and times, in the unit of the request, of lines that the pattern accepted.

        ``text``: the lines. ``pieces``: of each line with strings, as ``take_strings`` gives them. None when a
        value is beyond what its type holds or a string is not UTF-8: then the scanner finds out which.
        """
        if rows * self._width < _CSV_MIN_CELLS:
            inline, times = self._read_cells(text, rows)
        else:
            try:
                inline, times = self._read_csv(text)
            except pa.ArrowInvalid:
                return None
        if inline is None:
            return None
        columns: dict[str, Column] = {}
        piece = 1
        for number, (name, kind) in enumerate(zip(self.names, self.types, strict=True)):
            if kind is FieldType.STRING:
                try:
                    values = _string_values([parts[piece] for parts in pieces])
                except ValueError:
                    return None
                piece += 2
            else:
                values = inline[number]
            columns[name] = Column(kind, values)
        return columns, times

    def _read_csv(self, text: bytes) -> tuple[dict[int, Any] | None, Int64s | None]:
        if not self._inline and not self.timed:
            return {}, None
        source = pa.py_buffer(text.translate(_CSV_SEPARATORS, self._dropped))
        table = pacsv.read_csv(source, self._read, self._parse, self._convert)
        arrays = [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns]
        times = arrays.pop().to_numpy() if self.timed else None
        columns = {
            number: array.to_numpy(zero_copy_only=kind is not FieldType.BOOLEAN)
            for (number, kind), array in zip(self._inline, arrays, strict=True)
        }
        if not all(np.isfinite(columns[number]).all() for number in self._floats):
            return None, None
        return columns, times

    def _read_cells(self, text: bytes, rows: int) -> tuple[dict[int, Any] | None, Int64s | None]:
        cells = text.translate(_SEPARATORS, self._dropped).split(b",")
        columns: dict[int, Any] = {}
        if self._floats:
            texts: list[bytes] = []
            for number in self._floats:
                texts += cells[2 * number + 1 :: self._width]
            floats = _float_values(texts)
            if not np.isfinite(floats).all():
                return None, None
            columns.update(zip(self._floats, floats.reshape(-1, rows), strict=True))
        times = None
        if self._integers or self.timed:
            texts = []
            for number in self._integers:
                texts += cells[2 * number + 1 :: self._width]
            if self.timed:
                texts += cells[self._width - 1 :: self._width]
            values = _integer_values(texts).reshape(-1, rows)
            times = values[-1] if self.timed else None
            columns.update(zip(self._integers, values, strict=False))
        for number in self._booleans:
            texts = cells[2 * number + 1 :: self._width]
            columns[number] = np.array([text in _TRUE_BYTES for text in texts], np.bool_)
        return columns, times


def _float_values(texts: list[bytes]) -> npt.NDArray[np.float64]:
    """Numbers as ``float`` reads them."""
    joined = b"[%b]" % b",".join(texts)
    values: Iterable[float]
    try:
        # A JSON reader is twice as quick, but what looks like an integer loses its sign when it is zero.
        odd = b"-0," in joined or b"-0]" in joined or b"-0e" in joined or b"-0E" in joined
        values = map(float, texts) if odd else _decode_floats(joined)
    except msgspec.MsgspecError:
        values = map(float, texts)
    return np.fromiter(values, np.float64, len(texts))


def _integer_values(texts: list[bytes]) -> Int64s:
    """Integers of at most 19 digits within int64."""
    values: Iterable[int]
    try:
        values = _decode_integers(b"[%b]" % b",".join(texts))
    except msgspec.MsgspecError:  # zeros in front
        values = map(int, texts)
    return np.fromiter(values, np.int64, len(texts))


def _string_values(texts: list[bytes]) -> Any:
    """An Arrow array of strings; raises ValueError where one is not UTF-8."""
    if any(b"\\" in text for text in texts):
        texts = [_ESCAPE.sub(rb"\1", text) for text in texts]
    if len(texts) < _CAST_MIN_ROWS:
        return pa.array([text.decode() for text in texts], pa.string())
    return pa.array(texts, pa.binary()).cast(pa.string())


def _make_shape(key: ShapeKey) -> Shape | None:
    names = key.names
    if b"time" in names or len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names)):
        return None
    try:
        return Shape(key)
    except UnicodeDecodeError:
        return None


SHAPES = PatternCache(
    _make_shape, lambda key: pattern_bytes(len(key.names)), limits.MAX_PARSER_PATTERN_BYTES, _WORTH_ROWS
)
_HINTS: dict[bytes, ShapeKey] = {}


def find_shape(outer: bytes, rows: int) -> Shape | None:
    """The shape that a line seems to have, and ``rows`` lines with it; None while it is not worth a pattern."""
    key = shape_key(outer)
    return SHAPES.get(key, rows) if key is not None else None


def guess_shape(outer: bytes, rows: int) -> Shape | None:
    """As ``find_shape``, but quicker, and it may be the shape of another line that looks much like this one."""
    look = signature(outer)
    key = _HINTS.get(look)
    if key is None:
        key = shape_key(outer)
        if key is None:
            return None
        if len(_HINTS) >= limits.MAX_PARSER_WANTED:
            _HINTS.clear()
        _HINTS[look] = key
    return SHAPES.get(key, rows)
