"""Which shard a point belongs to: a pure split of columns by time into shard groups and by series into shards."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dsdbd.meta.placement import shard_group_bounds
from dsdbd.model.series import series_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsdbd.meta.state import RetentionPolicy, Shard, ShardGroup
    from dsdbd.model.columns import Bools, Int64s, Points

_start = attrgetter("start_ns")


def fits(points: Sequence[Points], policy: RetentionPolicy, now_ns: int) -> bool:
    """Whether the metadata covers every row as it is: fixed field types, live shard groups, not beyond retention."""
    oldest_ns = now_ns - policy.duration_ns if policy.duration_ns else None
    for part in points:
        known = policy.schema.get(part.measurement)
        if known is None or any(known.get(key) is not column.type for key, column in part.fields.items()):
            return False
        first_ns = int(part.time_ns.min())
        if oldest_ns is not None and first_ns < oldest_ns:
            return False
        group = _only_group(first_ns, int(part.time_ns.max()), policy.shard_groups)
        if group is None and uncovered_times([part], policy, 1):
            return False
    return True


def uncovered_times(points: Sequence[Points], policy: RetentionPolicy, at_most: int) -> list[int]:
    """Times (ns, ascending) that no shard group covers: the first one in every interval of the policy, ``at_most``."""
    if not points:
        return []
    missing = [part.time_ns[_group_of(part.time_ns, policy.shard_groups) < 0] for part in points]
    times = np.unique(np.concatenate(missing))
    found: list[int] = []
    at = 0
    while at < len(times) and len(found) < at_most:
        found.append(int(times[at]))
        at = int(np.searchsorted(times, shard_group_bounds(found[-1], policy.shard_group_duration_ns)[1]))
    return found


def covered_rows(part: Points, groups: Sequence[ShardGroup]) -> Bools:
    """bool[n]: the rows whose times a shard group covers."""
    return _group_of(part.time_ns, groups) >= 0


class Routed(NamedTuple):
    """A shard and the points it gets."""

    shard: Shard
    points: list[Points]


def route(points: Sequence[Points], groups: Sequence[ShardGroup]) -> list[Routed]:
    """The points of every shard that gets some; rows keep their order. Every time must be covered by a group."""
    routed: dict[int, Routed] = {}
    for part in points:
        only = _only_group(int(part.time_ns.min()), int(part.time_ns.max()), groups) if len(part) else None
        if only is not None and len(only.shards) == 1:
            # The usual case: neither time nor series divides the rows.
            _add(routed, only.shards[0], part)
        elif only is not None:
            _route_by_series(part, np.ones(len(part), dtype=np.bool_), only, routed)
        else:
            group_of_row = _group_of(part.time_ns, groups)
            for position in np.unique(group_of_row).tolist():
                _route_by_series(part, group_of_row == position, groups[position], routed)
    return list(routed.values())


def _add(routed: dict[int, Routed], shard: Shard, part: Points) -> None:
    routed.setdefault(shard.id, Routed(shard, [])).points.append(part)


def _route_by_series(part: Points, chosen: Bools, group: ShardGroup, routed: dict[int, Routed]) -> None:
    """Add the chosen rows (bool[n]), whose times the group covers, to the shards of their series."""
    count = len(group.shards)
    if count == 1:
        shard_of_row = np.zeros(len(part), dtype=np.int64)
    else:
        # The hash is taken per series of the batch, not per row.
        by_series = np.array([series_hash(key) % count for key in part.series], dtype=np.int64)
        shard_of_row = by_series[part.series_index]
    for number in np.unique(shard_of_row[chosen]).tolist():
        rows = np.flatnonzero(chosen & (shard_of_row == number))
        # A shard must not hear of series that it gets no points of: its index would list them.
        selected = part if len(rows) == len(part) else part.select(rows)
        _add(routed, group.shards[number], selected)


def _only_group(first_ns: int, last_ns: int, groups: Sequence[ShardGroup]) -> ShardGroup | None:
    """The one group that covers all times from ``first_ns`` to ``last_ns``, or None."""
    position = bisect_right(groups, first_ns, key=_start) - 1
    if position < 0 or last_ns >= groups[position].end_ns:
        return None
    return groups[position]


def _group_of(times_ns: Int64s, groups: Sequence[ShardGroup]) -> Int64s:
    """Position in ``groups`` for each time, -1 where none covers it."""
    if not groups:
        return np.full(len(times_ns), -1, dtype=np.int64)
    starts = np.array([group.start_ns for group in groups], dtype=np.int64)
    ends = np.array([group.end_ns for group in groups], dtype=np.int64)
    found = np.searchsorted(starts, times_ns, side="right") - 1
    inside = (found >= 0) & (times_ns < ends[np.maximum(found, 0)])
    return np.where(inside, found, -1).astype(np.int64)
