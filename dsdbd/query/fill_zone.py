"""Rows after filling where windows follow local clocks: they are not of one length, and rows may lie between them."""

from __future__ import annotations

import numpy as np

from dsdbd.errors import RequestError
from dsdbd.limits import MAX_QUERY_BUCKETS
from dsdbd.model.columns import Int64s
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.table import Table
from dsdbd.query.zones import window_starts


def local_rows(plan: SelectPlan, time_range: tuple[int, int], table: Table) -> tuple[Int64s, Int64s, Int64s]:
    """Row of the table (-1 for none), place of the group's first row, and bucket, of each row after filling; int64[m].

    Windows are stepped through as InfluxDB 1.x does: a row takes the place of the next window that is due, also where
    it lies before that window, which happens when a clock is set back by less than the interval.
    """
    starts = run_starts(table.group)
    lengths = run_lengths(starts, len(table))
    low_ns, high_ns = time_range
    first = plan.window_start(low_ns) if plan.bounded_below else int(table.bucket.min())
    last = plan.window_start(high_ns)
    _check_rows((last - first) // plan.interval_ns)
    due = window_starts(first, last, plan.interval_ns, plan.timezone)
    begins = np.zeros(len(starts), dtype=np.int64)
    if not plan.bounded_below:
        begins = np.searchsorted(due, table.bucket[starts])
    counts = len(due) - begins
    _check_rows(int(counts.sum()))
    place = np.searchsorted(due, table.bucket)
    if bool((due[np.minimum(place, len(due) - 1)] == table.bucket).all()):
        offsets = np.cumsum(counts) - counts
        source = np.full(int(counts.sum()), -1, dtype=np.int64)
        source[np.repeat(offsets - begins, lengths) + place] = np.arange(len(table))
        step = np.arange(len(source)) - np.repeat(offsets - begins, counts)
        return source, np.repeat(starts, counts), due[step]
    parts = [
        _stepped(due[begin:], table.bucket[start : start + length], start, plan.ascending)
        for begin, start, length in zip(begins.tolist(), starts.tolist(), lengths.tolist(), strict=True)
    ]
    sources = np.concatenate([source for source, _ in parts])
    groups = np.repeat(starts, [len(source) for source, _ in parts])
    return sources, groups, np.concatenate([bucket for _, bucket in parts])


def _check_rows(rows: int) -> None:
    if rows > MAX_QUERY_BUCKETS:
        raise RequestError(
            f"the query makes {rows} rows of groups and buckets, the limit is {MAX_QUERY_BUCKETS}; use a longer "
            "interval, a shorter range, fewer groups or fill(none)"
        )


def _stepped(due: Int64s, buckets: Int64s, start: int, ascending: bool) -> tuple[Int64s, Int64s]:
    """One group's rows; they are taken in the direction of the answer, and given in ascending order."""
    sign = 1 if ascending else -1
    windows, own = (due[::sign] * sign).tolist(), (buckets[::sign] * sign).tolist()
    source: list[int] = []
    times: list[int] = []
    taken = 0
    for window in windows:
        if taken < len(own) and own[taken] <= window:
            source.append(taken)
            times.append(own[taken])
            taken += 1
        else:
            source.append(-1)
            times.append(window)
    source += range(taken, len(own))
    times += own[taken:]
    rows = np.array(source, dtype=np.int64)
    if not ascending:
        rows = np.where(rows < 0, -1, len(own) - 1 - rows)
    found = np.where(rows < 0, -1, rows + start)
    return found[::sign], np.array(times, dtype=np.int64)[::sign] * sign
