"""Many stretches of one text at once, copied together or read as numbers by Arrow, without the interpreter.

Stretches are given as ``starts`` and ``ends``, int64[n] offsets into a text of less than 2 GB, in order and without
overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dsdbd.model.columns import Int32s, Int64s

_EVERY_OTHER = b"\x55"


def _alternating(text: Any, starts: Int64s, ends: Int64s, kind: Any, *, masked: bool) -> Any:
    """An Arrow array over the text in which the stretches alternate with what lies between them."""
    count = 2 * len(starts)
    offsets = np.empty(count + 1, np.int32)
    offsets[:-1:2] = starts
    offsets[1::2] = ends
    offsets[-1] = ends[-1]
    mask = pa.py_buffer(_EVERY_OTHER * ((count + 7) // 8)) if masked else None
    return pa.Array.from_buffers(kind, count, [mask, pa.py_buffer(offsets), pa.py_buffer(text)])


def take_spans(text: Any, starts: Int64s, ends: Int64s, kind: Any) -> Any:
    """Copies of some stretches (at least one) as an Arrow array of ``kind``, which is binary or string."""
    places = pa.array(np.arange(0, 2 * len(starts), 2, dtype=np.int32))
    return _alternating(text, starts, ends, kind, masked=False).take(places)


def encode_spans(text: Any, starts: Int64s, ends: Int64s) -> tuple[Int32s, list[bytes]]:
    """Of each stretch (at least one) its position among the distinct ones, int32[n], and those."""
    encoded = _alternating(text, starts, ends, pa.binary(), masked=True).dictionary_encode()
    codes = np.frombuffer(encoded.indices.buffers()[1], np.int32)[: 2 * len(starts) : 2]
    return codes.copy(), encoded.dictionary.to_pylist()


def read_floats(text: Any, starts: Int64s, ends: Int64s) -> npt.NDArray[np.float64]:
    """The number nearest to each stretch (at least one), float64[n]; raises pyarrow.ArrowInvalid where one is none.

    Besides decimal numbers a leading plus sign, infinity and NaN are taken for numbers.
    """
    numbers: npt.NDArray[np.float64] = _read(text, starts, ends, pa.float64(), np.float64)
    return numbers


def read_integers(text: Any, starts: Int64s, ends: Int64s) -> Int64s:
    """The value of each stretch (at least one), int64[n]; raises pyarrow.ArrowInvalid where one is no int64.

    Besides decimal numbers those like ``0x1F`` are taken for numbers.
    """
    numbers: Int64s = _read(text, starts, ends, pa.int64(), np.int64)
    return numbers


def _read(text: Any, starts: Int64s, ends: Int64s, kind: Any, dtype: Any) -> Any:
    # What is masked is passed over, so the stretches need not be copied.
    numbers = _alternating(text, starts, ends, pa.string(), masked=True).cast(kind)
    return np.frombuffer(numbers.buffers()[1], dtype)[: len(numbers) : 2]
