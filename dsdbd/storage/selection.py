"""Which rows of which blocks a scan reads, decided on runs; others look at the rows themselves. Pure, vectorised."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsdbd.model.columns import Bools, Int64s
from dsdbd.storage.block import Runs
from dsdbd.storage.ranges import expand

MIN_NS = -(1 << 63)
MAX_NS = (1 << 63) - 1
_LOOKUP_SHARE = 8
"""Fewer wanted series than this part of a block's runs are looked up one by one, more by a pass over the runs."""
_FIRST: Int64s = np.zeros(1, dtype=np.int64)


class RunLookup:
    """The runs of one block by the number of their series; made once for a block. ``min_ns``, ``max_ns``: its times."""

    __slots__ = ("_ascending", "_table", "max_ns", "min_ns", "runs")

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.min_ns = int(runs.first_ns.min())
        self.max_ns = int(runs.last_ns.max())
        self._ascending = bool((runs.series[1:] > runs.series[:-1]).all())
        self._table: Int64s | None = None

    def find(self, numbers: Int64s) -> Int64s:
        """The run of each series, -1 where the block has none."""
        if self._ascending:
            at = np.minimum(self.runs.series.searchsorted(numbers), len(self.runs.series) - 1)
            found: Int64s = np.where(self.runs.series[at] == numbers, at, -1)
            return found
        # Series that are newer than all of the block's share the last, empty entry.
        table = self._by_number()
        return table[np.minimum(numbers, len(table) - 1)]

    def find_one(self, number: int) -> int:
        """The same for one series."""
        series = self.runs.series
        if self._ascending:
            at = int(series.searchsorted(number))
            return at if at < len(series) and int(series[at]) == number else -1
        table = self._by_number()
        return int(table[number]) if number < len(table) else -1

    def _by_number(self) -> Int64s:
        if self._table is None:
            table = np.full(int(self.runs.series.max()) + 2, -1, dtype=np.int64)
            table[self.runs.series] = np.arange(len(self.runs.series), dtype=np.int64)
            self._table = table
        return self._table


@dataclass(frozen=True, slots=True)
class Wanted:
    """The series of a scan: ``numbers`` ascending; a series' position is its place there. ``count``: all there are."""

    numbers: Int64s
    count: int

    def positions(self, series: Int64s) -> Int64s:
        """Position of each of some series, -1 for those that are not wanted."""
        if len(self.numbers) == self.count:
            return series
        ranks = np.full(self.count, -1, dtype=np.int64)
        ranks[self.numbers] = np.arange(len(self.numbers), dtype=np.int64)
        return ranks[series]


@dataclass(frozen=True, slots=True)
class Part:
    """k runs of block number ``source``, in its order, or what is wanted of them. All int64[k].

    ``position``: of the run's series in the scan's set. ``starts``, ``stops``: its rows; at least one.
    ``first_ns``, ``last_ns``: no row is earlier or later. ``times``: of all the rows, where they were read already.
    """

    source: int
    position: Int64s
    starts: Int64s
    stops: Int64s
    first_ns: Int64s
    last_ns: Int64s
    times: Int64s | None = None

    def __len__(self) -> int:
        return len(self.position)

    def rows(self) -> int:
        """Rows of all runs."""
        if len(self.position) == 1:
            return int(self.stops[0]) - int(self.starts[0])
        return int((self.stops - self.starts).sum())

    def where(self, mask: Bools) -> Part:
        """Some of the runs."""
        if mask.all():
            return self
        return Part(
            self.source,
            self.position[mask],
            self.starts[mask],
            self.stops[mask],
            self.first_ns[mask],
            self.last_ns[mask],
        )


def choose(source: int, lookup: RunLookup, wanted: Wanted, min_ns: int, max_ns: int) -> Part | None:
    """The runs of a block that hold wanted series and may have rows within inclusive times; None without any."""
    if lookup.max_ns < min_ns or lookup.min_ns > max_ns:
        return None
    runs = lookup.runs
    if len(wanted.numbers) == 1:
        return _choose_one(source, lookup, int(wanted.numbers[0]), min_ns, max_ns)
    if len(wanted.numbers) * _LOOKUP_SHARE < len(runs.series):
        at = lookup.find(wanted.numbers)
        position = np.flatnonzero(at >= 0)
        at = at[position]
        if len(at) > 1:
            order = np.argsort(at, kind="stable")
            at, position = at[order], position[order]
    else:
        position = wanted.positions(runs.series)
        at = np.flatnonzero(position >= 0)
        position = position[at]
    if lookup.min_ns < min_ns or lookup.max_ns > max_ns:
        inside = (runs.first_ns[at] <= max_ns) & (runs.last_ns[at] >= min_ns)
        at, position = at[inside], position[inside]
    if not len(at):
        return None
    starts = runs.starts[at]
    return Part(source, position, starts, starts + runs.lengths[at], runs.first_ns[at], runs.last_ns[at])


def _choose_one(source: int, lookup: RunLookup, number: int, min_ns: int, max_ns: int) -> Part | None:
    run = lookup.find_one(number)
    if run < 0:
        return None
    here = slice(run, run + 1)
    runs = lookup.runs
    first, last, starts = runs.first_ns[here], runs.last_ns[here], runs.starts[here]
    if int(first[0]) > max_ns or int(last[0]) < min_ns:
        return None
    return Part(source, _FIRST, starts, starts + runs.lengths[here], first, last)


def contested(parts: Sequence[Part], series: int) -> Bools | None:
    """Which series may have rows of the same time in two parts, bool[series]; None when no series does.

    A series whose times in one part lie between those of others counts as one, although it need not be.
    """
    if len(parts) < 2:
        return None
    if series == 1:
        times = sorted((int(part.first_ns[0]), int(part.last_ns[0])) for part in parts)
        apart = all(one[1] < other[0] for one, other in itertools.pairwise(times))
        return None if apart else np.ones(1, dtype=np.bool_)
    earliest = np.full(series, MAX_NS, dtype=np.int64)
    latest = np.full(series, MIN_NS, dtype=np.int64)
    found = np.zeros(series, dtype=np.bool_)
    for part in parts:
        at = part.position
        low, high = earliest[at], latest[at]
        # A series that was not met yet has its bounds the wrong way round, which no time is within.
        found[at] |= (part.first_ns <= high) & (part.last_ns >= low)
        earliest[at] = np.minimum(low, part.first_ns)
        latest[at] = np.maximum(high, part.last_ns)
    return found if found.any() else None


def contested_times(parts: Sequence[Part], series: int) -> tuple[Int64s, Int64s]:
    """Inclusive times, int64[series] each, outside of which no series has rows of the same time in two parts.

    Where a series has none at all its bounds are the wrong way round.
    """
    earliest = np.full(series, MAX_NS, dtype=np.int64)
    latest = np.full(series, MIN_NS, dtype=np.int64)
    low, high = earliest.copy(), latest.copy()
    for part in parts:
        at = part.position
        # What a run shares with the hull of those before it; nothing where its bounds come out the wrong way round.
        first, last = np.maximum(part.first_ns, earliest[at]), np.minimum(part.last_ns, latest[at])
        meets = first <= last
        low[at[meets]] = np.minimum(low[at[meets]], first[meets])
        high[at[meets]] = np.maximum(high[at[meets]], last[meets])
        earliest[at] = np.minimum(earliest[at], part.first_ns)
        latest[at] = np.maximum(latest[at], part.last_ns)
    return low, high


def in_time_order(parts: Sequence[Part]) -> list[Part]:
    """Parts of one and the same series, no two of overlapping times."""
    return sorted(parts, key=lambda part: int(part.first_ns[0]))


def divide(part: Part, rows: int, portions: Int64s) -> list[Part]:
    """A part in pieces of at most ``rows`` rows; a run is cut only when it is long.

    ``portions``: rows of the block at which a part of neighbouring rows is cut as well, whatever run is there.
    """
    lengths = part.stops - part.starts
    ends = np.cumsum(lengths)
    begins = ends - lengths
    total = int(ends[-1])
    fixed = [total]
    first_row = int(part.starts[0])
    if int(part.stops[-1]) - first_row == total:
        inside = portions[(portions > first_row) & (portions < int(part.stops[-1]))]
        fixed = [*(inside - first_row).tolist(), total]
    if total <= rows and len(fixed) == 1:
        return [part]
    pieces = []
    low = 0
    for end in fixed:
        while low < end:
            high = min(low + rows, end)
            last = int(begins.searchsorted(high, side="left"))
            if high < end and int(begins[last - 1]) > low + rows // 2:
                high = int(begins[last - 1])
            pieces.append(_portion(part, begins, ends, low, high))
            low = high
    return pieces


def _portion(part: Part, begins: Int64s, ends: Int64s, low: int, high: int) -> Part:
    """Some neighbouring ones of a part's rows, counted within the part."""
    first = int(ends.searchsorted(low, side="right"))
    last = int(begins.searchsorted(high, side="left"))
    starts, stops = part.starts[first:last].copy(), part.stops[first:last].copy()
    starts[0] += low - int(begins[first])
    stops[-1] -= int(ends[last - 1]) - high
    runs = slice(first, last)
    return Part(part.source, part.position[runs], starts, stops, part.first_ns[runs], part.last_ns[runs])


def series_groups(parts: Sequence[Part], series: int, rows: int) -> list[list[Part]]:
    """Parts divided by series, so that each group has about ``rows`` rows or one series."""
    weights = np.zeros(series, dtype=np.int64)
    for part in parts:
        np.add.at(weights, part.position, part.stops - part.starts)
    ends = np.cumsum(weights)
    if not len(ends) or int(ends[-1]) <= rows:
        return [list(parts)] if parts else []
    numbers = (ends - 1) // rows
    groups: list[list[Part]] = [[] for _ in range(int(numbers[-1]) + 1)]
    for part in parts:
        of_run = numbers[part.position]
        for number in np.unique(of_run).tolist():
            groups[number].append(part.where(of_run == number))
    return [group for group in groups if group]


def in_series_order(parts: Sequence[Part]) -> tuple[Int64s | None, Int64s, Int64s]:
    """How the rows of parts, read one part after another, become sorted by (position, time).

    No series has overlapping times in two parts. Returns the rows in their new order (None: as they are), and of every
    series its position and first row there.
    """
    position = np.concatenate([part.position for part in parts])
    first = np.concatenate([part.first_ns for part in parts])
    lengths = np.concatenate([part.stops - part.starts for part in parts])
    places = np.cumsum(lengths) - lengths
    order = np.lexsort((first, position))
    new = np.concatenate([np.ones(1, dtype=np.bool_), np.diff(position[order]) != 0])
    begins = (np.cumsum(lengths[order]) - lengths[order])[new]
    if (order[1:] > order[:-1]).all():
        return None, position[order][new], begins
    return expand(places[order], places[order] + lengths[order]), position[order][new], begins
