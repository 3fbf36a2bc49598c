"""Rows that another replica has, compared with what a shard holds. Pure, vectorised, given the shard's rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dsdbd.model.columns import Bools, Column, Int64s, Points
from dsdbd.model.digest import UInt64s, value_hashes
from dsdbd.model.predicate import matches
from dsdbd.model.series import parse_key
from dsdbd.storage.rows import Rows
from dsdbd.storage.tombstones import Hidden, Tombstone, hidden_rows


class Comparison:
    """Finds those of some rows that a shard lacks; ``has`` is told of what it holds, each series and time once.

    ``series``: int64[n], the number of each row's series in the shard, -1 for one it does not know.
    """

    def __init__(self, points: Points, versions: Int64s, series: Int64s) -> None:
        self._versions = versions
        self._fields: dict[str, _Field] = {}
        self._times, rank = np.unique(points.time_ns, return_inverse=True)
        self._places, self._place_of = np.unique(series * len(self._times) + rank, return_inverse=True)
        for key, column in points.fields.items():
            self._fields[key] = _Field(column, value_hashes(key, column), len(self._places))

    def has(self, rows: Rows) -> None:
        """Take note of rows of the shard, folded, with the numbers of their series."""
        if not len(rows) or not len(self._times):
            return
        rank = np.minimum(self._times.searchsorted(rows.time_ns), len(self._times) - 1)
        place = rows.series * len(self._times) + rank
        at = np.minimum(self._places.searchsorted(place), len(self._places) - 1)
        asked = np.flatnonzero((self._times[rank] == rows.time_ns) & (self._places[at] == place))
        if not len(asked):
            return
        versions, at = rows.version[asked], at[asked]
        for key, known in self._fields.items():
            column = rows.fields.get(key)
            if column is not None and column.type is known.column.type:
                some = column.take(asked)
                known.note(some, value_hashes(key, some), versions, at)

    def lacking(self) -> Bools:
        """bool[n]: the rows with a value that is newer than the shard's, or that it has not got at all."""
        found: Bools = np.zeros(len(self._versions), dtype=np.bool_)
        for known in self._fields.values():
            found |= known.lacking(self._versions, self._place_of)
        return found


class _Field:
    """One field of the rows, and what the shard has of it at each place (distinct series and time)."""

    def __init__(self, column: Column, hashes: UInt64s, places: int) -> None:
        self.column = column
        self._hashes = hashes
        self._there: Bools = np.zeros(places, dtype=np.bool_)
        self._version: Int64s = np.zeros(places, dtype=np.int64)
        self._hash: UInt64s = np.zeros(places, dtype=np.uint64)

    def note(self, column: Column, hashes: UInt64s, versions: Int64s, at: Int64s) -> None:
        if column.valid is not None:
            hashes, versions, at = hashes[column.valid], versions[column.valid], at[column.valid]
        self._there[at], self._version[at], self._hash[at] = True, versions, hashes

    def lacking(self, versions: Int64s, place_of: Int64s) -> Bools:
        there, known = self._there[place_of], self._version[place_of]
        # Different values of one version should not be; where they are, all replicas settle on the same.
        other = (versions == known) & (self._hashes > self._hash[place_of])
        found: Bools = ~there | (versions > known) | other
        return found if self.column.valid is None else found & self.column.valid


def deleted_here(
    points: Points, versions: Int64s, series: Int64s, hidden: Sequence[Hidden], tombstones: Iterable[Tombstone]
) -> Bools:
    """bool[n]: the rows that the shard's deletions hide; ``series``: as for a Comparison.

    ``hidden``: the deletions by number of a series the shard knows; others are compared with ``tombstones`` themselves.
    """
    found: Bools = np.zeros(len(points), dtype=np.bool_)
    known = np.flatnonzero(series >= 0)
    if hidden and len(known):
        mask = hidden_rows(hidden, Rows(series[known], points.time_ns[known], versions[known], {}))
        if mask is not None:
            found[known] = mask
    unknown = np.flatnonzero(series < 0)
    if len(unknown):
        found[unknown] = _deleted_new(points, versions, unknown, tombstones)
    return found


def _deleted_new(points: Points, versions: Int64s, rows: Int64s, tombstones: Iterable[Tombstone]) -> Bools:
    times, index = points.time_ns[rows], points.series_index[rows]
    distinct, which = np.unique(index, return_inverse=True)
    found: Bools = np.zeros(len(rows), dtype=np.bool_)
    parsed = None
    for one in tombstones:
        mask = (versions[rows] < one.version) & (times >= one.min_ns) & (times <= one.max_ns)
        if one.predicate is not None and mask.any():
            parsed = parsed or [parse_key(points.series[place]) for place in distinct.tolist()]
            mask &= np.array([matches(one.predicate, series) for series in parsed], dtype=np.bool_)[which]
        found |= mask
    return found


def bounds_of(points: Points, series: Int64s, count: int) -> tuple[Bools, Int64s, Int64s]:
    """By number of a series whether it has rows, and their first and last time; ``count``: series of the shard."""
    known = np.flatnonzero(series >= 0)
    low: Int64s = np.full(count, (1 << 63) - 1, dtype=np.int64)
    high: Int64s = np.full(count, -(1 << 63), dtype=np.int64)
    np.minimum.at(low, series[known], points.time_ns[known])
    np.maximum.at(high, series[known], points.time_ns[known])
    return low <= high, low, high
