"""Aggregates as (partial, merge, finish): which there are, how each travels, and those that need points.

A call travels as ``states`` (``dsdbd.query.states``), as the point it has ``picked`` in each bucket, because the answer
shows more of a point than its value, as the points it has ``kept`` (``dsdbd.query.picks``), or as all its ``points``,
where no small state is enough. Picking and keeping are associative and commutative, so any split over shards and nodes
gives the same answer.

All kernels work on runs of rows: no Python loop per point, series or bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from dsdbd.model.columns import Bools, Column, Int32s, Int64s
from dsdbd.model.types import FieldType
from dsdbd.query import picks
from dsdbd.query.groups import group_order
from dsdbd.query.integral import integral
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.picks import PICKS
from dsdbd.query.plan_types import CallPlan, SelectPlan
from dsdbd.query.table import Table, sort_table

_NUMBERS = frozenset({FieldType.FLOAT, FieldType.INTEGER})
_ORDERED = _NUMBERS | {FieldType.BOOLEAN}
_ALL = frozenset(FieldType)
_LONG_RUN = 64
Kind = Literal["states", "picked", "kept", "points"]
_PICKING = frozenset({"min", "max", "first", "last"})
ORDERED = frozenset({"raw", "integral"})
"""Calls that need their points by time, and those of one time by series."""
OWN_TIMES = PICKS | ORDERED
"""Calls whose rows have times of their own, also with GROUP BY time."""

INPUT_TYPES: dict[str, frozenset[FieldType]] = {
    **dict.fromkeys(("sum", "mean", "spread", "median", "percentile", "stddev"), _NUMBERS),
    **dict.fromkeys(("top", "bottom", "integral"), _NUMBERS),
    **dict.fromkeys(("min", "max"), _ORDERED),
    **dict.fromkeys(("count", "first", "last", "distinct", "count_distinct", "mode", "sample"), _ALL),
}
"""Every aggregate and the field types it takes."""
SELECTORS = frozenset({"min", "max", "first", "last", "percentile"}) | PICKS
"""Aggregates that pick points and can carry their times and their other fields."""


def result_type(function: str, input_type: FieldType) -> FieldType:
    """Type of an aggregate's values."""
    if function in ("count", "count_distinct"):
        return FieldType.INTEGER
    if function in ("mean", "median", "stddev", "integral"):
        return FieldType.FLOAT
    return input_type


def rank(column: Column) -> Int64s:
    """int64[n] that orders the values as InfluxQL does (false before true, strings by code point)."""
    if column.type is FieldType.INTEGER:
        values: Int64s = column.values
        return values
    if column.type is FieldType.STRING:
        encoded = column.values.dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        order = np.empty(len(texts), dtype=np.int64)
        order[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
        ranks: Int64s = order[encoded.indices.to_numpy(zero_copy_only=False)]
        return ranks
    distinct, inverse = np.unique(column.values, return_inverse=True)
    del distinct
    return inverse.astype(np.int64)


def kind_of(plan: SelectPlan, call: CallPlan) -> Kind:
    """How a call travels."""
    if call.function in ("count", "sum", "mean", "spread", "stddev"):
        return "states"
    if call.function in PICKS:
        return "kept"
    if call.function in _PICKING:
        return "picked" if keeps_point(plan) else "states"
    return "points"


def keeps_point(plan: SelectPlan) -> bool:
    """Whether the answer shows more of a selected point than its value: its time, its fields or its tags."""
    return plan.selector and (bool(plan.refs) or not plan.interval_ns)


def merge(plan: SelectPlan, call: CallPlan, table: Table) -> Table:
    """What remains of the rows of many parts, sorted by group and bucket, and by time and series where they count."""
    if kind_of(plan, call) == "picked":
        table = sort_table(table)
        starts = table.starts()
        run = np.repeat(np.arange(len(starts)), run_lengths(starts, len(table)))
        criteria = extremes(call.function, table.columns["value"], table.time, table.member)
        rows, run = narrow(np.arange(len(table)), run, criteria)
        return table.take(rows[run_starts(run)])
    if call.function in PICKS:
        return picks.merge(call, table)
    if call.function in ORDERED or keeps_point(plan):
        return sort_table(table)
    order = group_order(table.groups, table.group, table.bucket, plan.grid_ns)
    return table if order is None else table.take(order)


def finish(plan: SelectPlan, call: CallPlan, table: Table) -> Table:
    """The merged table's rows with their final column ``value``; other columns stay where a point was picked."""
    function = call.function
    if len(table) == 0:
        kind = result_type(function, call.ref.field_type)
        return table.with_columns({**table.columns, "value": Column.missing(kind, 0)})
    if function in PICKS:
        return picks.ordered(call, table, rank(table.columns["value"]))
    if function in _PICKING or function == "raw":
        return table
    if function == "integral":
        return integral(plan, call, table)
    if function == "median" or (function == "percentile" and not keeps_point(plan)):
        return _ranked(call, table)
    return _POINT_KERNELS[function](table, call.arg)


Extreme = tuple[Callable[[Int64s], Any], bool]
"""Numbers of the rows it is called with, and whether the greatest of them wins; else the least does."""


def extremes(function: str, value: Column, time: Int64s, member: Int32s | None = None) -> list[Extreme]:
    """What decides between the points of a run, in order of weight.

    Equal values: the earliest point. Equal times: ``first`` and ``last`` keep the greater value, of booleans ``first``
    keeps false, as InfluxDB 1.x does. What is still equal: the series whose key comes first.
    """

    def by_value(rows: Int64s) -> Any:
        return value.values[rows].astype(np.int8) if value.type is FieldType.BOOLEAN else value.values[rows]

    def by_rank(rows: Int64s) -> Any:
        return by_value(rows) if value.type in _ORDERED else rank(value.take(rows))

    def by_time(rows: Int64s) -> Any:
        return time[rows]

    by_member: list[Extreme] = [] if member is None else [(lambda rows: member[rows], False)]
    if function in ("first", "last"):
        least = function == "first"
        return [(by_time, not least), (by_rank, not (least and value.type is FieldType.BOOLEAN)), *by_member]
    return [(by_value, function == "max"), (by_time, False), *by_member]


def narrow(rows: Int64s, run: Int64s, criteria: Sequence[Extreme]) -> tuple[Int64s, Int64s]:
    """Of each run of rows those that no criterion rules out: mostly one, several where all are equal.

    ``run``: int64[n], ascending, the run of each of ``rows``. Returns rows and their runs.
    """
    for numbers, greatest in criteria:
        starts = run_starts(run)
        if len(starts) == len(rows):
            break
        found = numbers(rows)
        extreme = (np.maximum if greatest else np.minimum).reduceat(found, starts)
        keep = found == np.repeat(extreme, run_lengths(starts, len(rows)))
        rows, run = rows[keep], run[keep]
    return rows, run


def _by_value(table: Table) -> Table:
    """Rows by group, bucket, value, time."""
    ranks = table.columns["value"].values
    if table.columns["value"].type is FieldType.STRING or table.columns["value"].type is FieldType.BOOLEAN:
        ranks = rank(table.columns["value"])
    return table.take(np.lexsort((table.time, ranks, table.bucket, table.group)))


def _ranked(call: CallPlan, table: Table) -> Table:
    """Median or percentile, of which only the value matters: values are sorted without the rest of their rows.

    The median of an even number of values is the mean of the two middle ones.
    """
    starts = table.starts()
    lengths = run_lengths(starts, len(table))
    column = table.columns["value"]
    values = _sorted_runs(column.values, starts, lengths)
    if call.function == "percentile":
        index, inside = _nearest_rank(lengths, call.arg)
        chosen = Column(column.type, values[(starts + index)[inside]])
        return table.take(starts[inside]).with_columns({"value": chosen})
    low, high = values[starts + (lengths - 1) // 2], values[starts + lengths // 2]
    middle = low.astype(np.float64) + (high - low) / 2
    return table.take(starts).with_columns({"value": Column(FieldType.FLOAT, middle)})


def _sorted_runs(values: Any, starts: Int64s, lengths: Int64s) -> Any:
    """The values of each run in ascending order."""
    if len(starts) * _LONG_RUN > len(values):
        return values[np.lexsort((values, np.repeat(np.arange(len(starts)), lengths)))]
    values = values.copy()
    # Runs are long, so a sort of each costs less than one that keeps them apart.
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        values[start : start + length].sort()
    return values


def _nearest_rank(lengths: Int64s, percent: float) -> tuple[Int64s, Any]:
    """Place in each run of its percentile, at floor(n·p/100 + 0.5) of n, and whether it is one of the run's."""
    index = np.floor(lengths * percent / 100.0 + 0.5).astype(np.int64) - 1
    return index, (index >= 0) & (index < lengths)


def _percentile(table: Table, percent: float) -> Table:
    """The point at the nearest rank; none where that is 0 or above the number of points."""
    ordered = _by_value(table)
    starts = ordered.starts()
    index, inside = _nearest_rank(run_lengths(starts, len(ordered)), percent)
    return ordered.take((starts + index)[inside])


def _distinct_rows(table: Table) -> Table:
    """Earliest row of each distinct value within group and bucket, sorted by group, bucket, value."""
    ordered = _by_value(table)
    return ordered.take(run_starts(ordered.group, ordered.bucket, rank(ordered.columns["value"])))


def _distinct(table: Table, _: float) -> Table:
    """Each value once, in the order in which they first appear, equal times by value."""
    unique = _distinct_rows(table)
    return unique.take(np.lexsort((rank(unique.columns["value"]), unique.time, unique.bucket, unique.group)))


def _count_distinct(table: Table, _: float) -> Table:
    unique = _distinct_rows(table)
    starts = unique.starts()
    count = Column(FieldType.INTEGER, run_lengths(starts, len(unique)))
    return unique.take(starts).with_columns({"value": count})


def _mode(table: Table, _: float) -> Table:
    """Most frequent value, of equally frequent ones the one that InfluxDB 1.x chooses.

    Of values that appear once the least. Others are gone through from the least to the greatest: one whose first point
    is not later than the last point of the one chosen so far takes its place. Of two booleans true.
    """
    ordered = _by_value(table)
    values = run_starts(ordered.group, ordered.bucket, rank(ordered.columns["value"]))
    frequency = run_lengths(values, len(ordered))
    buckets = run_starts(ordered.group[values], ordered.bucket[values])
    most = np.repeat(np.maximum.reduceat(frequency, buckets), run_lengths(buckets, len(values)))
    tied = np.flatnonzero(frequency == most)
    begin, frequency = values[tied], frequency[tied]
    starts = run_starts(ordered.group[begin], ordered.bucket[begin])
    chosen = starts
    if len(starts) == len(tied):
        pass
    elif table.columns["value"].type is FieldType.BOOLEAN:
        chosen = np.append(starts[1:], len(tied)) - 1
    elif bool((frequency > 1).any()):
        chosen = _taken_over(starts, ordered.time[begin], ordered.time[begin + frequency - 1], frequency > 1)
    return ordered.take(begin[chosen])


def _taken_over(starts: Int64s, first_ns: Int64s, last_ns: Int64s, may: Bools) -> Int64s:
    """Positions that remain of runs that begin at ``starts``, when each may take the place of those before it."""
    chosen: list[int] = starts.tolist()
    run = np.repeat(np.arange(len(starts)), run_lengths(starts, len(may)))
    # Each step needs the one before it; values that are equally frequent, and the most frequent, are few.
    for position in np.flatnonzero(may).tolist():
        if first_ns[position] <= last_ns[chosen[run[position]]]:
            chosen[run[position]] = position
    return np.array(chosen, dtype=np.int64)


_POINT_KERNELS: dict[str, Callable[[Table, float], Table]] = {
    "percentile": _percentile,
    "distinct": _distinct,
    "count_distinct": _count_distinct,
    "mode": _mode,
}
