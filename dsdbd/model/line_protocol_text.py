r"""Points as line protocol, the reverse of the parser: each row a line with a time in nanoseconds.

Every point that was parsed from line protocol comes back as the same point. Names of fields that no line can hold,
such as one that ends with a backslash, can only come from aliases of queries; whoever reads the line refuses it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Column, Points
from dsdbd.model.types import FieldType

_FIELD_KEY_ESCAPES = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\=", '"': r"\""})
_TEXT = pa.string()


def format_lines(points: Points, start: int, stop: int) -> Any:
    """Rows ``start`` to ``stop`` as an Arrow ``string`` array of lines with their line ends.

    Rows without any value that line protocol can express (not a number, infinity) are left out. The work of a few
    thousand rows takes some milliseconds.
    """
    values = [
        _cells(key, Column(column.type, column.values[start:stop], _part(column.valid, start, stop)))
        for key, column in points.fields.items()
    ]
    if not values or stop <= start:
        return pa.array([], _TEXT)
    parts = [_keys(points, start, stop), pa.array(points.time_ns[start:stop]).cast(_TEXT), *values]
    some = functools.reduce(pc.or_, map(pc.is_valid, values))
    if not pc.all(some).as_py():
        parts = [part.filter(some) for part in parts]
    keys, times, *values = parts
    if len(keys) == 0:
        return keys
    fields = pc.binary_join_element_wise(*values, ",", null_handling="skip")
    lines = pc.binary_join_element_wise(keys, fields, times, " ")
    return pc.binary_join_element_wise(lines, "\n", "")


def joined(lines: Any) -> bytes:
    """All lines of an Arrow ``string`` array, one after another."""
    if len(lines) == 0:
        return b""
    _, offsets, data = lines.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)
    return bytes(memoryview(data)[int(bounds[lines.offset]) : int(bounds[lines.offset + len(lines)])])


def _part(valid: Any, start: int, stop: int) -> Any:
    return None if valid is None else valid[start:stop]


def _keys(points: Points, start: int, stop: int) -> Any:
    """The key of each row, which is line protocol already."""
    places, rows = np.unique(points.series_index[start:stop], return_inverse=True)
    keys = pa.array([points.series[place] for place in places.tolist()], pa.binary())
    return keys.cast(_TEXT).take(pa.array(rows))


def _cells(key: str, column: Column) -> Any:
    """``key=value`` of each row, null where there is no value."""
    values = column.to_arrow()
    if column.type is FieldType.STRING:
        escaped = pc.replace_substring(pc.replace_substring(values, "\\", "\\\\"), '"', '\\"')
        texts = pc.binary_join_element_wise('"', escaped, '"', "")
    elif column.type is FieldType.INTEGER:
        texts = pc.binary_join_element_wise(values.cast(_TEXT), "i", "")
    elif column.type is FieldType.BOOLEAN:
        texts = pc.if_else(values, "true", "false")
    else:
        finite = pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
        texts = finite.cast(_TEXT)
    return pc.binary_join_element_wise(key.translate(_FIELD_KEY_ESCAPES), texts, "=")
