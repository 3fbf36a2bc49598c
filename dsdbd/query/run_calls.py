"""From scanned rows to what a plan's calls need of them: states, picked points or points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsdbd.model.columns import Bools, Column, Int32s, Int64s
from dsdbd.model.types import FieldType
from dsdbd.query import picks
from dsdbd.query.aggregates import ORDERED, extremes, kind_of, narrow
from dsdbd.query.columns import coded_strings, take_or_missing
from dsdbd.query.groups import group_order, tag_texts
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_types import CallPlan, SelectPlan
from dsdbd.query.run_scan import ScannedRows
from dsdbd.query.states import States, edge_rows, fold_states, segment_states
from dsdbd.query.table import NO_MEMBERS, Table, member_keys
from dsdbd.query.windows import window_starts

TimeRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Segments:
    """Rows of one run and one time bucket; ``starts`` int64[s] are their first rows, the rest is as in Table."""

    starts: Int64s
    series: Int32s
    group: Int32s
    bucket: Int64s


def call_parts(plan: SelectPlan, rows: ScannedRows, scanned: TimeRange) -> tuple[States | None, list[Table | None]]:
    """States of the calls that have some, and for each call its points, None for one that travels as states.

    ``scanned``: first and last time, inclusive, that the rows can have.
    """
    segments = _segments(plan, rows)
    states: dict[str, Column] = {}
    tables: list[Table | None] = [None] * len(plan.calls)
    counted = False
    for position, call in enumerate(plan.calls):
        column = rows.column(call.ref)
        mask = _mask(plan, call, column, rows, scanned)
        column = Column(column.type, column.values)
        if kind_of(plan, call) == "picked":
            tables[position] = _picked(plan, call, rows, segments, column, mask)
        elif kind_of(plan, call) == "kept":
            tables[position] = _kept(plan, call, rows, segments, column, mask)
        elif kind_of(plan, call) == "points":
            tables[position] = _points(plan, call, rows, segments, column, mask)
        else:
            counted = counted or mask is None
            found = segment_states(call, column, mask, segments.starts)
            if call.function in ("first", "last"):
                edges = edge_rows(call.function, mask, segments.starts, len(rows))
                found["time"] = Column(FieldType.INTEGER, rows.time_ns[np.maximum(edges, 0)])
                found["value"] = take_or_missing(column, edges)
            states |= {f"{position}:{name}": state for name, state in found.items()}
    if all(kind_of(plan, call) != "states" for call in plan.calls):
        return None, tables
    lengths = run_lengths(segments.starts, len(rows))
    whole = States(rows.groups, segments.group, segments.bucket, {"n": Column(FieldType.INTEGER, lengths), **states})
    if not counted:
        whole = _seen(whole)
    if len(rows.run_starts) == 1:
        return whole, tables  # the buckets of one series come in order, each once
    return fold_states(plan.calls, whole, plan.grid_ns), tables


def _seen(states: States) -> States:
    """The rows in which some call has seen a value."""
    counts = [column.values for name, column in states.columns.items() if name.endswith(":n")]
    some = np.logical_or.reduce([count > 0 for count in counts])
    return states if bool(some.all()) else states.take(np.flatnonzero(some))


def _segments(plan: SelectPlan, rows: ScannedRows) -> _Segments:
    if not plan.interval_ns:
        bucket = np.zeros(len(rows.run_starts), dtype=np.int64)
        return _Segments(rows.run_starts, rows.run_series, rows.run_group, bucket)
    if plan.timezone:
        number, _ = plan.window_bounds(rows.time_ns)
    else:
        found = window_starts(rows.time_ns, rows.run_starts, plan.interval_ns, plan.offset_ns)
        if found is not None:
            starts, run, bucket = found
            return _Segments(starts, rows.run_series[run], rows.run_group[run], bucket)
        number = (rows.time_ns - plan.offset_ns) // plan.interval_ns
    changed = np.empty(len(number), dtype=np.bool_)
    np.not_equal(number[1:], number[:-1], out=changed[1:])
    changed[rows.run_starts] = True
    starts = np.flatnonzero(changed)
    run = np.searchsorted(rows.run_starts, starts, side="right") - 1
    bucket = number[starts]
    if not plan.timezone:
        bucket = bucket * plan.interval_ns + plan.offset_ns
    return _Segments(starts, rows.run_series[run], rows.run_group[run], bucket)


def _mask(plan: SelectPlan, call: CallPlan, column: Column, rows: ScannedRows, scanned: TimeRange) -> Bools | None:
    """Rows in which a call has a value; None for all."""
    mask = None if column.valid is None or bool(column.valid.all()) else column.valid
    low, high = plan.call_range(call)
    if (low, high) != scanned:
        inside = (rows.time_ns >= low) & (rows.time_ns <= high)
        mask = inside if mask is None else mask & inside
    return mask


def _picked(
    plan: SelectPlan, call: CallPlan, rows: ScannedRows, segments: _Segments, value: Column, mask: Bools | None
) -> Table:
    """The point that a selector picks in each group and bucket."""
    chosen, segment = _segment_picks(call, rows, segments, value, mask)
    order = group_order(rows.groups, segments.group[segment], segments.bucket[segment], plan.grid_ns)
    if order is not None:
        chosen, segment = chosen[order], segment[order]
    starts = run_starts(segments.group[segment], segments.bucket[segment])
    places = np.arange(len(chosen))
    run = np.repeat(np.arange(len(starts)), run_lengths(starts, len(chosen)))
    places, run = narrow(places, run, extremes(call.function, value.take(chosen), rows.time_ns[chosen]))
    members, member = _members(rows, segments.series[segment[places]])
    if len(places) > len(starts):
        # Points of several series that are equal in value and time: the series decide.
        left, run = narrow(np.arange(len(places)), run, [(lambda which: member[which], False)])
        places, member = places[left], member[left]
    chosen, segment = chosen[places], segment[places]
    columns = {"value": value.take(chosen)}
    columns |= {f"r{index}": rows.column(ref).take(chosen) for index, ref in enumerate(plan.refs)}
    group, bucket = segments.group[segment], segments.bucket[segment]
    return Table(rows.groups, members, group, bucket, rows.time_ns[chosen], member, columns)


def _kept(
    plan: SelectPlan, call: CallPlan, rows: ScannedRows, segments: _Segments, value: Column, mask: Bools | None
) -> Table:
    """The points that ``top``, ``bottom`` or ``sample`` keeps of each group and bucket."""
    lengths = run_lengths(segments.starts, len(rows))
    places = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
    segment = np.repeat(np.arange(len(lengths)), lengths)[places]
    group, bucket, runs = segments.group[segment], segments.bucket[segment], run_starts(segment)
    members, of_run = _members(rows, rows.run_series)
    time, member, candidates = rows.time_ns[places], rows.spread(of_run)[places], value.take(places)
    tags = [tag_texts(rows.points.series, name, rows.run_series) for name in call.apart]
    apart = [rows.spread(codes)[places] for _, codes in tags]
    chosen = picks.kept(call, group, bucket, time, member, members, candidates, apart, runs)
    columns = {"value": candidates.take(chosen)}
    columns |= {f"r{index}": rows.column(ref).take(places[chosen]) for index, ref in enumerate(plan.refs)}
    for place, ((texts, _), codes) in enumerate(zip(tags, apart, strict=True)):
        columns[f"b{place}"] = coded_strings(texts, codes[chosen])
    return Table(rows.groups, members, group[chosen], bucket[chosen], time[chosen], member[chosen], columns)


def _segment_picks(
    call: CallPlan, rows: ScannedRows, segments: _Segments, value: Column, mask: Bools | None
) -> tuple[Int64s, Int64s]:
    """The picked row of each segment that has a value, and the segment's number."""
    if call.function in ("first", "last"):
        edges = edge_rows(call.function, mask, segments.starts, len(rows))
        segment = np.flatnonzero(edges >= 0)
        return edges[segment], segment
    number = np.repeat(np.arange(len(segments.starts)), run_lengths(segments.starts, len(rows)))
    chosen = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
    # Times ascend within a segment, so the first of equal values is the earliest.
    chosen, number = narrow(chosen, number[chosen], extremes(call.function, value, rows.time_ns)[:1])
    heads = run_starts(number)
    return chosen[heads], number[heads]


def _members(rows: ScannedRows, series: Int32s) -> tuple[object, Int32s]:
    return member_keys(rows.points.series.all_keys, rows.points.series.numbers[series])


def _points(
    plan: SelectPlan, call: CallPlan, rows: ScannedRows, segments: _Segments, value: Column, mask: Bools | None
) -> Table:
    """All points with a value. Which series they are of counts only where rows of one time can be told apart."""
    lengths = run_lengths(segments.starts, len(rows))
    group, bucket = np.repeat(segments.group, lengths), np.repeat(segments.bucket, lengths)
    columns = {"value": value}
    if plan.selector:
        columns |= {f"r{index}": rows.column(ref) for index, ref in enumerate(plan.refs)}
    if call.function in ORDERED or plan.selector:
        members, of_run = _members(rows, rows.run_series)
        member = rows.spread(of_run)
    else:
        members, member = NO_MEMBERS, np.zeros(len(rows), dtype=np.int32)
    table = Table(rows.groups, members, group, bucket, rows.time_ns, member, columns)
    return table if mask is None else table.where(mask)
