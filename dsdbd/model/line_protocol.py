"""Line protocol bodies to columns of points: the public face of the parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dsdbd import limits
from dsdbd.errors import RequestError
from dsdbd.model.columns import Column, Int32s, Int64s, Points
from dsdbd.model.line_protocol_bulk import Bulk, BulkGroup, read_bulk
from dsdbd.model.line_protocol_columns import MeasurementBuilder, Part
from dsdbd.model.line_protocol_forms import Form
from dsdbd.model.line_protocol_groups import Group, read_groups
from dsdbd.model.line_protocol_keys import KNOWN_KEYS, MAX_REMEMBERED_BYTES, KnownKey, read_keys, split_key
from dsdbd.model.line_protocol_lines import LineBlock, Lines, may_go_on, strip_line
from dsdbd.model.line_protocol_scan import BOOLEANS, WHITESPACE, LineProblem, scan_point
from dsdbd.model.line_protocol_shapes import Shape
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
_MIN_BULK_BYTES = 64 << 10
"""Shorter bodies are read in groups of lines: to look at all bytes at once takes some time however few they are."""
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
    """Lines of one measurement and form, read as columns.

    ``numbers``: int64[n], those of the lines, ascending. ``times``: int64[n] in the unit of the request, None where the
    lines have none. ``positions`` gives a builder's positions of the lines' series, ``line`` the text of the n-th line.
    """

    measurement: str
    form: Form | Shape
    numbers: Int64s
    times: Int64s | None
    columns: Mapping[str, Column]
    positions: Callable[[MeasurementBuilder], Int32s]
    line: Callable[[int], bytes]


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
    parser.read(Lines(body))
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

    def read(self, lines: Lines) -> None:
        """Read all lines of a body."""
        while True:
            piece = lines.piece()
            bulk = read_bulk(piece, MAX_TIME_NS // self.unit_ns) if len(piece) >= _MIN_BULK_BYTES else None
            if bulk is not None and self._bulk(bulk, lines.number):
                lines.skip(bulk.lines())
                continue
            block = lines.block()
            if block is None:
                return
            self._block(block, [])

    def _bulk(self, bulk: Bulk, first_number: int) -> bool:
        """Take what was read in bulk, and read its other lines; False, and nothing is taken, when one does not end."""
        rest = bulk.rest.tolist()
        lines = [bulk.line(row) for row in rest]
        if any(map(may_go_on, lines)):
            return False
        groups = [_placed(bulk, group, first_number) for group in bulk.groups]
        self._block(LineBlock([row + first_number for row in rest], lines, quoted=True), groups)
        return True

    def _block(self, block: LineBlock, groups: list[_PlacedGroup]) -> None:
        """Read lines in groups, the others one by one; all, and the groups given, in the order they came in."""
        lines = block.lines
        self._conflicts_kept = len(self.conflicts)
        found = self._groups(block) if len(lines) >= _MIN_BLOCK_LINES else []
        if not found and not groups:
            for number, line in zip(block.numbers, lines, strict=True):
                if line:
                    self.line(number, line)
            return
        alone = np.ones(len(lines), np.bool_)
        for part in found:
            alone[_rows(block, part.numbers)] = False
        # A group stands where its first line stands: from there on the types of its fields are fixed.
        groups = sorted([*groups, *found], key=lambda part: int(part.numbers[0]), reverse=True)
        for row in np.flatnonzero(alone).tolist():
            number = block.numbers[row]
            while groups and groups[-1].numbers[0] < number:
                self._add_group(groups.pop())
            self.line(number, lines[row])
        while groups:
            self._add_group(groups.pop())
        self.conflicts.sort(key=lambda conflict: conflict.line_number)
        del self.conflicts[limits.MAX_REPORTED_LINES :]

    def _groups(self, block: LineBlock) -> list[_PlacedGroup]:
        """Groups of lines that were read column by column."""
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
                places = group.rows if rows is None else np.array(rows, np.int64)[group.rows]
                placed.append(_placed_lines(block, measurement, group, own, places))
        return placed

    def _add_group(self, placed: _PlacedGroup) -> None:
        """Add the rows of a group, or note that they contradict what is known."""
        form, numbers, times = placed.form, placed.numbers, placed.times
        builder = self._builder(placed.measurement)
        self.columnar_rows += len(numbers)
        reason = builder.admit(form, form.names, form.types)
        if reason is not None:
            self.conflict_count += len(numbers)
            for row, number in enumerate(numbers[: limits.MAX_REPORTED_LINES].tolist()):
                self.conflicts.append(LineError(number, strip_line(placed.line(row)).decode(), reason))
            return
        if times is None:
            time_ns = np.full(len(numbers), self.default_time_ns, np.int64)
        else:
            time_ns = times if self.unit_ns == 1 else times * self.unit_ns
        builder.add_part(Part(numbers, placed.positions(builder), time_ns, placed.columns))

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


def _placed(bulk: Bulk, group: BulkGroup, first_number: int) -> _PlacedGroup:
    return _PlacedGroup(
        group.measurement,
        group.form,
        group.rows + first_number,
        group.times,
        group.columns,
        lambda builder: builder.coded_positions(group.codes, bulk.keys),
        lambda row: bulk.line(int(group.rows[row])),
    )


def _rows(block: LineBlock, numbers: Int64s) -> Int64s:
    """Positions of some lines in a block."""
    if isinstance(block.numbers, range):
        return numbers - block.numbers.start
    return np.searchsorted(np.array(block.numbers, np.int64), numbers)


def _placed_lines(block: LineBlock, measurement: str, group: Group, keys: list[bytes], rows: Int64s) -> _PlacedGroup:
    """A group of lines at some positions of a block."""
    if isinstance(block.numbers, range):
        numbers = rows + block.numbers.start
    else:
        numbers = np.array(block.numbers, np.int64)[rows]
    return _PlacedGroup(
        measurement,
        group.shape,
        numbers,
        group.times,
        group.columns,
        lambda builder: builder.series_positions(keys),
        lambda row: block.lines[rows[row]],
    )


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
