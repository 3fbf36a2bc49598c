"""Buckets without points: every group gets all buckets of the query's range, filled as fill() asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsdbd.errors import RequestError
from dsdbd.limits import MAX_QUERY_BUCKETS
from dsdbd.model.columns import Column, Int32s, Int64s
from dsdbd.model.types import FieldType
from dsdbd.query.columns import fill_missing, take_or_missing
from dsdbd.query.fill_zone import local_rows
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_types import CallPlan, SelectPlan
from dsdbd.query.table import Table


@dataclass(frozen=True, slots=True)
class _Layout:
    """Rows after filling: ``source`` int64[m] is the row of the table that each comes from, -1 for none."""

    source: Int64s
    group: Int32s
    bucket: Int64s


def fill_buckets(plan: SelectPlan, call: CallPlan, table: Table) -> Table:
    """One row per bucket of each group in ``table``, which has at most one per group and bucket, sorted so.

    A query without a lower bound starts at each group's first bucket. Raises RequestError above the bucket limit.
    """
    if plan.fill == "none" or call.function == "distinct" or len(table) == 0:
        return table
    layout = _layout(plan, plan.call_range(call), table)
    columns = {name: take_or_missing(column, layout.source) for name, column in table.columns.items()}
    columns["value"] = _filled(plan, call, table.columns["value"], layout)
    member = np.zeros(len(layout.source), dtype=np.int32)
    return Table(table.groups, table.members, layout.group, layout.bucket, layout.bucket, member, columns)


def fill_together(plan: SelectPlan, calls: Sequence[CallPlan], table: Table) -> Table:
    """As ``fill_buckets``, for calls of one time range at once: ``v0``, ``v1`` … are their values, missing in places.

    A group in which a call has no value at all stays without one.
    """
    if plan.fill == "none" or len(table) == 0:
        return table
    layout = _layout(plan, (plan.min_ns, plan.max_ns), table)
    columns = {}
    for position, call in enumerate(calls):
        value = table.columns[f"v{position}"]
        if value.valid is None:
            columns[f"v{position}"] = _filled(plan, call, value, layout)
            continue
        present = np.flatnonzero(value.valid)
        number = np.full(len(value) + 1, -1, dtype=np.int64)
        number[present] = np.arange(len(present))
        own = replace(layout, source=number[layout.source])
        column = _filled(plan, call, Column(value.type, value.values).take(present), own)
        some = np.zeros(len(table.groups), dtype=np.bool_)
        some[table.group[value.valid]] = True
        valid = some[layout.group] if column.valid is None else column.valid & some[layout.group]
        columns[f"v{position}"] = Column(column.type, column.values, valid)
    member = np.zeros(len(layout.source), dtype=np.int32)
    return Table(table.groups, table.members, layout.group, layout.bucket, layout.bucket, member, columns)


def _layout(plan: SelectPlan, time_range: tuple[int, int], table: Table) -> _Layout:
    low_ns, high_ns = time_range
    if plan.timezone:
        source, of_group, bucket = local_rows(plan, time_range, table)
        return _Layout(source, table.group[of_group], bucket)
    starts = run_starts(table.group)
    first = table.bucket[starts]
    if plan.bounded_below:
        first = np.full_like(first, plan.window_start(low_ns))
    counts = (plan.window_start(high_ns) - first) // plan.interval_ns + 1
    total = int(counts.sum())
    if total > MAX_QUERY_BUCKETS:
        raise RequestError(
            f"the query makes {total} rows of groups and buckets, the limit is {MAX_QUERY_BUCKETS}; use a longer "
            "interval, a shorter range, fewer groups or fill(none)"
        )
    if total == len(table):
        return _Layout(np.arange(total), table.group, table.bucket)
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    lengths = run_lengths(starts, len(table))
    places = np.repeat(offsets, lengths) + (table.bucket - np.repeat(first, lengths)) // plan.interval_ns
    source = np.full(total, -1, dtype=np.int64)
    source[places] = np.arange(len(table))
    step = np.arange(total) - np.repeat(offsets, counts)
    bucket = np.repeat(first, counts) + step * plan.interval_ns
    return _Layout(source, np.repeat(table.group[starts], counts), bucket)


def carry_forward(column: Column, group: Int32s) -> Column:
    """The column with each missing value replaced by the last one before it in its group, if there is one."""
    if column.valid is None:
        return column
    return take_or_missing(column, _last_known(np.where(column.valid, np.arange(len(column)), -1), group))


def _filled(plan: SelectPlan, call: CallPlan, value: Column, layout: _Layout) -> Column:
    source, group, bucket = layout.source, layout.group, layout.bucket
    column = take_or_missing(value, source)
    if plan.fill == "null":
        return fill_missing(column, 0) if call.function in ("count", "count_distinct") else column
    if plan.fill == "number":
        assert plan.fill_value is not None
        return fill_missing(column, plan.fill_value)
    backwards = slice(None, None, -1)
    before = _last_known(source, group)
    after = _last_known(source[backwards], group[backwards])[backwards]
    if plan.fill == "previous":
        return take_or_missing(value, before if plan.ascending else after)
    return _linear(plan, value, source, bucket, before, after)


def _last_known(source: Int64s, group: Int32s) -> Int64s:
    """For each place the last entry of ``source`` that is not -1, within its group; -1 without one."""
    place = np.where(source >= 0, np.arange(len(source)), -1)
    last = np.maximum.accumulate(place)
    starts = run_starts(group)
    start_of = np.repeat(starts, run_lengths(starts, len(group)))
    return np.where(last >= start_of, source[np.maximum(last, 0)], -1)


def _linear(plan: SelectPlan, value: Column, source: Int64s, bucket: Int64s, before: Int64s, after: Int64s) -> Column:
    """The straight line between the neighbours, in steps of buckets; nothing at the ends, nor for other types.

    Integers are cut, so the operations and their order are those of InfluxDB 1.x: from the row before in the answer,
    with steps that are times divided by the interval and cut towards zero, so that before 1970 one may be missing.
    """
    column = take_or_missing(value, source)
    gaps = np.flatnonzero((source < 0) & (before >= 0) & (after >= 0))
    if value.type not in (FieldType.FLOAT, FieldType.INTEGER) or len(gaps) == 0:
        return column
    steps = np.where(bucket < 0, -(-bucket // plan.interval_ns), bucket // plan.interval_ns)
    known = steps[np.flatnonzero(source >= 0)]
    left, right = before[gaps], after[gaps]
    if not plan.ascending:
        left, right = right, left
    rise = (value.values[right] - value.values[left]).astype(np.float64)
    slope = rise / (known[right] - known[left])
    line = slope * (steps[gaps] - known[left]) + value.values[left].astype(np.float64)
    values = column.values.copy()
    values[gaps] = line.astype(values.dtype)
    valid = source >= 0 if column.valid is None else column.valid.copy()
    ends_valid = np.ones(len(gaps), dtype=np.bool_) if value.valid is None else value.valid[left] & value.valid[right]
    valid[gaps] = ends_valid
    return Column(column.type, values, valid)
