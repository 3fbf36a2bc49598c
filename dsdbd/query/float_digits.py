"""The shortest digits of many floats at once: those of the shortest decimal that reads back as the same float.

A float of 53 bits times a power of ten is known in an extended float of 64 bits to a small part of a unit in the 17th
digit. That decides nearly always which decimal of 15, 16 or 17 digits is the shortest and the closest; the few floats
for which it does not are named, and left to a slower way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dsdbd.model.columns import Bools, Int64s

LEAST, ABOVE = 1.0, 1e9
"""Floats of these sizes have digits here: from the first up to, not including, the second."""
FRACTION_DIGITS = 16
_EXTENDED = np.finfo(np.longdouble).nmant >= 63
_INTEGER_POWERS = np.array([10**power for power in range(18)], dtype=np.int64)
_POWERS = _INTEGER_POWERS.astype(np.float64)
_EXTENDED_POWERS = _INTEGER_POWERS.astype(np.longdouble)
_ERROR_17, _ERROR_16 = 2.0**-8, 2.0**-10
"""The error of a product in units of its last digit: of 64 bits 57 or 54 stand before the point, and the error is at
most half of the last bit. The second is twice that, because it is also the error of what is computed from it."""


def shortest_digits(values: Any) -> tuple[Int64s, Int64s, Bools]:
    """Whole part and 16 digits of fraction (both int64[n]) of positive floats, and where they are not known.

    ``values``: float64[n]. The third array, bool[n], is True for floats out of range and for those that need more
    precision than there is.
    """
    if not _EXTENDED:
        nothing = np.zeros(len(values), dtype=np.int64)
        return nothing, nothing, np.ones(len(values), dtype=np.bool_)
    unknown = ~((values >= LEAST) & (values < ABOVE))
    if bool(unknown.any()):
        values = np.where(unknown, LEAST, values)
    places = np.searchsorted(_POWERS[1:10], values, side="right") + 1
    fraction_17 = 17 - places
    extended = values.astype(np.longdouble)
    digits, unsure, _ = _rounded(extended, fraction_17, _ERROR_17)
    digits_16, unsure_16, away = _rounded(extended, fraction_17 - 1, _ERROR_16)
    reach = np.spacing(values) * 0.5 * _POWERS[fraction_17 - 1]
    reads_back = away < reach
    unsure = np.where(reads_back, unsure_16, unsure) | (np.abs(away - reach) <= _ERROR_16)
    digits = np.where(reads_back, digits_16 * 10, digits)
    # A power of two has a closer neighbour below than above.
    unsure |= np.frexp(values)[0] == 0.5
    # Up to 15 digits the float is the closest one to the decimal, and both steps of this are exact.
    scale = _POWERS[fraction_17 - 2]
    digits_15 = np.rint(values * scale)
    short = digits_15 / scale == values
    digits = np.where(short, digits_15.astype(np.int64) * 100, digits)
    # A whole number is a float itself, so no shortest decimal lies beyond the next one.
    whole = values.astype(np.int64)
    fraction = (digits - whole * _INTEGER_POWERS[fraction_17]) * _INTEGER_POWERS[FRACTION_DIGITS - fraction_17]
    return whole, fraction, unknown | (unsure & ~short)


def _rounded(extended: Any, decimals: Int64s, error: float) -> tuple[Int64s, Bools, Any]:
    """The closest number of units of the last decimal, where another one may be as close, and how far it is away."""
    product = extended * _EXTENDED_POWERS[decimals]
    digits = product.astype(np.int64)
    rest = (product - digits).astype(np.float64)
    up = rest > 0.5
    return digits + up, np.abs(rest - 0.5) <= error, np.where(up, 1.0 - rest, rest)
