"""Line protocol bodies to columns of points: the public face of the parser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dsdbd import limits
from dsdbd.errors import RequestError
from dsdbd.model.columns import Points
from dsdbd.model.line_protocol_columns import MeasurementBuilder
from dsdbd.model.line_protocol_scan import BOOLEANS, LineProblem, scan_point
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS, PRECISION_NS
from dsdbd.model.types import FieldType

_FAST_LINE_BYTES = 32_000
"""Longer lines take the complete scanner, which checks every size limit."""
_SHOWN_TEXT = 200
"""Characters shown of a line that is too long to be shown whole."""
_NUMBER_START = frozenset("0123456789.-")
_NUMBER_END = frozenset("0123456789.")
_MARKS = re.compile(rb'[\\\n "=,]')
"""The only bytes that tell where a line ends."""
_MAX_FAST_INTEGER_CHARS = 18
"""A decimal number of 18 characters fits int64 whatever its digits are."""


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that was not stored: its number (from 1), its text, and the reason."""

    line_number: int
    text: str
    reason: str

    @property
    def message(self) -> str:
        """The sentence InfluxDB 1.x shows for a line that cannot be parsed."""
        return f"unable to parse '{self.text}': {self.reason}"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a body holds.

    ``points``: the good rows, one entry per measurement, rows in arrival order.
    ``errors``: lines that are not line protocol; ``error_count`` counts all, the first
    MAX_REPORTED_LINES are kept.
    ``conflicts``: well-formed lines whose row was dropped (a field type that contradicts an earlier row of the body,
    or the reserved name ``time``); ``conflict_count`` likewise.
    ``rows``: rows in ``points``.
    """

    points: tuple[Points, ...]
    errors: tuple[LineError, ...]
    conflicts: tuple[LineError, ...]
    rows: int
    error_count: int
    conflict_count: int


KnownTypes = Callable[[str], Mapping[str, FieldType]]
"""Measurement to the types that its fields have already; empty for one that is new."""


def _nothing_known(_: str) -> Mapping[str, FieldType]:
    return {}


def parse_lines(
    body: bytes, *, precision: str, default_time_ns: int, known_types: KnownTypes = _nothing_known
) -> Parsed:
    """Parse a write body.

    A field of a type other than ``known_types`` says makes its row a conflict, as one that contradicts an earlier row.
    ``precision`` is the unit of the times in the body (``PRECISION_NS``); a line without a time gets
    ``default_time_ns``, cut down to that unit. Raises RequestError for an unknown precision; a bad line never raises.
    """
    if precision not in PRECISION_NS:
        raise RequestError(f'invalid precision "{precision}" (use n, ns, u, us, µ, ms, s, m or h)')
    parser = _Parser(PRECISION_NS[precision], default_time_ns, known_types)
    for number, raw in split_lines(body):
        parser.line(number, raw)
    points = tuple(builder.points() for builder in parser.builders.values() if len(builder))
    return Parsed(
        points,
        tuple(parser.errors),
        tuple(parser.conflicts),
        sum(len(part) for part in points),
        parser.error_count,
        parser.conflict_count,
    )


def split_lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    r"""Numbered lines without their line end; blank lines and comments are left out.

    A line ends at a newline outside of a string field. One ``\r`` before it belongs to the line end. Comments are
    recognised before strings, so a quote in a comment does not swallow the lines after it.
    """
    if b'"' not in body and b"\\" not in body:
        for number, line in enumerate(body.split(b"\n"), start=1):
            stripped = line.lstrip(b" \t\0")
            if stripped and stripped[0] != 0x23 and stripped != b"\r":
                yield number, stripped[:-1] if stripped[-1] == 0x0D else stripped
        return
    at = 0
    number = 1
    while at < len(body):
        end = body.find(b"\n", at)
        end = len(body) if end < 0 else end
        line = body[at:end].lstrip(b" \t\0")
        if line and line[0] != 0x23 and (b'"' in line or b"\\" in line):
            end = _line_end(body, end - len(line))
            line = body[at:end].lstrip(b" \t\0")
        if line.endswith(b"\r"):
            line = line[:-1]
        if line and line[0] != 0x23:
            yield number, line
        number += body.count(b"\n", at, end + 1)
        at = end + 1


def _line_end(body: bytes, at: int) -> int:
    """Offset of the newline that ends the line starting at ``at``, newlines in string fields left aside."""
    size = len(body)
    in_fields = quoted = False
    equals = commas = 0
    while (found := _MARKS.search(body, at)) is not None:
        at = found.start()
        byte = body[at]
        if byte == 0x5C and at + 2 < size:  # a backslash and the character after it
            at += 2
            continue
        if byte == 0x0A and not quoted:
            return at
        if byte == 0x20:
            in_fields = True
        elif in_fields:
            # A quote opens a string only as a field value: there one more "=" than "," has been seen.
            if byte == 0x22 and equals > commas:
                quoted = not quoted
            elif byte == 0x3D and not quoted:
                equals += 1
            elif byte == 0x2C and not quoted:
                commas += 1
        at += 1
    return size


class _Parser:
    """State while one body is read."""

    def __init__(self, unit_ns: int, default_time_ns: int, known_types: KnownTypes) -> None:
        self.unit_ns = unit_ns
        self.known_types = known_types
        self.default_time_ns = default_time_ns - default_time_ns % unit_ns
        self.builders: dict[str, MeasurementBuilder] = {}
        self.errors: list[LineError] = []
        self.conflicts: list[LineError] = []
        self.error_count = 0
        self.conflict_count = 0
        self._known_keys: dict[str, tuple[MeasurementBuilder, int]] = {}

    def line(self, number: int, raw: bytes) -> None:
        """Read one line into a builder, or note what is wrong with it."""
        try:
            if len(raw) > limits.MAX_LINE_BYTES:
                raise LineProblem(f"line too long: {len(raw)} > {limits.MAX_LINE_BYTES} bytes")
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                raise LineProblem(f"invalid UTF-8 at byte {error.start}") from None
            if b'"' in raw or b"\\" in raw or len(raw) > _FAST_LINE_BYTES or not self._fast_line(number, text):
                self._whole_line(number, text)
        except LineProblem as problem:
            self.error_count += 1
            if len(self.errors) < limits.MAX_REPORTED_LINES:
                self.errors.append(LineError(number, _shown(raw), str(problem)))

    def _fast_line(self, number: int, text: str) -> bool:
        """Read a line of the common shape; False leaves it, untouched, to the complete scanner."""
        parts = text.split(" ")
        if len(parts) == 3:
            digits = parts[2]
            if not digits.isdigit() or len(digits) > 19 or not digits.isascii():
                return False
            time_ns = int(digits) * self.unit_ns
            if time_ns > MAX_TIME_NS:
                return False
        elif len(parts) == 2:
            time_ns = self.default_time_ns
        else:
            return False
        known = self._known_keys.get(parts[0])
        if known is None or not parts[1].isascii():
            return False
        cells = _fast_cells(parts[1])
        if cells is None:
            return False
        self._add(number, text, known, time_ns, cells)
        return True

    def _whole_line(self, number: int, text: str) -> None:
        point = scan_point(text)
        if point.time is None:
            time_ns = self.default_time_ns
        else:
            time_ns = point.time * self.unit_ns
            if not MIN_TIME_NS <= time_ns <= MAX_TIME_NS:
                raise LineProblem(f"time outside range {MIN_TIME_NS} - {MAX_TIME_NS}")
        measurement = point.series.measurement
        if any(key == "time" for key, _ in point.series.tags):
            self._dropped(number, text, f'invalid tag key: input tag "time" on measurement "{measurement}" is invalid')
            return
        builder = self.builders.get(measurement)
        if builder is None:
            builder = self.builders[measurement] = MeasurementBuilder(measurement, self.known_types(measurement))
        known = (builder, builder.series_position(point.series.key()))
        if len(point.key) < _FAST_LINE_BYTES and "\\" not in point.key:
            self._known_keys[point.key] = known
        self._add(number, text, known, time_ns, point.cells)

    def _add(
        self, number: int, text: str, known: tuple[MeasurementBuilder, int], time_ns: int, cells: list[tuple[str, Any]]
    ) -> None:
        builder, position = known
        reason = builder.add(position, time_ns, cells)
        if reason is not None:
            self._dropped(number, text, reason)

    def _dropped(self, number: int, text: str, reason: str) -> None:
        self.conflict_count += 1
        if len(self.conflicts) < limits.MAX_REPORTED_LINES:
            self.conflicts.append(LineError(number, text, reason))


def _fast_cells(fields: str) -> list[tuple[str, Any]] | None:
    """Cells of an ASCII field list without quotes, backslashes and spaces; None at the first doubt.

    ``float`` accepts more than the protocol does (``1_0``, ``inf``, white space): first and last character and the
    underscore are looked at before it is asked.
    """
    if "\r" in fields:
        return None
    cells: list[tuple[str, Any]] = []
    for part in fields.split(","):
        name, _, text = part.partition("=")
        if not name or not text:
            return None
        if text[0] in _NUMBER_START:
            if text[-1] in _NUMBER_END:
                if "_" in text:
                    return None
                try:
                    number = float(text)
                except ValueError:
                    return None
                if number - number != 0.0:  # infinite
                    return None
                cells.append((name, number))
                continue
            digits = text[:-1]
            if text[-1] != "i" or len(text) > _MAX_FAST_INTEGER_CHARS or not digits.removeprefix("-").isdigit():
                return None
            cells.append((name, int(digits)))
        elif text in BOOLEANS:
            cells.append((name, BOOLEANS[text]))
        else:
            return None
    return cells


def _shown(raw: bytes) -> str:
    text = raw.decode(errors="replace")
    return text if len(raw) <= limits.MAX_LINE_BYTES else text[:_SHOWN_TEXT] + "…"
