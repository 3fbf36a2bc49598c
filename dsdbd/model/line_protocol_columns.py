"""Rows of parsed lines gathered into columns: one builder per measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dsdbd.model.columns import Column, Points
from dsdbd.model.types import FieldType

_FIELD_TYPES = {
    float: FieldType.FLOAT,
    int: FieldType.INTEGER,
    str: FieldType.STRING,
    bool: FieldType.BOOLEAN,
}
_DTYPES: dict[FieldType, Any] = {FieldType.FLOAT: np.float64, FieldType.INTEGER: np.int64, FieldType.BOOLEAN: np.bool_}


class _Cells:
    """Values of one field and the rows they belong to; both lists grow together."""

    __slots__ = ("python_type", "rows", "values")

    def __init__(self, python_type: type) -> None:
        self.python_type = python_type
        self.rows: list[int] = []
        self.values: list[Any] = []

    def column(self, rows: int) -> Column:
        field_type = _FIELD_TYPES[self.python_type]
        full = len(self.rows) == rows
        valid = None
        if not full:
            valid = np.zeros(rows, dtype=np.bool_)
            valid[self.rows] = True
        if field_type is FieldType.STRING:
            if full:
                return Column(field_type, pa.array(self.values, pa.string()))
            spread: list[str | None] = [None] * rows
            for row, value in zip(self.rows, self.values, strict=True):
                spread[row] = value
            return Column(field_type, pa.array(spread, pa.string()), valid)
        if full:
            return Column(field_type, np.array(self.values, dtype=_DTYPES[field_type]))
        values = np.zeros(rows, dtype=_DTYPES[field_type])
        values[self.rows] = self.values
        return Column(field_type, values, valid)


class MeasurementBuilder:
    """Collects the points of one measurement in arrival order.

    ``known`` are the types its fields have already: a row that contradicts them is dropped and fixes nothing.
    """

    def __init__(self, measurement: str, known: Mapping[str, FieldType]) -> None:
        self.measurement = measurement
        self._known = known
        self._series: dict[bytes, int] = {}
        self._series_index: list[int] = []
        self._time_ns: list[int] = []
        self._cells: dict[str, _Cells] = {}

    def __len__(self) -> int:
        return len(self._time_ns)

    def series_position(self, key: bytes) -> int:
        """Position of a series, given by its canonical key, in the result; a new series gets the next one."""
        return self._series.setdefault(key, len(self._series))

    def add(self, position: int, time_ns: int, cells: Sequence[tuple[str, Any]]) -> str | None:
        """Add one row; returns why it was dropped whole, or None.

        The first row that has a field fixes the field's type for the measurement. A field named ``time`` is left out,
        and a row with no other field is dropped, as in InfluxDB 1.x. Of a field given twice the later value counts.
        """
        columns = self._cells
        for name, value in cells:
            column = columns.get(name)
            if column is None:
                problem = self._new_fields(cells)
                if problem is not None:
                    return problem
                cells = [cell for cell in cells if cell[0] != "time"]
                break
            if column.python_type is not type(value):
                return self._conflict(name, _FIELD_TYPES[type(value)], _FIELD_TYPES[column.python_type])
        row = len(self._time_ns)
        for name, value in cells:
            column = columns[name]
            if column.rows and column.rows[-1] == row:
                column.values[-1] = value
            else:
                column.rows.append(row)
                column.values.append(value)
        self._series_index.append(position)
        self._time_ns.append(time_ns)
        return None

    def _new_fields(self, cells: Sequence[tuple[str, Any]]) -> str | None:
        """Open columns for fields seen for the first time; nothing is opened when the row is dropped."""
        fresh: dict[str, _Cells] = {}
        useful = False
        for name, value in cells:
            if name == "time":
                continue
            useful = True
            column = self._cells.get(name) or fresh.get(name)
            if column is None:
                known = self._known.get(name)
                if known is not None and known is not _FIELD_TYPES[type(value)]:
                    return self._conflict(name, _FIELD_TYPES[type(value)], known)
                fresh[name] = _Cells(type(value))
            elif column.python_type is not type(value):
                return self._conflict(name, _FIELD_TYPES[type(value)], _FIELD_TYPES[column.python_type])
        if not useful:
            return f'invalid field name: input field "time" on measurement "{self.measurement}" is invalid'
        self._cells.update(fresh)
        return None

    def _conflict(self, name: str, sent: FieldType, fixed: FieldType) -> str:
        return (
            f'field type conflict: input field "{name}" on measurement "{self.measurement}" is type '
            f"{sent.value}, already exists as type {fixed.value}"
        )

    def points(self) -> Points:
        """The rows added so far as columns."""
        rows = len(self._time_ns)
        return Points(
            self.measurement,
            tuple(self._series),
            np.array(self._series_index, dtype=np.int32),
            np.array(self._time_ns, dtype=np.int64),
            {name: cells.column(rows) for name, cells in self._cells.items()},
        )
