r"""The grammar of one line of line protocol: ``measurement[,tag=value…] field=value[,field=value…] [time]``.

This is the reference: complete, one line at a time, with the texts InfluxDB 1.x answers. The faster paths of
``line_protocol`` hand every line they are not sure about to this module.

Two escaping rules live side by side, as in InfluxDB 1.x. In measurement and tags a character is escaped when the one
before it is a backslash. In the fields a backslash and the character after it are one unit, so ``key\\=1`` has a key
that ends with backslashes.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

from dsdbd import limits
from dsdbd.model.series import Series

Value: TypeAlias = float | int | str | bool

BOOLEANS = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}
WHITESPACE = " \t\0"

_MEASUREMENT_END = re.compile(r"(?<!\\)[, ]")
_TAG_KEY_END = re.compile(r"(?<!\\)[ ,=]")
_FIELD_KEY = re.compile(r"(?:\\.|[^\\=, ]|\\\Z)*", re.DOTALL)
_STRING = re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL)
_TOKEN = re.compile(r"[^, ]*")
_INTEGER = re.compile(r"-?[0-9]+i")
# Possessive: digits given back one by one to the second group would cost the square of their number.
_FLOAT = re.compile(r"-?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")
_ALMOST_FLOAT = re.compile(r"-?(?:[0-9.]|[eE][+-]?)+")
_TIME = re.compile(r"-?[0-9]*")
_STRING_ESCAPE = re.compile(r'\\(["\\])')
_FIELD_KEY_ESCAPE = re.compile(r'\\([," =])')
_SERIES_FIELD_SEPARATOR_BYTES = 4


class LineProblem(Exception):
    """A line is refused; the only argument is the reason as InfluxDB words it."""


class ScannedPoint(NamedTuple):
    """One line: the escaped text of measurement and tags, the series it names, its fields in order, and its time.

    ``time`` is in the unit of the request, None where the line has none.
    """

    key: str
    series: Series
    cells: list[tuple[str, Value]]
    time: int | None


def scan_point(line: str) -> ScannedPoint:
    """Read one line that has neither leading white space nor a line end; raises LineProblem."""
    key_end, series = _scan_key(line)
    key = line[:key_end]
    if "\r" in key:
        raise LineProblem("invalid carriage return")
    key_bytes = len(key.encode())
    if key_bytes > limits.MAX_KEY_BYTES:
        raise LineProblem(f"max key length exceeded: {key_bytes} > {limits.MAX_KEY_BYTES}")
    fields_end, cells = _scan_fields(line, _skip(line, key_end), key_bytes)
    return ScannedPoint(key, series, cells, _scan_time(line, _skip(line, fields_end)))


def _skip(line: str, at: int) -> int:
    while at < len(line) and line[at] in WHITESPACE:
        at += 1
    return at


def _unescape_tag(text: str) -> str:
    if "\\" not in text:
        return text
    return text.replace("\\,", ",").replace("\\ ", " ").replace("\\=", "=")


def _scan_key(line: str) -> tuple[int, Series]:
    """The end of measurement and tags, and the series."""
    if not line or line[0] == ",":
        raise LineProblem("missing measurement")
    end = _MEASUREMENT_END.search(line, 1)
    if end is None:
        raise LineProblem("missing fields")
    at = end.start()
    measurement = line[:at].replace("\\,", ",").replace("\\ ", " ")
    tags: dict[str, str] = {}
    duplicate = False
    while line[at] == ",":
        at, key, value = _scan_tag(line, at + 1)
        duplicate = duplicate or key in tags
        tags[key] = value
    if duplicate:
        raise LineProblem("duplicate tags")
    return at, Series(measurement, tuple(sorted(tags.items())))


def _scan_tag(line: str, start: int) -> tuple[int, str, str]:
    if start >= len(line) or line[start] in " ,=":
        raise LineProblem("missing tag key")
    equals = _TAG_KEY_END.search(line, start + 1)
    if equals is None or equals.group() != "=":
        raise LineProblem("missing tag value")
    value_start = equals.end()
    if value_start >= len(line) or line[value_start] in ", ":
        raise LineProblem("missing tag value")
    end = _TAG_KEY_END.search(line, value_start + 1)
    if end is None:
        raise LineProblem("missing fields")
    if end.group() == "=":
        raise LineProblem("invalid tag format")
    return end.start(), _unescape_tag(line[start : equals.start()]), _unescape_tag(line[value_start : end.start()])


def _scan_fields(line: str, at: int, key_bytes: int) -> tuple[int, list[tuple[str, Value]]]:
    cells: list[tuple[str, Value]] = []
    while True:
        match = _FIELD_KEY.match(line, at)
        assert match is not None, "the pattern matches the empty text"
        key_end = match.end()
        if key_end >= len(line) or line[key_end] != "=":
            raise LineProblem("missing field key" if line.startswith(",=", key_end) else "invalid field format")
        if key_end == at:
            raise LineProblem("missing field key")
        key = line[at:key_end]
        if "\r" in key:
            raise LineProblem("invalid carriage return")
        size = key_bytes + _SERIES_FIELD_SEPARATOR_BYTES + len(key.encode())
        if size > limits.MAX_KEY_BYTES:
            raise LineProblem(f"max key length exceeded: {size} > {limits.MAX_KEY_BYTES}")
        key = _FIELD_KEY_ESCAPE.sub(r"\1", key) if "\\" in key else key
        at, value = _scan_value(line, key_end + 1, key)
        cells.append((key, value))
        if at >= len(line) or line[at] == " ":
            return at, cells
        at += 1


def _scan_value(line: str, start: int, key: str) -> tuple[int, Value]:
    """The end of a field value (a comma, a space or the end of the line) and the value."""
    if start >= len(line) or line[start] in ", ":
        raise LineProblem("missing field value")
    if line[start] == '"':
        return _scan_string(line, start, key)
    match = _TOKEN.match(line, start)
    assert match is not None, "the pattern matches the empty text"
    token = match.group()
    if token[0] in "0123456789.-Nn":
        return match.end(), _number(token)
    if token not in BOOLEANS:
        raise LineProblem("invalid boolean")
    return match.end(), BOOLEANS[token]


def _scan_string(line: str, start: int, key: str) -> tuple[int, str]:
    match = _STRING.match(line, start)
    if match is None:
        raise LineProblem("unbalanced quotes")
    end = match.end()
    if end < len(line) and line[end] not in ", ":
        raise LineProblem("invalid field format")
    text = line[start + 1 : end - 1]
    if "\\" in text:
        text = _STRING_ESCAPE.sub(r"\1", text)
    if len(text) > limits.MAX_STRING_BYTES // 4 and len(text.encode()) > limits.MAX_STRING_BYTES:
        size = len(text.encode())
        raise LineProblem(f'string of field "{key}" is too long: {size} > {limits.MAX_STRING_BYTES} bytes')
    return end, text


def _number(token: str) -> float | int:
    if _INTEGER.fullmatch(token):
        digits = token[:-1]
        # The length is looked at first: Python refuses to convert texts of thousands of digits.
        if len(digits.lstrip("-0")) > 19 or not -(1 << 63) <= int(digits) < 1 << 63:
            raise LineProblem(
                f'unable to parse integer {digits}: strconv.ParseInt: parsing "{digits}": value out of range'
            )
        return int(digits)
    if _FLOAT.fullmatch(token):
        number = float(token)
        if number in (float("inf"), float("-inf")):
            raise LineProblem("invalid float")
        return number
    has_digit_or_e = token.strip("-.") != ""
    if has_digit_or_e and token.count(".") <= 1 and _ALMOST_FLOAT.fullmatch(token):
        raise LineProblem("invalid float")
    raise LineProblem("invalid number")


def _scan_time(line: str, start: int) -> int | None:
    match = _TIME.match(line, start)
    assert match is not None, "the pattern matches the empty text"
    text = match.group()
    end = match.end()
    if end < len(line) and line[end] != " ":
        raise LineProblem("bad timestamp")
    if not text:
        return None
    if text == "-":
        raise LineProblem('strconv.ParseInt: parsing "-": invalid syntax')
    if len(text.lstrip("-0")) > 19 or not -(1 << 63) <= int(text) < 1 << 63:
        raise LineProblem(f'strconv.ParseInt: parsing "{text}": value out of range')
    if line[end:].strip(" "):
        raise LineProblem("point is invalid")
    return int(text)
