"""Small operations on columns that planning, folding and finishing share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dsdbd.model.columns import Bools, Column, Int64s
from dsdbd.model.types import FieldType

_NUMBERS = frozenset({FieldType.FLOAT, FieldType.INTEGER})
_DTYPES: dict[FieldType, Any] = {FieldType.FLOAT: np.float64, FieldType.INTEGER: np.int64}


def cast_column(column: Column, field_type: FieldType) -> Column:
    """The column as another type: numbers become each other, anything else has no value in the other type."""
    if column.type is field_type:
        return column
    if column.type in _NUMBERS and field_type in _NUMBERS:
        return Column(field_type, column.values.astype(_DTYPES[field_type]), column.valid)
    return Column.missing(field_type, len(column))


def string_column(texts: Sequence[str], index: Any, *, blank_is_null: bool) -> Column:
    """Strings chosen by position: row i holds ``texts[index[i]]``; a blank one is null if so asked."""
    column_values = pa.array(texts, pa.string()).take(pa.array(index))
    if not blank_is_null:
        return Column(FieldType.STRING, column_values)
    present = np.array([text != "" for text in texts], dtype=np.bool_)
    return Column(FieldType.STRING, column_values, None if bool(present.all()) else present[index])


def take_or_missing(column: Column, rows: Int64s) -> Column:
    """The given rows; -1 stands for a row without a value."""
    absent = rows < 0
    if not bool(absent.any()):
        return column.take(rows)
    if len(column) == 0:
        return Column.missing(column.type, len(rows))
    taken = column.take(np.where(absent, 0, rows))
    valid = ~absent if taken.valid is None else taken.valid & ~absent
    return Column(taken.type, taken.values, valid)


def fill_missing(column: Column, value: int | float) -> Column:
    """A number in place of every missing value; strings become empty and booleans false, as in InfluxDB 1.x."""
    if column.valid is None:
        return column
    valid: Bools = column.valid
    if column.type is FieldType.STRING:
        empty = pa.repeat(pa.scalar("", pa.string()), len(column))
        import pyarrow.compute as pc

        return Column(column.type, pc.if_else(pa.array(valid), column.values, empty))
    constant: Any = False
    if column.type is not FieldType.BOOLEAN:
        constant = float(value) if column.type is FieldType.FLOAT else int(value)
    return Column(column.type, np.where(valid, column.values, constant))
