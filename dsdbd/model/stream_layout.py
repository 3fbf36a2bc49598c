"""Where the columns of a small Arrow IPC stream lie.

Reading a stream makes some objects for each column, which costs more than the values of an ordinary batch. What stands
in front of the values, the schema and the description of the one record batch, says where everything is: streams that
begin alike are laid out alike. So the reading of the first is remembered for the others.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dsdbd.model.types import FieldType

_DTYPES: dict[Any, np.dtype[Any]] = {
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.float64(): np.dtype(np.float64),
}
_FIELD_TYPES: dict[np.dtype[Any] | None, FieldType] = {
    np.dtype(np.int64): FieldType.INTEGER,
    np.dtype(np.float64): FieldType.FLOAT,
    None: FieldType.BOOLEAN,
}
_BOOLEAN = pa.bool_()
_PREFIX = struct.Struct("<II")
"""In front of each message: a mark, and the bytes of the message's description."""
_MARK = 0xFFFFFFFF
_MAX_LAYOUTS = 1_000
_MAX_HEAD_BYTES = 16 << 10


class Place(NamedTuple):
    """One column: its name, the dtype of its values (None: bits), and the offsets of values and of validity bits."""

    name: str
    dtype: np.dtype[Any] | None
    values_at: int
    valid_at: int | None

    def field_type(self) -> FieldType:
        """The type of a field with such values. Raises KeyError where no field has such."""
        return _FIELD_TYPES[self.dtype]

    def values(self, stream: bytes, rows: int) -> npt.NDArray[Any]:
        """The values; where one is null they are unspecified."""
        if self.dtype is None:
            return _bits(stream, self.values_at, rows)
        return np.frombuffer(stream, self.dtype, rows, self.values_at)

    def valid(self, stream: bytes, rows: int) -> npt.NDArray[np.bool_] | None:
        """Where there is a value; None: everywhere."""
        return None if self.valid_at is None else _bits(stream, self.valid_at, rows)


class Layout(NamedTuple):
    """``places`` of the columns in a stream of ``size_bytes`` with ``rows`` rows."""

    places: tuple[Place, ...]
    rows: int
    size_bytes: int


_layouts: dict[bytes, Layout | None] = {}
"""By the bytes in front of the values; None where they lie in another way than ``Place`` can tell."""


def layout_of(stream: bytes) -> Layout | None:
    """The layout of a stream of one record batch of numbers and booleans; None for any other, or a broken one."""
    head = _head_of(stream)
    if head is None:
        return None
    if head not in _layouts:
        if len(_layouts) >= _MAX_LAYOUTS:
            _layouts.clear()
        _layouts[head] = _read_layout(stream)
    found = _layouts[head]
    return found if found is not None and found.size_bytes == len(stream) else None


def _head_of(stream: bytes) -> bytes | None:
    """What stands in front of the values."""
    at = 0
    for _ in range(2):
        if at + _PREFIX.size > len(stream):
            return None
        mark, size = _PREFIX.unpack_from(stream, at)
        at += _PREFIX.size + size
        if mark != _MARK or at > _MAX_HEAD_BYTES:
            return None
    return stream[:at]


def _read_layout(stream: bytes) -> Layout | None:
    begin = pa.py_buffer(stream).address
    with pa.ipc.open_stream(stream) as reader:
        batches = list(reader)
    if len(batches) != 1 or not batches[0].num_rows:
        return None
    places = []
    for name, array in zip(batches[0].schema.names, batches[0].columns, strict=True):
        dtype = _DTYPES.get(array.type)
        if array.offset or (dtype is None and array.type != _BOOLEAN):
            return None
        valid, values = array.buffers()
        valid_at = valid.address - begin if array.null_count else None
        places.append(Place(name, dtype, values.address - begin, valid_at))
        for one in (values, valid if array.null_count else values):
            if not 0 <= one.address - begin <= len(stream) - one.size:
                return None
    return Layout(tuple(places), batches[0].num_rows, len(stream))


def _bits(stream: bytes, at: int, rows: int) -> npt.NDArray[np.bool_]:
    held = np.frombuffer(stream, np.uint8, (rows + 7) // 8, at)
    return np.unpackbits(held, count=rows, bitorder="little").view(np.bool_)
