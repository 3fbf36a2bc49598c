"""Forecasts by the damped method of Holt and Winters, with the parameters that fit the values best.

See Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", chapter on exponential smoothing. What InfluxDB
1.x makes of it is followed operation by operation, because the search for parameters amplifies the last digit: among
other things a step goes on from the forecast before it, not from the value, and powers are rounded as Go rounds them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from dsdbd.errors import RequestError
from dsdbd.limits import MAX_FORECAST_VALUES
from dsdbd.model.columns import Column
from dsdbd.model.types import FieldType
from dsdbd.query.nelder_mead import minimise
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_types import SelectPlan, Transform
from dsdbd.query.table import Table

_GUESSES = (0.3, 0.7)
"""Where the search begins, for each of the first four parameters."""
_EPSILON = 1.0e-4
_HALF = 0.5
_LONG = 64
"""Powers above which whole arrays are quicker than one number after the other."""
_ZERO_EXPONENT = -5000
"""An exponent with which any mantissa is 0; NumPy takes none of more digits than an int32 has."""


def forecasts(plan: SelectPlan, transform: Transform, table: Table) -> Table:
    """The table with ``transform.arg`` forecasts for each group, and before them its fit if that is asked for.

    Values that are missing between others count as unknown. Nothing for a group with less than two values, or less
    than a season of ``transform.second`` values. Raises RequestError above the limit of values.
    """
    starts = run_starts(table.group)
    lengths = run_lengths(starts, len(table))
    interval_ns, ahead, season = plan.interval_ns, transform.arg, transform.second
    with_fit = transform.name.endswith("with_fit")
    spans = (table.time[starts + lengths - 1] - table.time[starts]) // interval_ns + 1
    size = int(np.maximum(spans, 0).sum()) + ahead * len(starts)
    if size > MAX_FORECAST_VALUES:
        raise RequestError(
            f"{transform.name}() has to find a fit for {size} values, the limit is {MAX_FORECAST_VALUES}; use a longer "
            "interval, a shorter range, or fewer groups"
        )
    sources: list[int] = []
    times: list[int] = []
    found: list[float] = []
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        time = table.time[start : start + length].tolist()
        values = table.columns["value"].values[start : start + length].astype(np.float64).tolist()
        if length < 2 or (season >= 2 and length < season):
            continue
        series = _spaced(time, values, interval_ns)
        if len(series) < max(2, season):
            continue
        fit = _best_fit(series, season, ahead)
        shown = fit if with_fit else fit[len(series) :]
        first = time[0] if with_fit else time[-1] + interval_ns
        for place, value in enumerate(shown):
            if not math.isnan(value):
                sources.append(start)
                times.append(first + place * interval_ns)
                found.append(value)
    rows = table.take(np.array(sources, dtype=np.int64))
    time_ns = np.array(times, dtype=np.int64)
    values_column = Column(FieldType.FLOAT, np.array(found, dtype=np.float64))
    return Table(rows.groups, rows.members, rows.group, time_ns, time_ns, rows.member, {"value": values_column})


def _rounded(time_ns: int, interval_ns: int) -> int:
    """A number of intervals; halves and what lies before the epoch are cut towards zero."""
    whole = int(abs(time_ns) // interval_ns) * (-1 if time_ns < 0 else 1)
    return whole + 1 if time_ns - whole * interval_ns > interval_ns // 2 else whole


def _spaced(times_ns: list[int], values: list[float], interval_ns: int) -> list[float]:
    """The values at steps of the interval, not-a-number where there is none; the first of those of one step counts."""
    at = _rounded(times_ns[0], interval_ns)
    series = [values[0]]
    if _rounded(times_ns[-1], interval_ns) <= at:
        return series
    for time_ns, value in zip(times_ns[1:], values[1:], strict=True):
        step = _rounded(time_ns, interval_ns)
        if step <= at:
            continue
        series += [math.nan] * (step - at - 1)
        series.append(value)
        at = step
    return series


def _best_fit(series: list[float], season: int, ahead: int) -> list[float]:
    """The fit of all values and the forecasts behind them."""
    seasonal = season >= 2
    start = [0.0] * 4 + (_seasonal_start(series, season) if seasonal else _plain_start(series))
    known = [place for place, value in enumerate(series) if not math.isnan(value)]
    values = [series[place] for place in known]
    complete = len(known) == len(series)

    def distance(parameters: list[float]) -> float:
        """Sum of the squares of what the fit is off."""
        fit = _forecast(parameters, series[0], len(series), seasonal=seasonal)
        total = 0.0
        for guess, value in zip(fit if complete else [fit[place] for place in known], values, strict=True):
            off = guess - value
            total += off * off
        return math.inf if math.isnan(total) else total

    least, best = math.inf, None
    for alpha in _GUESSES:
        for beta in _GUESSES:
            for gamma in _GUESSES:
                for phi in _GUESSES:
                    start[:4] = [alpha, beta, gamma, phi]
                    found, parameters = minimise(distance, start, _EPSILON)
                    if found < least or best is None:
                        least, best = found, parameters
    assert best is not None
    return _forecast(best, series[0], len(series) + ahead, seasonal=seasonal)


def _plain_start(series: list[float]) -> list[float]:
    """First guesses of level and trend."""
    trend = 0.0 if math.isnan(series[1]) else _HALF * (series[1] - series[0])
    return [_HALF * series[0], trend]


def _seasonal_start(series: list[float], season: int) -> list[float]:
    """First guesses of level, trend and the season's factors."""
    level = trend = 0.0
    for value in series[:season]:
        if not math.isnan(value):
            level += (1 / season) * value
    for early, late in zip(series[:season], series[season:], strict=False):
        if not (math.isnan(early) or math.isnan(late)):
            trend += 1 / (season * season) * (late - early)
    factors = [0.0 if math.isnan(value) else _quotient(value, level) for value in series[:season]]
    return [level, trend, *factors]


def _quotient(numerator: float, denominator: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.float64(numerator) / np.float64(denominator))


def _forecast(parameters: list[float], first: float, size: int, *, seasonal: bool) -> list[float]:
    """``size`` values from the first on; keeps the parameters in their bounds and moves the season on, in place.

    ``parameters``: alpha, beta, gamma and phi, each within 0 and 1, level, trend, and the factors of the season.
    """
    for place in range(4):
        if parameters[place] > 1:
            parameters[place] = 1.0
        if parameters[place] < 0:
            parameters[place] = 0.0
    damping = _damping(parameters[3], size)
    if not seasonal:
        return _plain(parameters, first, damping)
    ring = parameters[6:]
    try:
        found = _seasonal(parameters, ring, first, damping)
    except ZeroDivisionError:
        # NumPy's numbers are infinite there, as Go's are; they are slower.
        ring = [np.float64(factor) for factor in parameters[6:]]
        exact = [np.float64(number) for number in parameters[:6]]
        with np.errstate(all="ignore"):
            found = [float(value) for value in _seasonal(exact, ring, np.float64(first), damping)]
        ring = [float(factor) for factor in ring]
    parameters[6:] = ring
    return found


def _plain(parameters: list[float], first: float, damping: list[float]) -> list[float]:
    alpha, beta, _, phi, level, trend = parameters
    keep, fade = 1 - alpha, (1 - beta) * phi
    value = first
    found = [value]
    for damped in damping:
        new = alpha * value + keep * (level + phi * trend)
        trend = beta * (new - level) + fade * trend
        level = new
        value = level + damped * trend
        found.append(value)
    return found


def _seasonal(parameters: Any, ring: Any, first: Any, damping: list[float]) -> list[Any]:
    """``ring``: the factors of the season, which are replaced as time goes on."""
    alpha, beta, gamma, phi, level, trend = parameters[:6]
    keep, fade, keep_factor = 1 - alpha, (1 - beta) * phi, 1 - gamma
    value = first
    found = [value]
    for damped, place, shown in zip(damping, *_places(len(ring), len(damping)), strict=True):
        old = ring[place]
        base = level + phi * trend
        new = alpha * (value / old) + keep * base
        trend = beta * (new - level) + fade * trend
        factor = gamma * (value / base) + keep_factor * old
        value = (new + damped * trend) * ring[shown]
        level = new
        ring[place] = factor
        found.append(value)
    return found


@lru_cache(maxsize=16)
def _places(season: int, steps: int) -> tuple[list[int], list[int]]:
    """For each step which factor of the season is read and replaced, and which the forecast is made with."""
    return [(2 * step) % season for step in range(steps)], [(3 * step + 1) % season for step in range(steps)]


def _damping(phi: float, size: int) -> list[float]:
    """The sums phi, phi + phi, phi + phi + phi² and so on, with one more power in each step; ``size`` - 1 of them."""
    found = list(accumulate([phi, *_powers(phi, size - 2)]))
    return found[: size - 1]


def _powers(base: float, count: int) -> list[float]:
    """base¹ … baseⁿ, rounded as Go's math.Pow: by squares of the mantissa. ``base`` is from 0 to 1, or not a number."""
    if not 0 < base < 1:
        return [base] * count
    mantissa, exponent = math.frexp(base)
    if count > _LONG:
        return _long_powers(mantissa, exponent, count)
    numbers, exponents = [1.0], [0]
    while len(numbers) <= count:
        numbers += [number * mantissa for number in numbers]
        exponents += [other + exponent for other in exponents]
        mantissa, exponent = _squared(mantissa, exponent)
    return list(map(math.ldexp, numbers[1 : count + 1], exponents[1:]))


def _long_powers(mantissa: float, exponent: int, count: int) -> list[float]:
    """The same with whole arrays."""
    numbers, exponents = np.ones(count + 1), np.zeros(count + 1, dtype=np.int64)
    size = 1
    while size <= count:
        # Numbers with one bit more than those so far: Go multiplies by the square of the highest bit last.
        more = min(size, count + 1 - size)
        np.multiply(numbers[:more], mantissa, out=numbers[size : size + more])
        np.add(exponents[:more], exponent, out=exponents[size : size + more])
        size *= 2
        mantissa, exponent = _squared(mantissa, exponent)
    found: list[float] = np.ldexp(numbers[1:], np.maximum(exponents[1:], _ZERO_EXPONENT)).tolist()
    return found


def _squared(mantissa: float, exponent: int) -> tuple[float, int]:
    """The square of a number whose mantissa is from 0.5 to 1."""
    square = mantissa * mantissa
    return (square, 2 * exponent) if square >= 0.5 else (square + square, 2 * exponent - 1)
