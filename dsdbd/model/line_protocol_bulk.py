"""A block of lines read as columns, all lines at the same time whatever their series and fields.

What a line has besides its series, its values and its time is its skeleton: lines of one measurement and one skeleton
are a group. The values of all groups are read together. Pure, vectorised; the interpreter is needed for distinct
series and skeletons only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dsdbd.model.columns import Bools, Column, Int32s, Int64s
from dsdbd.model.line_protocol_forms import Form, form_of
from dsdbd.model.line_protocol_keys import KNOWN_KEYS, read_keys
from dsdbd.model.line_protocol_marks import EQUALS, QUOTE, Bytes, Marks, find_marks
from dsdbd.model.line_protocol_scan import BOOLEANS
from dsdbd.model.spans import encode_spans, read_floats, read_integers, take_spans
from dsdbd.model.types import FieldType

_MAX_LINE_BYTES = 32_000
"""Longer lines take the complete scanner, which checks every size limit."""
_FEW_GROUPS = 64
_MIN_ROWS = 4
"""Where there are more groups, smaller ones are read line by line: each becomes columns of its own that are joined."""
_PLUS, _LETTERS, _I, _X = b"+Aix"
_LOWER = 0x20
_FLOAT, _INTEGER, _STRING, _BOOLEAN = range(4)
_SPREAD = 0x9E3779B97F4A7C15
_TRUTHS = {word.encode(): truth for word, truth in BOOLEANS.items()}


class BulkGroup(NamedTuple):
    """Lines of one measurement and one form.

    ``rows``: int64[n], numbers of the lines in the block, ascending. ``codes``: int32[n], of each the position of its
    series in the keys of the block. ``times``: int64[n] in the unit of the request, None where the lines have none.
    ``columns``: one per field.
    """

    measurement: str
    form: Form
    rows: Int64s
    codes: Int32s
    times: Int64s | None
    columns: dict[str, Column]


class Bulk(NamedTuple):
    """A block. ``keys``: canonical keys of its series; ``rest``: numbers of the lines in no group."""

    text: bytes
    marks: Marks
    keys: list[bytes]
    groups: list[BulkGroup]
    rest: Int64s

    def lines(self) -> int:
        """How many lines it has."""
        return len(self.marks.begins)

    def line(self, number: int) -> bytes:
        """The text of a line."""
        return self.text[self.marks.begins[number] : self.marks.ends[number]]


class _Series(NamedTuple):
    """Series of n rows.

    ``codes``: int32[n], positions in ``keys``. ``places``: int32[n], positions in ``measurements``, -1 for a row whose
    key was not understood.
    """

    codes: Int32s
    keys: list[bytes]
    places: Int32s
    measurements: list[str]


class _Values(NamedTuple):
    """Where the values of n rows are, v altogether.

    ``rows``: line of each row. ``fields``, ``first``: int64[n], its number of values and its first value. ``row_of``:
    int64[v]. ``starts``, ``ends``: int64[v], without quotes and the suffix of integers. ``kinds``: uint8[v].
    """

    rows: Int64s
    fields: Int64s
    first: Int64s
    row_of: Int64s
    starts: Int64s
    ends: Int64s
    kinds: Bytes


def read_bulk(text: bytes, max_time: int) -> Bulk | None:
    """Read what can be read at once of some whole lines; None where that would be little.

    Times beyond ``max_time`` on either side are left to the scanner, as everything that is not proven to be right.
    """
    if b"\r" in text or not _is_utf8(text):
        return None
    marks = find_marks(text, _MAX_LINE_BYTES)
    if marks is None:
        return None
    values = _locate(marks)
    if 2 * len(values.rows) < len(marks.begins):
        return None
    try:
        numbers, strings = _read_values(text, values)
        times = _read_times(text, marks, values.rows)
    except pa.ArrowInvalid:
        return None
    if times is None or numbers is None or not -max_time <= int(times.min()) <= int(times.max()) <= max_time:
        return None
    series = _read_keys(text, marks, values.rows)
    forms, skeletons = _skeletons(text, marks, values)
    groups = []
    taken = np.zeros(len(marks.begins), np.bool_)
    parted = _parted(forms, series.places, len(series.measurements))
    least = 1 if len(parted) <= _FEW_GROUPS else _MIN_ROWS
    for members in parted:
        place = int(series.places[members[0]])
        form = None if len(members) < least else _form(skeletons[forms[members[0]]].as_py(), values, members)
        if place < 0 or form is None:
            continue
        rows = values.rows[members]
        taken[rows] = True
        columns = _columns(form, values, members, numbers, strings)
        own_times = times[members] if form.timed else None
        groups.append(BulkGroup(series.measurements[place], form, rows, series.codes[members], own_times, columns))
    return Bulk(text, marks, series.keys, groups, np.flatnonzero(~taken))


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _locate(marks: Marks) -> _Values:
    """The values of regular lines, less those that are not what Arrow's readers would take them for."""
    rows = np.flatnonzero(marks.regular)
    while True:
        values, bad = _cut(marks, rows)
        if not bad.any():
            return values
        good = np.ones(len(rows), np.bool_)
        good[values.row_of[bad]] = False
        rows = rows[good]


def _cut(marks: Marks, rows: Int64s) -> tuple[_Values, Bools]:
    """The values of some lines, and bool[v]: which of them are not in the place of a value or hard to read."""
    data = marks.data
    space = marks.space[rows]
    fields = (marks.stop[rows] - space) >> 1
    first = np.cumsum(fields) - fields
    row_of = np.repeat(np.arange(len(rows)), fields)
    equals = np.repeat(space + 1 - 2 * first, fields)
    equals += np.arange(0, 2 * len(equals), 2)
    starts, ends = marks.at.take(equals) + 1, marks.at.take(equals + 1)
    # An empty value ends where it starts, behind an equals sign, and the text goes on at least to the newline.
    head, tail = data.take(starts, mode="clip"), data.take(ends - 1, mode="clip")
    bad = (marks.kind.take(equals) != EQUALS) | (starts == ends) | (head == _PLUS)
    kinds = np.zeros(len(starts), np.uint8)
    whole = tail == _I
    if whole.any():
        kinds[whole] = _INTEGER
        ends = ends - whole
        bad |= whole & ((starts == ends) | _looks_hexadecimal(data, starts, ends))
    if head.max(initial=0) >= _LETTERS:
        kinds[(head >= _LETTERS) & ~whole] = _BOOLEAN
    quoted = head == QUOTE
    if quoted.any():
        kinds[quoted] = _STRING
        bad |= quoted & (tail != QUOTE)
        starts, ends = starts + quoted, ends - quoted
    return _Values(rows, fields, first, row_of, starts, ends, kinds), bad


def _looks_hexadecimal(data: Bytes, starts: Int64s, ends: Int64s) -> Bools:
    second = data[np.minimum(starts + 1, len(data) - 1)] | _LOWER
    found: Bools = (second == _X) & (ends > starts + 1)
    return found


def _read_values(text: bytes, values: _Values) -> tuple[npt.NDArray[np.float64] | None, Any]:
    """float64[v]: floats, and in the same bits integers, booleans, and the position of a string in the second array.

    None where a float is not finite or a boolean none. Raises ArrowInvalid.
    """
    kinds = values.kinds
    strings: Any = None
    if not kinds.any():
        numbers = read_floats(text, values.starts, values.ends) if len(kinds) else np.zeros(0)
        return (numbers if bool(np.isfinite(numbers).all()) else None), strings
    numbers = np.zeros(len(kinds), np.float64)
    bits = numbers.view(np.int64)
    for kind in (_FLOAT, _INTEGER, _STRING, _BOOLEAN):
        chosen = np.flatnonzero(kinds == kind)
        if not len(chosen):
            continue
        starts, ends = values.starts[chosen], values.ends[chosen]
        if kind == _FLOAT:
            floats = read_floats(text, starts, ends)
            if not np.isfinite(floats).all():
                return None, None
            numbers[chosen] = floats
        elif kind == _INTEGER:
            bits[chosen] = read_integers(text, starts, ends)
        elif kind == _STRING:
            strings = take_spans(text, starts, ends, pa.string())
            bits[chosen] = np.arange(len(chosen))
        else:
            truths = _read_booleans(text, starts, ends)
            if truths is None:
                return None, None
            bits[chosen] = truths
    return numbers, strings


def _read_booleans(text: bytes, starts: Int64s, ends: Int64s) -> Bools | None:
    codes, spelled = encode_spans(text, starts, ends)
    if not all(word in _TRUTHS for word in spelled):
        return None
    found: Bools = np.array([_TRUTHS[word] for word in spelled], np.bool_)[codes]
    return found


def _read_times(text: bytes, marks: Marks, rows: Int64s) -> Int64s | None:
    """The time of each row, zero where it has none; None where one is hard to read. Raises ArrowInvalid."""
    timed = marks.timed[rows]
    if timed.all():
        starts, ends = marks.at[marks.stop[rows]] + 1, marks.ends[rows]
        if _looks_hexadecimal(marks.data, starts, ends).any():
            return None
        return read_integers(text, starts, ends) if len(rows) else np.zeros(0, np.int64)
    times = np.zeros(len(rows), np.int64)
    found = _read_times(text, marks, rows[timed])
    if found is None:
        return None
    times[timed] = found
    return times


def _read_keys(text: bytes, marks: Marks, rows: Int64s) -> _Series:
    """The series of each row."""
    if not len(rows):
        return _Series(np.zeros(0, np.int32), [], np.zeros(0, np.int32), [])
    codes, raw = encode_spans(text, marks.begins[rows], marks.at[marks.space[rows]])
    known = KNOWN_KEYS.lookup(raw)
    if None in known:
        found = read_keys([key for key, entry in zip(raw, known, strict=True) if entry is None])
        KNOWN_KEYS.remember(found)
        known = [entry or found.get(key) for key, entry in zip(raw, known, strict=True)]
    keys = [b"" if entry is None else entry[1] for entry in known]
    names: dict[str, int] = {}
    places = np.array([-1 if entry is None else names.setdefault(entry[0], len(names)) for entry in known], np.int32)
    return _Series(codes, keys, places[codes], list(names))


def _skeletons(text: bytes, marks: Marks, values: _Values) -> tuple[Int64s, Any]:
    """Of each row the position of its skeleton, and the skeletons as an Arrow array.

    Rows whose booleans are in different places have different positions.
    """
    count, total = len(values.rows), len(values.starts)
    stop = marks.stop[values.rows]
    number = np.arange(count)
    slots = np.arange(total) + values.row_of
    last = values.first + values.fields + number
    starts, ends = np.empty(total + count, np.int64), np.empty(total + count, np.int64)
    starts[slots + 1] = values.ends
    starts[values.first + number] = marks.at[marks.space[values.rows]] + 1
    ends[slots] = values.starts
    ends[last] = marks.at[stop] + marks.timed[values.rows]
    pieces = take_spans(text, starts, ends, pa.binary())
    offsets = np.frombuffer(pieces.buffers()[1], np.int32)[: total + count + 1]
    bounds = offsets[np.concatenate([np.zeros(1, np.int64), last + 1])]
    whole = pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(bounds), pieces.buffers()[2]])
    encoded = whole.dictionary_encode()
    forms: Int64s = encoded.indices.to_numpy().astype(np.int64)
    skeletons = encoded.dictionary
    booleans = np.flatnonzero(values.kinds == _BOOLEAN)
    if len(booleans):
        row = values.row_of[booleans]
        sums = np.zeros(count, np.uint64)
        np.add.at(sums, row, (booleans - values.first[row] + 1).astype(np.uint64) * np.uint64(_SPREAD))
        distinct, marked = np.unique(sums, return_inverse=True)
        _, which, forms = np.unique(forms * len(distinct) + marked, return_index=True, return_inverse=True)
        skeletons = skeletons.take(encoded.indices.take(pa.array(which)))
    return forms, skeletons


def _parted(forms: Int64s, places: Int32s, measurements: int) -> list[Int64s]:
    """Positions of the rows of one form and one measurement each, ascending."""
    if not len(forms):
        return []
    joined = forms * (measurements + 1) + places
    if (joined == joined[0]).all():
        return [np.arange(len(joined))]
    order = np.argsort(joined, kind="stable")
    changes = np.flatnonzero(np.diff(joined[order])) + 1
    return np.split(order, changes)


def _form(skeleton: bytes, values: _Values, members: Int64s) -> Form | None:
    """The form of some rows; None for one that only the scanner should read."""
    first, fields = values.first[members], int(values.fields[members[0]])
    kinds = values.kinds[first[0] : first[0] + fields]
    places = np.flatnonzero(kinds == _BOOLEAN)
    # The skeleton shows strings and integers. Where booleans are was only told apart by a sum.
    if len(places) and not (values.kinds[first[:, None] + np.arange(fields)] == kinds).all():
        return None
    return form_of(skeleton, frozenset(places.tolist()))


def _columns(
    form: Form, values: _Values, members: Int64s, numbers: npt.NDArray[np.float64], strings: Any
) -> dict[str, Column]:
    """The columns of a group."""
    fields = len(form.names)
    if len(members) == len(values.rows):
        cells = np.ascontiguousarray(numbers.reshape(len(members), fields).T)
    else:
        cells = numbers[np.arange(fields)[:, None] + values.first[members]]
    columns: dict[str, Column] = {}
    for name, kind, cell in zip(form.names, form.types, cells, strict=True):
        if kind is FieldType.FLOAT:
            columns[name] = Column(kind, cell)
        elif kind is FieldType.INTEGER:
            columns[name] = Column(kind, cell.view(np.int64))
        elif kind is FieldType.BOOLEAN:
            columns[name] = Column(kind, cell.view(np.int64) != 0)
        else:
            columns[name] = Column(kind, strings.take(pa.array(cell.view(np.int64))))
    return columns
