"""The area under the points of a group, by the trapezium rule, divided at the edges of windows as InfluxDB 1.x does."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsdbd.model.columns import Bools, Column, Int64s
from dsdbd.model.times import MIN_TIME_NS
from dsdbd.model.types import FieldType
from dsdbd.query.ordering import run_starts
from dsdbd.query.plan_types import CallPlan, SelectPlan
from dsdbd.query.table import Table


def integral(plan: SelectPlan, call: CallPlan, table: Table) -> Table:
    """One row per group and window with the area between its points in units of ``call.arg`` ns, in ascending order.

    ``table``: points by group and time. Of points at one time the last counts. With GROUP BY time the line between two
    points is cut at the end of the window of the earlier one, and what lies behind belongs to the window of the later
    one, also where there are windows between. A window whose only point is its first moment has no row. With
    ORDER BY time DESC areas are negative and rows carry the ends of windows.

    Whole numbers follow InfluxDB 1.6 where it differs from itself: behind the end of a window the height of the line
    at that end, and that of the point before, are used for the rest.
    """
    ascending = plan.ascending
    last = np.append(run_starts(table.group, table.time)[1:], len(table)) - 1
    table = table.take(last if ascending else last[::-1])
    time, value = table.time, table.columns["value"]
    heights = value.values.astype(np.float64)
    begin, end = _windows(plan, time, value.type)
    starts = run_starts(table.group)
    same = np.ones(len(table), dtype=np.bool_)
    same[starts] = False
    # Of the pair of a point and the one before it: whether an end of a window lies between, and where.
    before = np.maximum(np.arange(len(table)) - 1, 0)
    edge = end[before]
    crossing: Bools = same & ((time >= edge) if ascending else (time <= edge))
    if not plan.interval_ns and value.type is FieldType.FLOAT:
        crossing = np.zeros(len(table), dtype=np.bool_)
    left, right = _areas(time, heights, edge, crossing, before, int(call.arg), whole=value.type is FieldType.INTEGER)
    left, right = np.where(same, left, 0.0), np.where(same, right, 0.0)
    heads = np.flatnonzero(crossing | ~same)
    tails = np.append(heads[1:], len(table)) - 1
    # The part up to the edge belongs to the rows before the crossing.
    own = np.add.reduceat(right, heads)
    own += np.where(np.append(crossing[heads[1:]], False), np.append(left[heads[1:]], 0.0), 0.0)
    final = np.append(~same[heads[1:]], True)
    keep = ~final | (time[tails] != begin[tails])
    rows = table.take(tails[keep])
    times = begin[tails][keep]
    area = Column(FieldType.FLOAT, own[keep])
    found = Table(rows.groups, rows.members, rows.group, times, times, rows.member, {"value": area})
    return found if ascending else found.take(np.arange(len(found) - 1, -1, -1))


def _windows(plan: SelectPlan, time: Int64s, kind: FieldType) -> tuple[Int64s, Int64s]:
    """The time of the row, and the edge, that belong to each point."""
    if plan.interval_ns:
        begin, end = plan.window_bounds(time)
        return (begin, end) if plan.ascending else (end, begin)
    if kind is FieldType.FLOAT:
        nothing = np.zeros(len(time), dtype=np.int64)
        return nothing, nothing
    low = plan.min_ns if plan.bounded_below else (0 if plan.ascending else MIN_TIME_NS)
    whole = np.full(len(time), plan.max_ns + 1, dtype=np.int64)
    first = np.full(len(time), low, dtype=np.int64)
    return (first, whole) if plan.ascending else (whole, first)


def _areas(
    time: Int64s, heights: Any, edge: Int64s, crossing: Bools, before: Int64s, unit_ns: int, *, whole: bool
) -> tuple[Any, Any]:
    """Areas between each point and the one before it: up to the edge, and behind it; all of it without a crossing."""
    since, old, new = time[before], heights[before], heights
    cut = crossing & (since != edge)
    with np.errstate(all="ignore"):
        slope = (new - old) / (time - since).astype(np.float64)
        level = slope * (edge - since).astype(np.float64) + old
        left = np.where(cut, 0.5 * (level + old) * ((edge - since).astype(np.float64) / unit_ns), 0.0)
        start = np.where(cut, edge, since)
        first = old if whole else np.where(cut, level, old)
        second = np.where(cut, level, new) if whole else new
        right = 0.5 * (second + first) * ((time - start).astype(np.float64) / unit_ns)
    return left, right
