"""Minimum of a function of many numbers without derivatives: the simplex method of Nelder and Mead (1965).

The variant is that of InfluxDB 1.x, step for step, after M. F. Hutt: its answers depend on where it stops.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from functools import reduce
from operator import add

_MOST_STEPS = 1000
_UNBOUNDED = math.nan
"""A bound that no value reaches, not even an infinite one."""
Function = Callable[[list[float], float], float]


def minimise(function: Function, start: list[float], epsilon: float) -> tuple[float, list[float]]:
    """The smallest value found near ``start``, and where; it ends when the values at the corners differ by less.

    ``function`` may change the point it is given, which then is the one that it has valued. Its second argument is a
    bound: if the value reaches it, anything from the bound on may be returned, and the point is not used again.
    What it raises ends the search. It never returns not-a-number.
    """
    size = len(start)
    root = math.sqrt(size + 1)
    near = (root - 1 + size) / (size * math.sqrt(2))
    far = (root - 1) / (size * math.sqrt(2))
    corners = [list(start)]
    corners += [[(near if one == place else far) + start[place] for place in range(size)] for one in range(size)]
    values = [function(corner, _UNBOUNDED) for corner in corners]
    for _ in range(_MOST_STEPS):
        _step(function, corners, values)
        spread = 0.0
        mean = _total(values) / (size + 1)
        for value in values:
            off = value - mean
            spread += off * off / size
        if math.sqrt(spread) < epsilon:
            break
    least = values.index(min(values))
    found = list(corners[least])
    return function(corners[least], _UNBOUNDED), found


def _total(numbers: Iterable[float]) -> float:
    """The sum, rounded after each number; ``sum`` is quicker, and rounds otherwise from Python 3.12 on."""
    return sum(numbers, 0.0) if sys.version_info < (3, 12) else reduce(add, numbers, 0.0)


def _step(function: Function, corners: list[list[float]], values: list[float]) -> None:
    """Move the worst corner through the middle of the others, further or less far; or draw all to the best."""
    size = len(corners) - 1
    low, high = min(values), max(values)
    least, worst = values.index(low), values.index(high)
    second = values.index(max([value for value in values if value < high], default=low))
    others = corners[:worst] + corners[worst + 1 :]
    middle = [_total(column) / size for column in zip(*others, strict=True)]
    reflected = [m + (m - w) for m, w in zip(middle, corners[worst], strict=True)]
    value = function(reflected, high)
    if low <= value < values[second]:
        corners[worst], values[worst] = list(reflected), value
    if value < low:
        stretched = [m + 2.0 * (r - m) for m, r in zip(middle, reflected, strict=True)]
        further = function(stretched, value)
        if further < value:
            corners[worst], values[worst] = stretched, further
        else:
            corners[worst], values[worst] = list(reflected), value
    # When all corners are alike the second worst is the worst too, and has moved by now.
    if value < values[second]:
        return
    if value < values[worst]:
        closer = [m + 0.5 * (r - m) for m, r in zip(middle, reflected, strict=True)]
    else:
        closer = [m - 0.5 * (m - w) for m, w in zip(middle, corners[worst], strict=True)]
    found = function(closer, values[worst])
    if found < values[worst]:
        corners[worst], values[worst] = closer, found
    else:
        _shrink(function, corners, values, (least, worst, second))


def _shrink(function: Function, corners: list[list[float]], values: list[float], places: tuple[int, int, int]) -> None:
    """Draw all corners half the way to the best; only the two worst are valued again."""
    least, worst, second = places
    best = corners[least]
    for corner, other in enumerate(corners):
        if corner != least:
            corners[corner] = [b + (o - b) / 2.0 for b, o in zip(best, other, strict=True)]
    values[worst] = function(corners[worst], _UNBOUNDED)
    values[second] = function(corners[second], _UNBOUNDED)
