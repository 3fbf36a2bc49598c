"""Rows of parsed lines gathered into columns: one builder per measurement."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dsdbd import limits
from dsdbd.model.columns import Column, Int32s, Int64s, Points, concat_columns
from dsdbd.model.types import FieldType

_FIELD_TYPES = {
    float: FieldType.FLOAT,
    int: FieldType.INTEGER,
    str: FieldType.STRING,
    bool: FieldType.BOOLEAN,
}
_DTYPES: dict[FieldType, Any] = {FieldType.FLOAT: np.float64, FieldType.INTEGER: np.int64, FieldType.BOOLEAN: np.bool_}


class Part(NamedTuple):
    """Some rows of a measurement.

    ``order``: int64[n], ascending, the number of each row's line. ``series_index``, ``time_ns``, ``fields``: as in
    Points.
    """

    order: Int64s
    series_index: Int32s
    time_ns: Int64s
    fields: Mapping[str, Column]


class _Row(NamedTuple):
    order: int
    position: int
    time_ns: int
    cells: Sequence[tuple[str, Any]]


class _Cells:
    """Values of one field and the rows they belong to; both lists grow together."""

    __slots__ = ("rows", "type", "values")

    def __init__(self, field_type: FieldType) -> None:
        self.type = field_type
        self.rows: list[int] = []
        self.values: list[Any] = []

    def column(self, rows: int) -> Column:
        full = len(self.rows) == rows
        valid = None
        if not full:
            valid = np.zeros(rows, dtype=np.bool_)
            valid[self.rows] = True
        if self.type is FieldType.STRING:
            if full:
                return Column(self.type, pa.array(self.values, pa.string()))
            spread: list[str | None] = [None] * rows
            for row, value in zip(self.rows, self.values, strict=True):
                spread[row] = value
            return Column(self.type, pa.array(spread, pa.string()), valid)
        if full:
            return Column(self.type, np.array(self.values, dtype=_DTYPES[self.type]))
        values = np.zeros(rows, dtype=_DTYPES[self.type])
        values[self.rows] = self.values
        return Column(self.type, values, valid)


class MeasurementBuilder:
    """Collects the points of one measurement.

    Rows come one by one or as parts. They must be offered in the order of their lines as far as types go: a row or
    part fixes the types of its fields for those after it. ``known`` are the types its fields have already: a row that
    contradicts them is dropped and fixes nothing.
    """

    def __init__(self, measurement: str, known: Mapping[str, FieldType]) -> None:
        self.measurement = measurement
        self._types = dict(known)
        self._series: dict[bytes, int] = {}
        self._parts: list[Part] = []
        self._rows: list[_Row] = []
        self._cells_held = 0
        self._judged: dict[Hashable, str | None] = {}

    def series_position(self, key: bytes) -> int:
        """Position of a series, given by its canonical key, in the result; a new series gets the next one."""
        return self._series.setdefault(key, len(self._series))

    def series_positions(self, keys: Sequence[bytes]) -> Int32s:
        """Positions of the series of many rows."""
        series = self._series
        for key in dict.fromkeys(keys):
            if key not in series:
                series[key] = len(series)
        return np.fromiter(map(series.__getitem__, keys), np.int32, len(keys))

    def coded_positions(self, codes: Int32s, keys: Sequence[bytes]) -> Int32s:
        """The same for rows whose keys are given as positions in ``keys``."""
        used = np.zeros(len(keys), np.bool_)
        used[codes] = True
        places = np.empty(len(keys), np.int32)
        series = self._series
        for code in np.flatnonzero(used).tolist():
            places[code] = series.setdefault(keys[code], len(series))
        found: Int32s = places[codes]
        return found

    def admit(self, shape: Hashable, names: tuple[str, ...], types: tuple[FieldType, ...]) -> str | None:
        """Whether rows of these fields, none of them named ``time`` or named twice, may come; else the reason.

        ``shape`` stands for names and types: the same for the same ones.
        """
        if shape not in self._judged:
            # Types never change once they are fixed, so the answer holds for all later rows.
            self._judged[shape] = self._fix(list(zip(names, types, strict=True)))
        return self._judged[shape]

    def add_part(self, part: Part) -> None:
        """Add rows whose fields were admitted."""
        self._parts.append(part)

    def add(self, order: int, position: int, time_ns: int, cells: Sequence[tuple[str, Any]]) -> str | None:
        """Add one row; returns why it was dropped whole, or None.

        The first row that has a field fixes the field's type for the measurement. A field named ``time`` is left out,
        and a row with no other field is dropped, as in InfluxDB 1.x. Of a field given twice the later value counts.
        """
        types = self._types
        for name, value in cells:
            if types.get(name) is not _FIELD_TYPES[type(value)]:
                problem = self._fix([(name, _FIELD_TYPES[type(value)]) for name, value in cells])
                if problem is not None:
                    return problem
                cells = [cell for cell in cells if cell[0] != "time"]
                break
        self._rows.append(_Row(order, position, time_ns, cells))
        self._cells_held += len(cells)
        if self._cells_held >= limits.PARSE_CELLS_HELD:
            self._parts.append(self._singles())
            self._rows = []
            self._cells_held = 0
        return None

    def _fix(self, cells: Sequence[tuple[str, FieldType]]) -> str | None:
        """Fix the types of a row's fields; none is fixed when the row is dropped, and the reason is returned."""
        fresh: dict[str, FieldType] = {}
        useful = False
        for name, sent in cells:
            if name == "time":
                continue
            useful = True
            fixed = self._types.get(name) or fresh.setdefault(name, sent)
            if fixed is not sent:
                return (
                    f'field type conflict: input field "{name}" on measurement "{self.measurement}" is type '
                    f"{sent.value}, already exists as type {fixed.value}"
                )
        if not useful:
            return f'invalid field name: input field "time" on measurement "{self.measurement}" is invalid'
        self._types.update(fresh)
        return None

    def points(self) -> Points:
        """The rows added so far as columns, in the order of their lines."""
        parts = (
            [*self._parts, self._single() if len(self._rows) == 1 else self._singles()] if self._rows else self._parts
        )
        if not parts:
            return Points(self.measurement, (), np.zeros(0, np.int32), np.zeros(0, np.int64), {})
        merged = parts[0] if len(parts) == 1 else _merge(parts)
        return Points(self.measurement, tuple(self._series), merged.series_index, merged.time_ns, merged.fields)

    def _singles(self) -> Part:
        """The rows that came one by one."""
        rows = self._rows
        columns: dict[str, _Cells] = {}
        for number, row in enumerate(rows):
            for name, value in row.cells:
                column = columns.get(name)
                if column is None:
                    column = columns[name] = _Cells(self._types[name])
                if column.rows and column.rows[-1] == number:
                    column.values[-1] = value
                else:
                    column.rows.append(number)
                    column.values.append(value)
        return Part(
            np.array([row.order for row in rows], np.int64),
            np.array([row.position for row in rows], np.int32),
            np.array([row.time_ns for row in rows], np.int64),
            {name: cells.column(len(rows)) for name, cells in columns.items()},
        )

    def _single(self) -> Part:
        """The one row that came by itself: the usual request of a client that sends every point at once."""
        row = self._rows[0]
        values = dict(row.cells)
        types = self._types
        floats = np.array([value for value in values.values() if type(value) is float])
        fields: dict[str, Column] = {}
        at = 0
        for name, value in values.items():
            if type(value) is float:
                at += 1
                fields[name] = Column(FieldType.FLOAT, floats[at - 1 : at])
            elif type(value) is str:
                fields[name] = Column(FieldType.STRING, pa.array([value], pa.string()))
            else:
                fields[name] = Column(types[name], np.array([value], _DTYPES[types[name]]))
        return Part(
            np.array([row.order], np.int64),
            np.array([row.position], np.int32),
            np.array([row.time_ns], np.int64),
            fields,
        )


def _merge(parts: list[Part]) -> Part:
    """Parts of one measurement as one, rows ordered by their lines."""
    order = np.concatenate([part.order for part in parts])
    rows = len(order)
    sequence = None
    if (np.diff(order) < 0).any():
        sequence = np.argsort(order, kind="stable")
    elif all(part.fields.keys() == parts[0].fields.keys() for part in parts):
        return Part(
            order,
            np.concatenate([part.series_index for part in parts]),
            np.concatenate([part.time_ns for part in parts]),
            {name: concat_columns([part.fields[name] for part in parts]) for name in parts[0].fields},
        )
    place = np.arange(rows, dtype=np.int64)
    if sequence is not None:
        place[sequence] = np.arange(rows, dtype=np.int64)
    bounds = np.cumsum([0, *(len(part.order) for part in parts)]).tolist()
    places = [place[start:stop] for start, stop in itertools.pairwise(bounds)]
    holders: dict[str, list[tuple[Int64s, Column]]] = {}
    for where, part in zip(places, parts, strict=True):
        for name, column in part.fields.items():
            holders.setdefault(name, []).append((where, column))
    fields = {name: _spread(columns, rows) for name, columns in holders.items()}
    series_index = np.concatenate([part.series_index for part in parts])
    time_ns = np.concatenate([part.time_ns for part in parts])
    if sequence is not None:
        order, series_index, time_ns = order[sequence], series_index[sequence], time_ns[sequence]
    return Part(order, series_index, time_ns, fields)


def _spread(columns: list[tuple[Int64s, Column]], rows: int) -> Column:
    """One column of ``rows`` rows with the values of several at the places given; without a value elsewhere."""
    field_type = columns[0][1].type
    valid = None
    if sum(len(where) for where, _ in columns) < rows or any(column.valid is not None for _, column in columns):
        valid = np.zeros(rows, np.bool_)
        for where, column in columns:
            valid[where] = True if column.valid is None else column.valid
    if field_type is not FieldType.STRING:
        values = np.zeros(rows, _DTYPES[field_type])
        for where, column in columns:
            values[where] = column.values
        return Column(field_type, values, valid)
    source = np.full(rows, -1, np.int64)
    start = 0
    for where, column in columns:
        source[where] = np.arange(start, start + len(column), dtype=np.int64)
        start += len(column)
    texts = pa.concat_arrays([column.values for _, column in columns])
    return Column(field_type, texts.take(pa.array(source, mask=source < 0)), valid)
