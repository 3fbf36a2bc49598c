"""Bodies of write requests, cut from text columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

TIME_DIGITS = 19
"""Nanoseconds since 1970 have this many digits from 2001 to 2286; every generated line ends with them."""


@dataclass(frozen=True)
class Body:
    """Some lines. ``line_ends`` holds the offset of each line feed, int64, shape (rows,)."""

    data: bytes | bytearray
    rows: int
    values: int
    line_ends: np.ndarray = field(repr=False)


def cut(lines: pa.Array, values: np.ndarray, rows: int) -> Iterator[Body]:
    """Yield bodies of ``rows`` lines each, the last with what is left.

    ``lines`` is an Arrow string array without nulls whose items end with a line feed: its data buffer is the text of
    all bodies. ``values`` counts the field values of each line.
    """
    offsets = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset : lines.offset + len(lines) + 1].astype(np.int64)
    text = memoryview(lines.buffers()[2])
    for low in range(0, len(lines), rows):
        high = min(low + rows, len(lines))
        data = bytes(text[offsets[low] : offsets[high]])
        yield Body(data, high - low, int(values[low:high].sum()), offsets[low + 1 : high + 1] - offsets[low] - 1)


def moved(body: Body, by_ns: int) -> Body:
    """Return the same lines with later times; raises ValueError where a time would need other than 19 digits."""
    text = bytearray(body.data)
    later: dict[bytes, bytes] = {}
    for end in body.line_ends.tolist():
        digits = bytes(text[end - TIME_DIGITS : end])
        if (moved_digits := later.get(digits)) is None:
            moved_digits = later[digits] = b"%d" % (int(digits) + by_ns)
            if len(moved_digits) != TIME_DIGITS:
                raise ValueError(f"{digits.decode()} moved by {by_ns} ns does not have {TIME_DIGITS} digits")
        text[end - TIME_DIGITS : end] = moved_digits
    return Body(text, body.rows, body.values, body.line_ends)
