"""Columns as text, many rows at once: each cell gets a field of fixed width, and unused bytes go out at the end.

A part is an array of n items of some width, bytes as they shall stand in the text, zero where there are less; or
constant bytes that stand in every row. ``join_rows`` lays the parts side by side and drops the zeros. Numbers come from
tables of four digits, which makes a cell several times as quick as a call of a formatting function; the rare floats
whose digits are not found so are left to Arrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Bools, Int64s
from dsdbd.query.float_digits import FRACTION_DIGITS, shortest_digits

ZERO = b"\xff"
"""Stands for a zero byte that belongs to a text: no UTF-8 holds it."""
_ZERO_BACK = bytes.maketrans(ZERO, b"\0")
Part = Any
"""bytes, or an array of n items without Python objects in it."""
_GROUP = 10_000
_DECIMALS = 10_000.0
_EXACT = 1e15
"""Whole numbers of up to 15 digits: each is a float of its own, and so is each decimal with as many digits."""


def join_rows(parts: Sequence[Part], rows: int) -> bytes:
    """The text of all rows, one after another."""
    width = sum(len(part) if isinstance(part, bytes) else part.dtype.itemsize for part in parts)
    buffer = bytearray(rows * width)
    matrix = np.frombuffer(buffer, dtype=np.uint8).reshape(rows, width)
    offset = 0
    for part in parts:
        if isinstance(part, bytes):
            size = len(part)
            matrix[:, offset : offset + size] = np.frombuffer(part, dtype=np.uint8)
        else:
            size = part.dtype.itemsize
            np.ndarray((rows,), dtype=part.dtype, buffer=matrix, offset=offset, strides=(width,))[:] = part
        offset += size
    return bytes(buffer.translate(_ZERO_BACK, b"\0"))


def blank(parts: Sequence[Part], mask: Bools, instead: bytes) -> list[Part]:
    """The parts with nothing in the rows of ``mask`` but one other text; no part may be constant."""
    found = []
    for part in parts:
        emptied = part.copy()
        emptied[mask] = np.zeros(1, dtype=part.dtype)[0]
        found.append(emptied)
    if instead:
        table = np.array([b"", instead])
        found.append(table[mask.astype(np.intp)])
    return found


def overwrite(parts: Sequence[Part], mask: Bools, texts: Sequence[bytes]) -> list[Part]:
    """The parts with other texts in the rows of ``mask``, one for each of them; no part may be constant.

    The parts' arrays are changed.
    """
    rows = np.flatnonzero(mask)
    table = np.array([b"", *texts])
    width = table.dtype.itemsize
    bytes_of = table[1:].view(np.uint8).reshape(len(rows), width)
    found, offset = list(parts), 0
    for part in parts:
        size = part.dtype.itemsize
        cut = bytes_of[:, offset : offset + size]
        cells = part.view(np.uint8).reshape(len(part), size)
        cells[rows, : cut.shape[1]] = cut
        cells[rows, cut.shape[1] :] = 0
        offset += size
    if offset < width:
        rest = np.zeros((len(mask), width - offset), dtype=np.uint8)
        rest[rows] = bytes_of[:, offset:]
        found.append(rest.view(f"S{width - offset}").ravel())
    return found


def fixed_width(texts: Any) -> Part:
    """An Arrow string array without nulls as one part, as wide as its longest text."""
    rows = len(texts)
    buffers = texts.buffers()
    offsets = np.frombuffer(buffers[1], dtype=np.int32)[texts.offset : texts.offset + rows + 1].astype(np.int64)
    lengths = np.diff(offsets)
    width = max(int(lengths.max(initial=0)), 1)
    found = np.zeros((rows, width), dtype=np.uint8)
    if len(offsets) and bool((lengths == width).all()):
        found = np.frombuffer(buffers[2], dtype=np.uint8)[int(offsets[0]) : int(offsets[-1])].reshape(rows, width)
        found = np.where(found == 0, np.uint8(ZERO[0]), found)
    elif total := int(lengths.sum()):
        data = np.frombuffer(buffers[2], dtype=np.uint8)[int(offsets[0]) : int(offsets[-1])]
        data = np.where(data == 0, np.uint8(ZERO[0]), data)
        places = np.repeat(np.arange(rows, dtype=np.int64) * width - (offsets[:-1] - offsets[0]), lengths)
        found.ravel()[places + np.arange(total)] = data
    return found.view(f"S{width}").ravel()


def longest_text(texts: Any) -> int:
    """Bytes of the longest of some Arrow strings."""
    longest = pc.max(pc.binary_length(texts)).as_py()
    return longest or 0


@cache
def _digits() -> Any:
    """Texts of four digits as uint32: zero-padded, then plain with nothing for 0, then plain with ``0`` for 0."""
    padded = _four_digits()
    plain = np.where(np.cumsum(padded != ord("0"), axis=1) > 0, padded, np.uint8(0))
    with_zero = plain.copy()
    with_zero[0, 0] = ord("0")
    return np.concatenate([padded, plain, with_zero]).view(np.uint32).ravel()


@cache
def _fractions() -> Any:
    """``.1234`` as uint64, without trailing zeros; nothing for 0."""
    texts = np.zeros((_GROUP, 8), dtype=np.uint8)
    texts[1:, 0] = ord(".")
    texts[:, 1:5] = _without_last_zeros(_four_digits())
    return texts.view(np.uint64).ravel()


def _four_digits() -> Any:
    """uint8[10000, 4]: ``0000`` to ``9999``."""
    numbers = np.arange(_GROUP)
    return (np.stack([numbers // 1000, numbers // 100 % 10, numbers // 10 % 10, numbers % 10], axis=1) + 48).astype(
        "u1"
    )


def _without_last_zeros(digits: Any) -> Any:
    kept = np.cumsum((digits != ord("0"))[:, ::-1], axis=1)[:, ::-1] > 0
    return np.where(kept, digits, np.uint8(0))


def whole_parts(values: Any) -> list[Part]:
    """Decimal digits of numbers from 0 on (int64 or uint64)."""
    digits = _digits()
    greatest = int(values.max(initial=0))
    if greatest < _GROUP:
        return [digits.take(values.astype(np.int64) + 2 * _GROUP)]
    parts: list[Part] = []
    group = values.dtype.type(_GROUP)
    last = True
    while greatest:
        above = values // group
        place = (values - above * group).astype(np.int64)
        place += np.where(above == 0, (2 if last else 1) * _GROUP, 0)
        parts.append(digits.take(place))
        values, greatest, last = above, greatest // _GROUP, False
    return parts[::-1]


def integer_parts(values: Int64s) -> list[Part]:
    """Decimal text of int64 numbers."""
    negative = values < 0
    if not bool(negative.any()):
        return whole_parts(values)
    # Two's complement: the size of the least number does not fit into int64.
    unsigned = values.view(np.uint64)
    return [_signs(negative), *whole_parts(np.where(negative, ~unsigned + np.uint64(1), unsigned))]


def _signs(negative: Bools) -> Part:
    return np.where(negative, np.uint8(ord("-")), np.uint8(0))


def decimal_parts(values: Any) -> tuple[list[Part], Bools | None]:
    """Shortest text of floats with at most four decimals, and the rows of other floats, where it is not right.

    None instead of these rows when there are none; no parts when there are no others.
    """
    with np.errstate(all="ignore"):
        scaled = np.rint(np.abs(values) * _DECIMALS)
        fits = (scaled < _EXACT) & (scaled / _DECIMALS == np.abs(values))
    if not bool(fits.all()):
        if int(np.count_nonzero(fits)) * 4 < len(values):
            return [], np.ones(len(values), dtype=np.bool_)
        scaled = np.where(fits, scaled, 0.0)
    whole = scaled.astype(np.int64)
    above = whole // _GROUP
    negative = np.signbit(values)
    parts = [_signs(negative)] if bool(negative.any()) else []
    parts += whole_parts(above)
    fraction = whole - above * _GROUP
    if bool(fraction.any()):
        parts.append(_fractions().take(fraction))
    return parts, None if bool(fits.all()) else ~fits


def digit_parts(values: Any) -> tuple[list[Part], Bools]:
    """Shortest text of floats with many decimals, and the rows of floats for which it is not known."""
    whole, fraction, unknown = shortest_digits(np.abs(values))
    zero = values == 0
    if bool(zero.any()):
        unknown = unknown & ~zero
        whole = np.where(zero, 0, whole)
    negative = np.signbit(values)
    parts = [_signs(negative)] if bool(negative.any()) else []
    parts += [*whole_parts(whole), np.where(fraction != 0, np.uint8(ord(".")), np.uint8(0))]
    groups = []
    ended: Any = np.zeros(len(values), dtype=np.bool_)
    digits = _digits_of_fractions()
    for _ in range(FRACTION_DIGITS // 4):
        above = fraction // _GROUP
        group = fraction - above * _GROUP
        # Zeros at the end are left out.
        groups.append(digits.take(np.where(ended, group, group + _GROUP)))
        ended = ended | (group != 0)
        fraction = above
    return [*parts, *groups[::-1]], unknown


@cache
def _digits_of_fractions() -> Any:
    """Texts of four digits as uint32: zero-padded, then without trailing zeros."""
    padded = _four_digits()
    return np.concatenate([padded, _without_last_zeros(padded)]).view(np.uint32).ravel()


@cache
def _minutes() -> Any:
    return np.array([f"T{minute // 60:02d}:{minute % 60:02d}:".encode() for minute in range(1440)], dtype="S7")


@cache
def _two_digits() -> Any:
    return np.array([f"{number:02d}".encode() for number in range(60)], dtype="S2").view(np.uint16)


@cache
def _three_digits() -> Any:
    """Texts of three digits as uint32: zero-padded, then without trailing zeros."""
    padded = [f"{number:03d}".encode() for number in range(1000)]
    return np.array([*padded, *[text.rstrip(b"0") for text in padded]], dtype="S4").view(np.uint32)


def rfc3339_parts(times_ns: Int64s) -> list[Part]:
    """Such as ``2017-07-14T02:40:00.12Z``: as many digits of fraction as are not trailing zeros."""
    seconds = times_ns // 1_000_000_000
    rest = times_ns - seconds * 1_000_000_000
    days = seconds // 86_400
    of_day = seconds - days * 86_400
    minute = of_day // 60
    first = int(days.min())
    texts = _day_texts(first, int(days.max()) - first + 1, days)
    parts: list[Part] = [texts, _minutes().take(minute), _two_digits().take(of_day - minute * 60)]
    if bool(rest.any()):
        parts += _fraction_parts(rest)
    return [*parts, b"Z"]


def _day_texts(first: int, count: int, days: Int64s) -> Part:
    if count <= len(days):
        table = np.datetime_as_string(np.arange(first, first + count).astype("datetime64[D]")).astype("S10")
        return table[days - first]
    distinct, place = np.unique(days, return_inverse=True)
    return np.datetime_as_string(distinct.astype("datetime64[D]")).astype("S10")[place]


def _fraction_parts(rest: Int64s) -> list[Part]:
    high = rest // 1_000_000
    middle = rest // 1000 - high * 1000
    low = rest - (rest // 1000) * 1000
    digits = _three_digits()
    parts: list[Part] = [np.where(rest != 0, np.uint8(ord(".")), np.uint8(0))]
    for group, more in ((high, (middle != 0) | (low != 0)), (middle, low != 0), (low, None)):
        # The digits after the last that is not zero are left out.
        parts.append(digits.take(group + (1000 if more is None else np.where(more, 0, 1000))))
    return parts


def arrow_texts(values: Any) -> Any:
    """Arrow's text of an array of numbers."""
    return pc.cast(pa.array(values), pa.string())
