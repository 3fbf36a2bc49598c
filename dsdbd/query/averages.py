"""Exponential moving averages and the indicators of markets made of them, one value after the other.

Each value depends on all before it in a way that rounding makes sensitive, so they are computed in the order and with
the operations of InfluxDB 1.7, which took them from the library gota. What an average is before it has seen as many
values as its period has, its warm-up decides: ``exponential`` begins with greater weights for new values, ``simple``
with the plain mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dsdbd.model.columns import Column
from dsdbd.model.types import FieldType
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_types import Transform
from dsdbd.query.table import Table

_PIECE = 4096
"""Values that are made Python floats at once."""
_FAST, _SLOW = 2.0 / (2.0 + 1.0), 2.0 / (30.0 + 1.0)
"""Weights of averages over 2 and over 30 values, between which Kaufman's adaptive one moves."""
_FINITE = frozenset({"triple_exponential_derivative", "kaufmans_efficiency_ratio", "kaufmans_adaptive_moving_average"})


def indicator(transform: Transform, table: Table) -> Table:
    """The table with an average or indicator of the values so far, group by group in the order of the rows."""
    values = table.columns["value"].values
    starts = run_starts(table.group)
    lengths = run_lengths(starts, len(table))
    found = np.empty(len(table), dtype=np.float64)
    hold = transform.second
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        add, usual = _begun(transform)
        hold = usual if transform.second < 0 else transform.second
        for at in range(start, start + length, _PIECE):
            end = min(at + _PIECE, start + length)
            found[at:end] = [add(value) for value in values[at:end].astype(np.float64).tolist()]
    keep = np.arange(len(table)) - np.repeat(starts, lengths) >= hold
    if transform.name in _FINITE:
        keep &= ~np.isinf(found)
    return table.with_columns({"value": Column(FieldType.FLOAT, found)}).where(keep)


def _begun(transform: Transform) -> tuple[Callable[[float], float], int]:
    """What takes the next value and gives the indicator, and how many values it usually holds back."""
    period, simple = transform.arg, transform.warmup == "simple"
    several = 1 if not simple else transform.name.count("triple") * 2 + transform.name.count("double") + 1
    match transform.name:
        case "exponential_moving_average":
            return Average(period, simple=simple).add, period - 1
        case "double_exponential_moving_average" | "triple_exponential_moving_average":
            return _Layered(period, simple=simple, triple="triple" in transform.name).add, several * (period - 1)
        case "triple_exponential_derivative":
            return _Trix(period, simple=simple).add, several * (period - 1) + 1
        case "relative_strength_index":
            return _Momentum(period, simple=simple, strength=True).add, period
        case "kaufmans_efficiency_ratio":
            return _Efficiency(period).add, period
        case "kaufmans_adaptive_moving_average":
            return _Adaptive(period).add, period
    if transform.warmup in ("simple", "exponential"):
        return _Momentum(period, simple=simple, strength=False).add, period
    return _Oscillator(period).add, period - 1


def _ratio(numerator: float, denominator: float) -> float:
    """Division as IEEE 754 has it."""
    if denominator:
        return numerator / denominator
    if numerator == 0 or math.isnan(numerator):
        return math.nan
    return math.copysign(math.inf, numerator) * math.copysign(1.0, denominator)


class Average:
    """An exponential moving average; ``weight`` is that of a new value once it is warm, 2 / (period + 1) if None."""

    __slots__ = ("_count", "_period", "_simple", "_weight", "last")

    def __init__(self, period: int, *, simple: bool, weight: float | None = None) -> None:
        self._period, self._simple = period, simple
        self._weight = 2 / (period + 1) if weight is None else weight
        self._count = 0
        self.last = 0.0

    @property
    def ready(self) -> bool:
        """Whether the next average may be made of this one."""
        return not self._simple or self._count == self._period

    def add(self, value: float) -> float:
        """The average with one more value."""
        count, last = self._count, self.last
        if count == self._period:
            last = (value - last) * self._weight + last
        else:
            self._count = count + 1
            if count == 0:
                last = value
            elif self._simple:
                last = (last * count + value) / (count + 1)
            else:
                last = (value - last) * (2 / (count + 2)) + last
        self.last = last
        return last


class _Layered:
    """The double or triple exponential moving average, which lags less than one of the same period."""

    __slots__ = ("_first", "_second", "_third")

    def __init__(self, period: int, *, simple: bool, triple: bool) -> None:
        self._first, self._second = Average(period, simple=simple), Average(period, simple=simple)
        self._third = Average(period, simple=simple) if triple else None

    def add(self, value: float) -> float:
        one = self._first.add(value)
        two = self._second.add(one) if self._first.ready else one
        if self._third is None:
            return 2 * one - two
        three = self._third.add(two) if self._second.ready else two
        return 3 * one - 3 * two + three


class _Trix:
    """The change, in percent, of an average of an average of an average."""

    __slots__ = ("_last", "_layers")

    def __init__(self, period: int, *, simple: bool) -> None:
        self._layers = [Average(period, simple=simple) for _ in range(3)]
        self._last = 0.0

    def add(self, value: float) -> float:
        for layer in self._layers:
            value = layer.add(value)
            if not layer.ready:
                break
        rate = (_ratio(value, self._last) - 1) * 100
        self._last = value
        return rate


class _Momentum:
    """Averages of steps up and down: as relative strength index, or as smoothed Chande momentum oscillator."""

    __slots__ = ("_down", "_last", "_strength", "_up")

    def __init__(self, period: int, *, simple: bool, strength: bool) -> None:
        self._up = Average(period + 1, simple=simple, weight=1 / period)
        self._down = Average(period + 1, simple=simple, weight=1 / period)
        self._last = 0.0
        self._strength = strength

    def add(self, value: float) -> float:
        step = value - self._last
        up = self._up.add(step if value > self._last else 0.0)
        down = self._down.add(self._last - value if value < self._last else 0.0)
        self._last = value
        if self._strength:
            return 100 - _ratio(100, 1 + _ratio(up, down))
        return 100.0 * _ratio(up - down, up + down)


class _Efficiency:
    """Kaufman's efficiency ratio: how far a series has come, to the length of its way; before the first value is 0."""

    __slots__ = ("_at", "_noise", "_steps", "_values", "seen")

    def __init__(self, period: int) -> None:
        self._values, self._steps = [0.0] * period, [0.0] * period
        self._noise = 0.0
        self._at = 0
        self.seen = 0
        """Values so far, counted up to one more than the period."""

    @property
    def newest(self) -> float:
        """The value that was added last."""
        return self._values[self._at]

    def add(self, value: float) -> float:
        oldest = self._at + 1 if self._at + 1 < len(self._values) else 0
        signal = abs(value - self._values[oldest])
        step = abs(value - self._values[self._at])
        self._noise -= self._steps[oldest]
        self._noise += step
        self._at = oldest
        self._values[oldest], self._steps[oldest] = value, step
        self.seen = min(self.seen + 1, len(self._values) + 1)
        return 0.0 if signal == 0 or self._noise == 0 else signal / self._noise


class _Adaptive:
    """Kaufman's adaptive moving average, quicker where the efficiency ratio is high."""

    __slots__ = ("_last", "_period", "_ratio")

    def __init__(self, period: int) -> None:
        self._ratio, self._period = _Efficiency(period), period
        self._last = 0.0

    def add(self, value: float) -> float:
        if self._ratio.seen <= self._period:
            self._last = self._ratio.newest
        root = self._ratio.add(value) * (_FAST - _SLOW) + _SLOW
        self._last = self._last + root * root * (value - self._last)
        return self._last


class _Oscillator:
    """The Chande momentum oscillator: steps up less steps down, in percent of all, over the last values."""

    __slots__ = ("_at", "_down", "_steps", "_up", "_values")

    def __init__(self, period: int) -> None:
        self._values: list[Any] = [None] * (period - 1)
        self._steps = [0.0] * (period - 1)
        self._up = self._down = 0.0
        self._at = 0

    def add(self, value: float) -> float:
        last = self._values[self._at]
        step = 0.0 if last is None else value - last
        if step > 0:
            self._up += step
        elif step < 0:
            self._down -= step
        found = 0.0
        if self._up != 0 or self._down != 0:
            found = 100.0 * _ratio(self._up - self._down, self._up + self._down)
        self._at = self._at + 1 if self._at + 1 < len(self._values) else 0
        oldest = self._steps[self._at]
        if oldest > 0:
            self._up -= oldest
        elif oldest < 0:
            self._down += oldest
        self._values[self._at], self._steps[self._at] = value, step
        return found
