"""Minimum of a function of many numbers without derivatives: the simplex method of Nelder and Mead (1965).

The variant is that of InfluxDB 1.x, step for step, after M. F. Hutt: its answers depend on where it stops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from operator import add

_MOST_STEPS = 1000
Function = Callable[[list[float]], float]


def minimise(function: Function, start: list[float], epsilon: float) -> tuple[float, list[float]]:
    """The smallest value found near ``start``, and where; it ends when the values at the corners differ by less.

    ``function`` may change the point it is given, which then is the one that it has valued.
    """
    size = len(start)
    root = math.sqrt(size + 1)
    near = (root - 1 + size) / (size * math.sqrt(2))
    far = (root - 1) / (size * math.sqrt(2))
    corners = [list(start)]
    corners += [[(near if one == place else far) + start[place] for place in range(size)] for one in range(size)]
    values = [function(corner) for corner in corners]
    for _ in range(_MOST_STEPS):
        _step(function, corners, values)
        total = spread = 0.0
        for value in values:
            total += value
        mean = total / (size + 1)
        for value in values:
            spread += (value - mean) * (value - mean) / size
        if math.sqrt(spread) < epsilon:
            break
    least = _least(values)
    found = list(corners[least])
    return function(corners[least]), found


def _least(values: list[float]) -> int:
    least = 0
    for place, value in enumerate(values):
        if value < values[least]:
            least = place
    return least


def _worst(values: list[float], least: int) -> tuple[int, int]:
    """Places of the greatest value, and of the greatest below it."""
    greatest = 0
    for place, value in enumerate(values):
        if value > values[greatest]:
            greatest = place
    second = least
    for place, value in enumerate(values):
        if values[second] < value < values[greatest]:
            second = place
    return greatest, second


def _step(function: Function, corners: list[list[float]], values: list[float]) -> None:
    """Move the worst corner through the middle of the others, further or less far; or draw all to the best."""
    size = len(corners) - 1
    least = _least(values)
    worst, second = _worst(values, least)
    others = corners[:worst] + corners[worst + 1 :]
    # Not ``sum``, which rounds otherwise from Python 3.12 on.
    middle = [reduce(add, column, 0.0) / size for column in zip(*others, strict=True)]
    reflected = [m + (m - w) for m, w in zip(middle, corners[worst], strict=True)]
    value = function(reflected)
    if values[least] <= value < values[second]:
        corners[worst], values[worst] = list(reflected), value
    if value < values[least]:
        stretched = [m + 2.0 * (r - m) for m, r in zip(middle, reflected, strict=True)]
        further = function(stretched)
        if further < value:
            corners[worst], values[worst] = stretched, further
        else:
            corners[worst], values[worst] = list(reflected), value
    if value >= values[second]:
        _contract(function, corners, values, (least, worst, second), middle, (reflected, value))


def _contract(
    function: Function,
    corners: list[list[float]],
    values: list[float],
    places: tuple[int, int, int],
    middle: list[float],
    reflected: tuple[list[float], float],
) -> None:
    least, worst, second = places
    point, value = reflected
    if values[second] <= value < values[worst]:
        closer = [m + 0.5 * (r - m) for m, r in zip(middle, point, strict=True)]
    else:
        closer = [m - 0.5 * (m - w) for m, w in zip(middle, corners[worst], strict=True)]
    found = function(closer)
    if found < values[worst]:
        corners[worst], values[worst] = closer, found
        return
    best = corners[least]
    for corner, other in enumerate(corners):
        if corner != least:
            corners[corner] = [b + (o - b) / 2.0 for b, o in zip(best, other, strict=True)]
    values[worst] = function(corners[worst])
    values[second] = function(corners[second])
