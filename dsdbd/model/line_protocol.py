"""Line protocol bodies to columns of points: the public face of the parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dsdbd import limits
from dsdbd.errors import RequestError
from dsdbd.model.columns import Points
from dsdbd.model.line_protocol_columns import MeasurementBuilder, Part
from dsdbd.model.line_protocol_groups import Group, read_groups
from dsdbd.model.line_protocol_keys import KNOWN_KEYS, MAX_REMEMBERED_BYTES, KnownKey, read_keys, split_key
from dsdbd.model.line_protocol_lines import LineBlock, line_blocks, strip_line
from dsdbd.model.line_protocol_scan import BOOLEANS, WHITESPACE, LineProblem, scan_point
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS, PRECISION_NS
from dsdbd.model.types import FieldType

_FAST_LINE_BYTES = 32_000
"""Longer lines take the complete scanner, which checks every size limit."""
_SHOWN_TEXT = 200
"""Characters shown of a line that is too long to be shown whole."""
_NUMBER_START = frozenset("0123456789.-")
_NUMBER_END = frozenset("0123456789.")
_MIN_BLOCK_LINES = 16
"""Fewer lines are read one by one."""
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
    ``rows``: rows in ``points``. ``columnar_rows``: lines, stored or in conflict, that were read column by column.
    """

    points: tuple[Points, ...]
    errors: tuple[LineError, ...]
    conflicts: tuple[LineError, ...]
    rows: int
    error_count: int
    conflict_count: int
    columnar_rows: int = 0


class _PlacedGroup(NamedTuple):
    """A group whose ``rows`` are positions in a block, and the canonical key of each row."""

    measurement: str
    keys: list[bytes]
    group: Group


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
    for block in line_blocks(body):
        parser.block(block)
    points = tuple(part for part in (builder.points() for builder in parser.builders.values()) if len(part))
    return Parsed(
        points,
        tuple(parser.errors),
        tuple(parser.conflicts),
        sum(len(part) for part in points),
        parser.error_count,
        parser.conflict_count,
        parser.columnar_rows,
    )


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
        self.columnar_rows = 0
        self._conflicts_kept = 0

    def block(self, block: LineBlock) -> None:
        """Read a block of lines: in groups what can be, the other lines one by one, all in the order they came in."""
        lines = block.lines
        self._conflicts_kept = len(self.conflicts)
        groups = self._groups(block) if len(lines) >= _MIN_BLOCK_LINES else []
        if not groups:
            for number, line in zip(block.numbers, lines, strict=True):
                if line:
                    self.line(number, line)
            return
        alone = np.ones(len(lines), np.bool_)
        for part in groups:
            alone[part.group.rows] = False
        # A group stands where its first line stands: from there on the types of its fields are fixed.
        groups.sort(key=lambda part: int(part.group.rows[0]), reverse=True)
        for row in np.flatnonzero(alone).tolist():
            while groups and groups[-1].group.rows[0] < row:
                self._add_group(groups.pop(), block)
            self.line(block.numbers[row], lines[row])
        while groups:
            self._add_group(groups.pop(), block)
        self.conflicts.sort(key=lambda conflict: conflict.line_number)
        del self.conflicts[limits.MAX_REPORTED_LINES :]

    def _groups(self, block: LineBlock) -> list[_PlacedGroup]:
        """Groups of lines that were read column by column; ``rows`` of each are positions in the block."""
        lines = block.lines
        if max(map(len, lines)) > _FAST_LINE_BYTES:
            lines = [line if len(line) <= _FAST_LINE_BYTES else b"" for line in lines]
        keys: list[bytes] = []
        rests: list[bytes] = []
        for line in lines:
            key, _, rest = line.partition(b" ")
            if key[-1:] == b"\\":  # the space belongs to the key
                key, rest = split_key(line)
            keys.append(key)
            rests.append(rest)
        known = KNOWN_KEYS.lookup(keys)
        if known.count(None) >= _MIN_BLOCK_LINES:
            found = read_keys([key for key, entry in zip(keys, known, strict=True) if entry is None])
            if found:
                KNOWN_KEYS.remember(found)
                known = [entry or found.get(key) for key, entry in zip(keys, known, strict=True)]
        max_time = MAX_TIME_NS // self.unit_ns
        placed: list[_PlacedGroup] = []
        for measurement, rows in _by_measurement(known).items():
            entries = known if rows is None else [known[row] for row in rows]
            series = [entry[1] for entry in entries if entry is not None]
            own_rests = rests if rows is None else [rests[row] for row in rows]
            for group in read_groups(own_rests, block.quoted, max_time):
                own = series if len(group.rows) == len(series) else [series[row] for row in group.rows.tolist()]
                if rows is not None:
                    group = group._replace(rows=np.array(rows, np.int64)[group.rows])
                placed.append(_PlacedGroup(measurement, own, group))
        return placed

    def _add_group(self, placed: _PlacedGroup, block: LineBlock) -> None:
        """Add the rows of a group, or note that they contradict what is known."""
        shape, rows, times, columns = placed.group
        builder = self._builder(placed.measurement)
        self.columnar_rows += len(rows)
        reason = builder.admit(shape, shape.names, shape.types)
        if reason is not None:
            self.conflict_count += len(rows)
            for row in rows[: limits.MAX_REPORTED_LINES].tolist():
                self.conflicts.append(LineError(block.numbers[row], strip_line(block.lines[row]).decode(), reason))
            return
        if times is None:
            time_ns = np.full(len(rows), self.default_time_ns, np.int64)
        else:
            time_ns = times if self.unit_ns == 1 else times * self.unit_ns
        if isinstance(block.numbers, range):
            order = rows + block.numbers.start
        else:
            order = np.array(block.numbers, np.int64)[rows]
        builder.add_part(Part(order, builder.series_positions(placed.keys), time_ns, columns))

    def _builder(self, measurement: str) -> MeasurementBuilder:
        builder = self.builders.get(measurement)
        if builder is None:
            builder = self.builders[measurement] = MeasurementBuilder(measurement, self.known_types(measurement))
        return builder

    def line(self, number: int, raw: bytes) -> None:
        """Read one line into a builder, or note what is wrong with it; blank lines and comments are passed over."""
        raw = strip_line(raw)
        if not raw:
            return
        try:
            if len(raw) > limits.MAX_LINE_BYTES:
                raise LineProblem(f"line too long: {len(raw)} > {limits.MAX_LINE_BYTES} bytes")
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                raise LineProblem(f"invalid UTF-8 at byte {error.start}") from None
            if b'"' in raw or b"\\" in raw or len(raw) > _FAST_LINE_BYTES or not self._fast_line(number, raw, text):
                self._whole_line(number, text)
        except LineProblem as problem:
            self.error_count += 1
            if len(self.errors) < limits.MAX_REPORTED_LINES:
                self.errors.append(LineError(number, _shown(raw), str(problem)))

    def _fast_line(self, number: int, raw: bytes, text: str) -> bool:
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
        (known,) = KNOWN_KEYS.lookup([raw.partition(b" ")[0]])
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
        known = (measurement, point.series.key())
        key = point.key.encode()
        if len(key) <= MAX_REMEMBERED_BYTES:
            KNOWN_KEYS.remember({key: known})
        self._add(number, text, known, time_ns, point.cells)

    def _add(self, number: int, text: str, known: KnownKey, time_ns: int, cells: list[tuple[str, Any]]) -> None:
        builder = self._builder(known[0])
        reason = builder.add(number, builder.series_position(known[1]), time_ns, cells)
        if reason is not None:
            self._dropped(number, text, reason)

    def _dropped(self, number: int, text: str, reason: str) -> None:
        self.conflict_count += 1
        # Those of groups are not counted: they may stand behind lines that are still to come.
        if self._conflicts_kept < limits.MAX_REPORTED_LINES:
            self._conflicts_kept += 1
            self.conflicts.append(LineError(number, text, reason))


def _by_measurement(known: list[KnownKey | None]) -> dict[str, list[int] | None]:
    """Positions of the lines of each measurement; None for all of them. Lines whose key is not known are left out."""
    names = [entry[0] for entry in known if entry is not None]
    if not names:
        return {}
    if names.count(names[0]) == len(known):
        return {names[0]: None}
    rows: dict[str, list[int]] = {}
    for row, entry in enumerate(known):
        if entry is not None:
            name = entry[0]
            if name in rows:
                rows[name].append(row)
            else:
                rows[name] = [row]
    return dict(rows)


def _fast_cells(fields: str) -> list[tuple[str, Any]] | None:
    """Cells of an ASCII field list without quotes, backslashes and spaces; None at the first doubt.

    ``float`` accepts more than the protocol does (``1_0``, ``inf``, white space): first and last character and the
    underscore are looked at before it is asked.
    """
    if "\r" in fields or fields[:1] in WHITESPACE:
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
