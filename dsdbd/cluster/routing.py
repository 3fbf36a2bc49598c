"""Which shard a point belongs to: a pure split of columns by time into shard groups and by series into shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsdbd.model.series import series_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsdbd.meta.state import ShardGroup
    from dsdbd.model.columns import Int64s, Points


def uncovered_times(points: Sequence[Points], groups: Sequence[ShardGroup]) -> Int64s:
    """The sorted distinct timestamps (int64, ns) that no group covers; ``groups`` are sorted by start, disjoint."""
    if not points:
        return np.empty(0, dtype=np.int64)
    times = np.unique(np.concatenate([part.time_ns for part in points]))
    return times[_group_of(times, groups) < 0]


def route(points: Sequence[Points], groups: Sequence[ShardGroup]) -> dict[int, list[Points]]:
    """Shard id to the points it gets; rows keep their order. Every time must be covered by a group."""
    routed: dict[int, list[Points]] = {}
    for part in points:
        group_of_row = _group_of(part.time_ns, groups)
        for position in np.unique(group_of_row).tolist():
            group = groups[position]
            whole = group_of_row == position
            count = len(group.shards)
            if count == 1:
                shard_of_row = np.zeros(len(part), dtype=np.int64)
            else:
                # The hash is taken per series of the batch, not per row.
                by_series = np.array([series_hash(key) % count for key in part.series], dtype=np.int64)
                shard_of_row = by_series[part.series_index]
            for number in np.unique(shard_of_row[whole]).tolist():
                rows = np.flatnonzero(whole & (shard_of_row == number))
                selected = part if len(rows) == len(part) else part.take(rows)
                routed.setdefault(group.shards[number].id, []).append(selected)
    return routed


def _group_of(times_ns: Int64s, groups: Sequence[ShardGroup]) -> Int64s:
    """Position in ``groups`` for each time, -1 where none covers it."""
    if not groups:
        return np.full(len(times_ns), -1, dtype=np.int64)
    starts = np.array([group.start_ns for group in groups], dtype=np.int64)
    ends = np.array([group.end_ns for group in groups], dtype=np.int64)
    found = np.searchsorted(starts, times_ns, side="right") - 1
    inside = (found >= 0) & (times_ns < ends[np.maximum(found, 0)])
    return np.where(inside, found, -1).astype(np.int64)
