"""Where the windows of GROUP BY time begin in rows whose times ascend, without a look at every row."""

from __future__ import annotations

import numpy as np

from dsdbd.model.columns import Int64s

_MANY_ROWS = 16
"""Mean number of rows of a window from which looking for its begin costs less than dividing every time."""
_LEAST_ROWS = 2_048
"""Fewer rows are divided in less time than it takes to look for anything."""
_ROUNDS = 2
"""A guess may be so many rows off: times of points that come at regular intervals are where one expects them."""


def window_starts(
    times: Int64s, run_starts: Int64s, interval_ns: int, offset_ns: int
) -> tuple[Int64s, Int64s, Int64s] | None:
    """First row, run and begin of every window of every run that has a row, in the order of the rows; all int64[s].

    ``times``: int64[n], ascending within each run. ``run_starts``: int64[r], first rows of runs, none of which is
    empty. None where windows have few rows, or the times do not come at about regular intervals.
    """
    if len(times) < _LEAST_ROWS:
        return None
    ends = np.append(run_starts[1:], len(times))
    first, last = times[run_starts], times[ends - 1]
    lowest = (first - offset_ns) // interval_ns
    counts = (last - offset_ns) // interval_ns - lowest + 1
    total = int(counts.sum())
    if total * _MANY_ROWS > len(times) or int(counts.min()) < 1:
        return None
    run = np.repeat(np.arange(len(run_starts)), counts)
    step = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    edge = (lowest[run] + step) * interval_ns + offset_ns
    begin, end = run_starts[run], ends[run]
    # In floats, which cannot overflow; that they are not exact matters no more than an irregular time.
    origin = first.astype(np.float64)
    rows_per_ns = (ends - run_starts - 1) / np.maximum(last - origin, 1.0)
    expected = np.ceil((edge - origin[run]) * rows_per_ns[run])
    at = begin + np.clip(expected, 0, end - begin - 1).astype(np.int64)
    for _ in range(_ROUNDS):
        at -= (at > begin) & (times[at - 1] >= edge)
        at += (at < end - 1) & (times[at] < edge)
    if not bool(((times[at] >= edge) & ((at == begin) | (times[at - 1] < edge))).all()):
        return None
    # A window without rows begins where the next one does.
    filled = np.append(at[1:] != at[:-1], True)
    return at[filled], run[filled], edge[filled]
