"""From merged partial results to the answer: final values, fill, transformations, join of calls, limits, columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from dsdbd.model.columns import Column, Int64s
from dsdbd.model.types import FieldType
from dsdbd.query import aggregates
from dsdbd.query.columns import fill_missing, take_or_missing
from dsdbd.query.evaluate import evaluate, to_column
from dsdbd.query.fill import carry_forward, fill_buckets, fill_together
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.picks import PICKS
from dsdbd.query.plan_types import CallPlan, FieldLeaf, SelectPlan, Slot, TagLeaf
from dsdbd.query.rows import SeriesBlock
from dsdbd.query.run import Partial, never_cancelled
from dsdbd.query.states import States, finished_values
from dsdbd.query.table import NO_MEMBERS, Table, align_groups
from dsdbd.query.transform import apply_transform

_FORWARD = PICKS | {"distinct"}


def finish(
    plan: SelectPlan, partial: Partial, cancelled: Callable[[], bool] = never_cancelled
) -> Iterator[SeriesBlock]:
    """The answer, in the order of InfluxDB 1.x: by measurement and tags, then time.

    With ORDER BY time DESC the groups are reversed too. Raises RequestError above the bucket limit, and
    QueryCancelled soon after ``cancelled`` has returned True, where it takes long.
    """
    states, tables = partial.states, partial.tables
    if (states is None or not len(states)) and all(table is None or not len(table) for table in tables):
        return
    if not plan.calls:
        assert tables[0] is not None
        yield from _emit(plan, _limited(plan, _directed(plan, tables[0])), {})
        return
    if states is not None:
        together = _finish_together(plan, states)
        if together is not None:
            yield from _emit(plan, *together)
            return
    finished, positions = [], []
    for position, (call, table) in enumerate(zip(plan.calls, tables, strict=True)):
        folded = aggregates.kind_of(plan, call) == "states"
        rows = table if not folded or states is None else _call_table(call, position, states)
        if rows is None or not len(rows):
            continue
        rows = rows if folded else aggregates.finish(plan, call, rows)
        finished.append(_limited(plan, _finish_call(plan, call, rows, cancelled)))
        positions.append(position)
    if not finished:
        return
    rows, values = _join(plan, align_groups(finished))
    yield from _emit(plan, rows, dict(zip(positions, values, strict=True)))


def _finish_together(plan: SelectPlan, states: States) -> tuple[Table, dict[int, Column]] | None:
    """The rows of all calls at once, where one set of rows serves them all; None where it does not."""
    if any(call.transforms or aggregates.kind_of(plan, call) != "states" for call in plan.calls):
        return None
    values = [finished_values(call, position, states) for position, call in enumerate(plan.calls)]
    if any(value.valid is not None for value in values) and (
        plan.limit or plan.offset or plan.slimit or plan.soffset or not plan.bounded_below
    ):
        return None  # Limits and first buckets are each call's own.
    rows = _rows_of(states, {f"v{position}": value for position, value in enumerate(values)})
    rows = fill_together(plan, plan.calls, rows) if plan.interval_ns else _at_start(plan, rows)
    rows = _limited(plan, _directed(plan, rows))
    seen = [position for position, value in enumerate(values) if value.valid is None or bool(value.valid.any())]
    return rows, {position: rows.columns[f"v{position}"] for position in seen}


def _rows_of(states: States, columns: Mapping[str, Column]) -> Table:
    nothing = np.zeros(len(states), dtype=np.int32)
    return Table(states.groups, NO_MEMBERS, states.group, states.bucket, states.bucket, nothing, columns)


def _call_table(call: CallPlan, position: int, states: States) -> Table:
    """The rows in which one call has a value."""
    value = finished_values(call, position, states)
    rows = _rows_of(states, {"value": Column(value.type, value.values)})
    return rows if value.valid is None else rows.where(value.valid)


def _at_start(plan: SelectPlan, table: Table) -> Table:
    start_ns = plan.min_ns if plan.bounded_below else 0
    return replace(table, time=np.full(len(table), start_ns, dtype=np.int64))


def _directed(plan: SelectPlan, table: Table) -> Table:
    return table if plan.ascending else table.take(np.arange(len(table) - 1, -1, -1))


def _finish_call(plan: SelectPlan, call: CallPlan, table: Table, cancelled: Callable[[], bool]) -> Table:
    """Rows of one call with their times, in the direction of the answer."""
    if call.function in aggregates.OWN_TIMES:
        pass
    elif plan.interval_ns:
        table = fill_buckets(plan, call, replace(table, time=table.bucket))
    elif not plan.selector:
        table = _at_start(plan, table)
    if not plan.ascending and call.function in _FORWARD:
        # Distinct values and picked points keep their order within a bucket; groups and buckets are reversed.
        table = table.take(np.lexsort((np.arange(len(table)), -table.bucket, -table.group)))
    else:
        table = _directed(plan, table)
    for transform in call.transforms:
        table = apply_transform(plan, transform, table, cancelled)
    return table


def _limited(plan: SelectPlan, table: Table) -> Table:
    """The rows that LIMIT, OFFSET, SLIMIT and SOFFSET leave; rows are in the direction of the answer."""
    if plan.slimit or plan.soffset:
        starts = run_starts(table.group)
        firsts = run_starts(table.groups.name_codes[table.group[starts]])
        counts = run_lengths(firsts, len(starts))
        rank_in_measurement = np.arange(len(starts)) - np.repeat(firsts, counts)
        if not plan.ascending:
            rank_in_measurement = np.repeat(counts, counts) - 1 - rank_in_measurement
        last = plan.soffset + plan.slimit if plan.slimit else np.iinfo(np.int64).max
        keep = (rank_in_measurement >= plan.soffset) & (rank_in_measurement < last)
        table = table.where(np.repeat(keep, run_lengths(starts, len(table))))
    if plan.limit or plan.offset:
        starts = run_starts(table.group)
        place = np.arange(len(table)) - np.repeat(starts, run_lengths(starts, len(table)))
        last = plan.offset + plan.limit if plan.limit else np.iinfo(np.int64).max
        table = table.where((place >= plan.offset) & (place < last))
    return table


def _join(plan: SelectPlan, tables: list[Table]) -> tuple[Table, list[Column]]:
    """Rows of all calls brought together by group and time; a call without a row there has no value."""
    if len(tables) == 1:
        return tables[0], [tables[0].columns["value"]]
    group = np.concatenate([table.group for table in tables])
    time = np.concatenate([table.time for table in tables])
    again = np.concatenate([_occurrence(table) for table in tables])
    order = np.lexsort((again, time, group)) if plan.ascending else np.lexsort((again, -time, -group))
    starts = run_starts(group[order], time[order], again[order])
    joined = np.empty(len(order), dtype=np.int64)
    joined[order] = np.repeat(np.arange(len(starts)), run_lengths(starts, len(order)))
    heads = order[starts]
    values = []
    offset = 0
    for table in tables:
        source = np.full(len(starts), -1, dtype=np.int64)
        source[joined[offset : offset + len(table)]] = np.arange(len(table))
        values.append(take_or_missing(table.columns["value"], source))
        offset += len(table)
    nothing = np.zeros(len(starts), dtype=np.int32)
    return Table(tables[0].groups, NO_MEMBERS, group[heads], time[heads], time[heads], nothing, {}), values


def _occurrence(table: Table) -> Int64s:
    """How many earlier rows have the same group and time: two calls join their first rows, then their second."""
    starts = run_starts(table.group, table.time)
    return np.arange(len(table)) - np.repeat(starts, run_lengths(starts, len(table)))


def _emit(plan: SelectPlan, rows: Table, calls: Mapping[int, Column]) -> Iterator[SeriesBlock]:
    if len(rows) == 0:
        return

    def lookup(leaf: Slot | FieldLeaf | TagLeaf) -> Column | None:
        assert isinstance(leaf, Slot)
        column = calls.get(leaf.index) if leaf.kind == "call" else rows.columns.get(f"r{leaf.index}")
        if leaf.kind == "ref" and plan.refs[leaf.index].type == "unknown":
            return None
        if column is not None and plan.fill == "number" and plan.fill_value is not None:
            return fill_missing(column, plan.fill_value)
        if column is not None and plan.fill == "previous":
            return carry_forward(column, rows.group)
        return column

    data = [without_nan(to_column(evaluate(column.expr, lookup), len(rows))) for column in plan.columns]
    titles = (plan.time_name, *[column.name for column in plan.columns])
    starts = run_starts(rows.group)
    times = Column(FieldType.INTEGER, rows.time)
    dimensions = tuple(plan.dimensions)
    yield SeriesBlock(rows.groups, rows.group[starts], starts, dimensions, titles, (times, *data), plan.timezone)


def without_nan(column: Column) -> Column:
    """Not-a-number as a missing value: JSON has no word for it."""
    if column.type is not FieldType.FLOAT:
        return column
    bad = np.isnan(column.values)
    if not bool(bad.any()):
        return column
    return Column(column.type, column.values, ~bad if column.valid is None else column.valid & ~bad)
