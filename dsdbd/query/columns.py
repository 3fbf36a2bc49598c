"""Small operations on columns that planning, folding and finishing share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Bools, Column, Int32s, Int64s, concat_columns
from dsdbd.model.types import FieldType

_NUMBERS = frozenset({FieldType.FLOAT, FieldType.INTEGER})
_DTYPES: dict[FieldType, Any] = {FieldType.FLOAT: np.float64, FieldType.INTEGER: np.int64}


def cast_column(column: Column, field_type: FieldType) -> Column:
    """The column as another type: numbers become each other, anything else has no value in the other type."""
    if column.type is field_type:
        return column
    if can_cast(column.type, field_type):
        return Column(field_type, column.values.astype(_DTYPES[field_type]), column.valid)
    return Column.missing(field_type, len(column))


def can_cast(stored: FieldType, field_type: FieldType) -> bool:
    """Whether values of one type have a value in the other."""
    return stored is field_type or (stored in _NUMBERS and field_type in _NUMBERS)


def coded_strings(texts: Any, codes: Int32s) -> Column:
    """Strings chosen by position, kept as positions: row i holds ``texts[codes[i]]``, no value where the code is -1.

    ``texts``: Arrow strings, ``codes``: int32[n]. ``values`` of the column is an Arrow dictionary array.
    """
    present = codes >= 0
    if bool(present.all()):
        return Column(FieldType.STRING, pa.DictionaryArray.from_arrays(pa.array(codes), texts))
    indices = pa.array(codes, pa.int32(), mask=~present)
    return Column(FieldType.STRING, pa.DictionaryArray.from_arrays(indices, texts), present)


def is_coded(column: Column) -> bool:
    """True for strings that are kept as positions in a list of texts."""
    return column.type is FieldType.STRING and pa.types.is_dictionary(column.values.type)


def is_listed(column: Column) -> bool:
    """True for lists of strings, which some tables of SHOW statements hold: an Arrow list array."""
    return column.type is FieldType.STRING and pa.types.is_list(column.values.type)


def plain_strings(column: Column) -> Column:
    """The column without positions, every string by itself."""
    return Column(column.type, column.values.cast(pa.string()), column.valid) if is_coded(column) else column


def concat(parts: Sequence[Column]) -> Column:
    """Columns of one type, one after another; needs at least one."""
    if len(parts) > 1 and len({is_coded(part) for part in parts}) > 1:
        parts = [plain_strings(part) for part in parts]
    return concat_columns(list(parts))


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
        return Column(column.type, pc.if_else(pa.array(valid), plain_strings(column).values, ""))
    constant: Any = False
    if column.type is not FieldType.BOOLEAN:
        constant = float(value) if column.type is FieldType.FLOAT else int(value)
    return Column(column.type, np.where(valid, column.values, constant))
