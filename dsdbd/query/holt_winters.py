"""Forecasts by the damped method of Holt and Winters, with the parameters that fit the values best.

See Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", chapter on exponential smoothing. What InfluxDB
1.x makes of it is followed operation by operation, because the search for parameters amplifies the last digit: among
other things a step goes on from the forecast before it, not from the value, and powers are rounded as Go rounds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import accumulate, cycle

import numpy as np

from dsdbd.errors import RequestError
from dsdbd.limits import MAX_FORECAST_VALUES
from dsdbd.model.columns import Column
from dsdbd.model.types import FieldType
from dsdbd.query.nelder_mead import minimise
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_types import SelectPlan, Transform
from dsdbd.query.run import QueryCancelled, never_cancelled
from dsdbd.query.table import Table

_GUESSES = (0.3, 0.7)
"""Where the search begins, for each of the first four parameters."""
_EPSILON = 1.0e-4
_HALF = 0.5
_LONG = 64
"""Powers above which whole arrays are quicker than one number after the other."""
_PLAIN = 6
"""Parameters where there is no season."""
_PRECISION = 56
"""Bits of a float, and some more."""


_Steps = Iterable[tuple[float, float]]
"""For each step the factor of the trend, and the value it is compared with."""


def forecasts(
    plan: SelectPlan, transform: Transform, table: Table, cancelled: Callable[[], bool] = never_cancelled
) -> Table:
    """The table with ``transform.arg`` forecasts for each group, and before them its fit if that is asked for.

    Values that are missing between others count as unknown. Nothing for a group with less than two values, or less
    than a season of ``transform.second`` values. Raises RequestError above the limit of values, and QueryCancelled
    soon after ``cancelled`` has returned True.
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
        fit = _best_fit(series, season, ahead, cancelled)
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


def _best_fit(series: list[float], season: int, ahead: int, cancelled: Callable[[], bool]) -> list[float]:
    """The fit of all values and the forecasts behind them. Raises QueryCancelled when ``cancelled`` says so."""
    seasonal = season >= 2
    start = [0.0] * 4 + (_seasonal_start(series, season) if seasonal else _plain_start(series))
    rest = series[1:]

    def distance(parameters: list[float], bound: float) -> float:
        """Sum of the squares of what the fit is off, or of the first of them that reach the bound."""
        if cancelled():
            raise QueryCancelled("query interrupted")
        return _fit(parameters, series[0], rest, bound, None)

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
    return _forecast(best, series[0], len(series) + ahead)


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
    """As floats divide in Go: what is divided by zero is infinite, or no number."""
    if denominator:
        return numerator / denominator
    if math.isnan(numerator) or numerator == 0:
        return math.nan
    return math.copysign(math.inf, numerator) * math.copysign(1.0, denominator)


def _forecast(parameters: list[float], first: float, size: int) -> list[float]:
    """``size`` values from the first on; keeps the parameters in their bounds and moves the season on, in place."""
    found = [first]
    _fit(parameters, first, [math.nan] * (size - 1), math.nan, found)
    return found


def _fit(parameters: list[float], first: float, rest: list[float], bound: float, found: list[float] | None) -> float:
    """Sum of the squares of what the fit is off, or of the first of them that reach ``bound``; never no number.

    A bound that is not a number is none.

    ``parameters``: alpha, beta, gamma and phi, each within 0 and 1, level, trend, and the factors of the season, if
    there is one. They are kept in their bounds and the season is moved on, in place, unless the bound is reached.
    ``rest``: the values behind the first, not-a-number where one is unknown; ``found`` is given the fit of them.
    """
    for place in range(4):
        if parameters[place] > 1:
            parameters[place] = 1.0
        elif parameters[place] < 0:
            parameters[place] = 0.0
    damping = _damping(parameters[3], len(rest) + 1)
    fit = _seasonal if len(parameters) > _PLAIN else _plain
    total = fit(parameters, first, zip(damping, rest, strict=True), bound, found)
    return math.inf if math.isnan(total) else total


def _plain(parameters: list[float], first: float, steps: _Steps, bound: float, found: list[float] | None) -> float:
    alpha, beta, _, phi, level, trend = parameters
    keep, fade = 1 - alpha, (1 - beta) * phi
    fit, off = first, first - first
    total = 0.0 if math.isnan(first) else off * off
    for damped, value in steps:
        new = alpha * fit + keep * (level + phi * trend)
        trend = beta * (new - level) + fade * trend
        level = new
        fit = level + damped * trend
        if found is not None:
            found.append(fit)
        if value == value:  # it is known
            off = fit - value
            total += off * off
            if total >= bound:
                break
    return total


def _seasonal(parameters: list[float], first: float, steps: _Steps, bound: float, found: list[float] | None) -> float:
    alpha, beta, gamma, phi, level, trend = parameters[:6]
    keep, fade, keep_factor = 1 - alpha, (1 - beta) * phi, 1 - gamma
    ring = parameters[6:]
    places = _places(len(ring))
    fit, off = first, first - first
    total = 0.0 if math.isnan(first) else off * off
    for (damped, value), (place, shown) in zip(steps, places, strict=False):
        old = ring[place]
        base = level + phi * trend
        new = alpha * (fit / old if old else _quotient(fit, old)) + keep * base
        trend = beta * (new - level) + fade * trend
        factor = gamma * (fit / base if base else _quotient(fit, base)) + keep_factor * old
        fit = (new + damped * trend) * ring[shown]
        level = new
        ring[place] = factor
        if found is not None:
            found.append(fit)
        if value == value:  # it is known
            off = fit - value
            total += off * off
            if total >= bound:
                return total
    parameters[6:] = ring
    return total


def _places(season: int) -> Iterator[tuple[int, int]]:
    """For each step which factor of the season is read and replaced, and which the forecast is made with."""
    return cycle(_turn(season))


@lru_cache(maxsize=16)
def _turn(season: int) -> list[tuple[int, int]]:
    return [((2 * step) % season, (3 * step + 1) % season) for step in range(season)]


def _damping(phi: float, size: int) -> list[float]:
    """The sums phi, phi + phi, phi + phi + phi² and so on, with one more power in each step; ``size`` - 1 of them."""
    count = size - 2
    some = count
    if 0 < phi < 1:
        # Powers that a sum of about phi is too coarse for do not change it.
        some = min(count, 2 + int(_PRECISION / -math.log2(phi)))
    if some > _LONG:
        found: list[float] = np.add.accumulate(np.array([phi, *_powers(phi, some)])).tolist()
    else:
        found = list(accumulate([phi, *_powers(phi, some)]))
    return found + [found[-1]] * (count - some)


def _powers(base: float, count: int) -> list[float]:
    """base¹ … baseⁿ, rounded as Go's math.Pow: by squares. ``base`` is from 0 to 1, or not a number.

    Go multiplies mantissas, which rounds alike but for results next to the smallest of all numbers.
    """
    if not 0 < base < 1:
        return [base] * count
    if count > _LONG:
        return _long_powers(base, count)
    numbers = [1.0]
    while len(numbers) <= count:
        # Numbers with one bit more than those so far: the square of the highest bit comes last.
        numbers += [number * base for number in numbers[: count + 1 - len(numbers)]]
        base *= base
    del numbers[0]
    return numbers


def _long_powers(base: float, count: int) -> list[float]:
    """The same with whole arrays."""
    numbers = np.ones(count + 1)
    size = 1
    while size <= count:
        more = min(size, count + 1 - size)
        np.multiply(numbers[:more], base, out=numbers[size : size + more])
        size *= 2
        base *= base
    found: list[float] = numbers[1:].tolist()
    return found
