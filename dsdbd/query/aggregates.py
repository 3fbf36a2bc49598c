"""Aggregates as (partial, merge, finish) over tables.

``partial`` turns rows with a column ``value`` into states and folds them within one scan, ``merge`` folds the states
of many parts, ``finish`` gives one row (``distinct``: several) for each group and bucket. Folding is associative and
commutative, so any split over shards and nodes gives the same answer. What has no small state keeps its points.

All kernels work on runs of rows: no Python loop per point, series or bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsdbd.model.columns import Column, Int64s
from dsdbd.model.types import FieldType
from dsdbd.query.plan_types import CallPlan
from dsdbd.query.table import Table, run_lengths, run_starts, sort_table

_NUMBERS = frozenset({FieldType.FLOAT, FieldType.INTEGER})
_ORDERED = _NUMBERS | {FieldType.BOOLEAN}
_ALL = frozenset(FieldType)
_ADDING = frozenset({"count", "sum", "mean"})
_PICKING = frozenset({"min", "max", "first", "last"})

INPUT_TYPES: dict[str, frozenset[FieldType]] = {
    **dict.fromkeys(("sum", "mean", "spread", "median", "percentile", "stddev"), _NUMBERS),
    **dict.fromkeys(("min", "max"), _ORDERED),
    **dict.fromkeys(("count", "first", "last", "distinct", "count_distinct", "mode"), _ALL),
}
"""Every aggregate and the field types it takes."""
SELECTORS = frozenset({"min", "max", "first", "last", "percentile"})
"""Aggregates that pick one point and can carry its time and its other fields."""


def result_type(function: str, input_type: FieldType) -> FieldType:
    """Type of an aggregate's values."""
    if function in ("count", "count_distinct"):
        return FieldType.INTEGER
    if function in ("mean", "median", "stddev"):
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


def partial(call: CallPlan, rows: Table, series_index: Any) -> Table:
    """States of one scan's rows.

    ``rows`` has the column ``value`` without missing entries, and is sorted by series and time; ``series_index`` is
    an array that changes where the series does.
    """
    function = call.function
    value = rows.columns["value"]
    if function in _ADDING or function == "spread":
        columns: dict[str, Column] = {}
        if function in ("count", "mean"):
            columns["count"] = Column(FieldType.INTEGER, np.ones(len(rows), dtype=np.int64))
        if function in ("sum", "mean"):
            columns["sum"] = value
        if function == "spread":
            columns["low"] = columns["high"] = value
        table = rows.with_columns(columns)
        return _fold_sums(table, run_starts(rows.group, rows.bucket))
    if function in _PICKING:
        return rows.take(_picked(function, rows, run_starts(series_index, rows.group, rows.bucket)))
    return rows


def merge(call: CallPlan, table: Table) -> Table:
    """States folded over equal group and bucket; ``table`` may be in any order, its groups sorted."""
    table = sort_table(table)
    if call.function in _ADDING or call.function == "spread":
        return _fold_sums(table, table.starts())
    if call.function in _PICKING:
        return table.take(_picked(call.function, table, table.starts()))
    return table


def finish(call: CallPlan, table: Table) -> Table:
    """The merged table's rows with their final column ``value``; other columns stay where a point was picked."""
    function = call.function
    if len(table) == 0:
        kind = result_type(function, call.ref.field_type)
        return table.with_columns({**table.columns, "value": Column.missing(kind, 0)})
    if function in _PICKING or function == "raw":
        return table
    if function in _ADDING:
        return table.with_columns({"value": _finished_sum(function, table)})
    if function == "spread":
        low, high = table.columns["low"], table.columns["high"]
        return table.with_columns({"value": Column(low.type, high.values - low.values)})
    return _POINT_KERNELS[function](table, call.arg)


def _fold_sums(table: Table, starts: Int64s) -> Table:
    """Rows of each run added up; ``low`` and ``high`` keep the least and the greatest."""
    if len(starts) == len(table):
        return table
    operations = {"low": np.minimum, "high": np.maximum}
    columns = {
        name: Column(column.type, operations.get(name, np.add).reduceat(column.values, starts))
        for name, column in table.columns.items()
    }
    return table.take(starts).with_columns(columns)


def _finished_sum(function: str, table: Table) -> Column:
    if function == "mean":
        return Column(FieldType.FLOAT, table.columns["sum"].values / table.columns["count"].values)
    return table.columns[function]


def _picked(function: str, table: Table, starts: Int64s) -> Int64s:
    """Row of each run that a selector keeps; runs are sorted by time.

    Equal values: the earliest point. Equal times: ``first`` and ``last`` keep the greater value, of booleans ``first``
    keeps false, as InfluxDB 1.x does.
    """
    lengths = run_lengths(starts, len(table))
    value = table.columns["value"]
    if function in ("first", "last"):
        edge = table.time[starts if function == "first" else starts + lengths - 1]
        candidates = np.flatnonzero(table.time == np.repeat(edge, lengths))
        if len(candidates) == len(starts):
            return candidates
        greatest = not (function == "first" and value.type is FieldType.BOOLEAN)
        ranks = rank(value.take(candidates))
    else:
        candidates = np.arange(len(table))
        ranks = value.values.astype(np.int8) if value.type is FieldType.BOOLEAN else value.values
        greatest = function == "max"
    run_of = np.repeat(np.arange(len(starts)), lengths)[candidates]
    firsts = run_starts(run_of)
    extreme = (np.maximum if greatest else np.minimum).reduceat(ranks, firsts)
    hits = np.flatnonzero(ranks == np.repeat(extreme, run_lengths(firsts, len(candidates))))
    chosen: Int64s = candidates[hits[run_starts(run_of[hits])]]
    return chosen


def _by_value(table: Table) -> Table:
    """Rows by group, bucket, value, time."""
    ranks = table.columns["value"].values
    if table.columns["value"].type is FieldType.STRING or table.columns["value"].type is FieldType.BOOLEAN:
        ranks = rank(table.columns["value"])
    return table.take(np.lexsort((table.time, ranks, table.bucket, table.group)))


def _median(table: Table, _: float) -> Table:
    """Middle value; of an even number the mean of the two middle ones."""
    ordered = _by_value(table)
    starts = ordered.starts()
    lengths = run_lengths(starts, len(ordered))
    values = ordered.columns["value"].values
    low, high = values[starts + (lengths - 1) // 2], values[starts + lengths // 2]
    middle = low.astype(np.float64) + (high - low) / 2
    return table.take(table.starts()).with_columns({"value": Column(FieldType.FLOAT, middle)})


def _percentile(table: Table, percent: float) -> Table:
    """Nearest rank: the point at floor(n·p/100 + 0.5) of n, none where that is 0 or above n."""
    ordered = _by_value(table)
    starts = ordered.starts()
    lengths = run_lengths(starts, len(ordered))
    index = np.floor(lengths * percent / 100.0 + 0.5).astype(np.int64) - 1
    inside = (index >= 0) & (index < lengths)
    return ordered.take((starts + index)[inside])


def _stddev(table: Table, _: float) -> Table:
    """Standard deviation of a sample (n - 1), in two passes; not a number, and so null, for a single point."""
    starts = table.starts()
    lengths = run_lengths(starts, len(table))
    values = table.columns["value"].values.astype(np.float64)
    mean = np.add.reduceat(values, starts) / lengths
    squares = np.add.reduceat((values - np.repeat(mean, lengths)) ** 2, starts)
    with np.errstate(invalid="ignore"):
        result = np.sqrt(squares / (lengths - 1))
    return table.take(starts).with_columns({"value": Column(FieldType.FLOAT, result)})


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
    """Most frequent value; of equally frequent ones the one that appears first, then the smaller."""
    ordered = _by_value(table)
    ranks = rank(ordered.columns["value"])
    values = run_starts(ordered.group, ordered.bucket, ranks)
    frequency = run_lengths(values, len(ordered))
    unique = ordered.take(values)
    order = np.lexsort((ranks[values], unique.time, -frequency, unique.bucket, unique.group))
    chosen = unique.take(order)
    return chosen.take(chosen.starts())


_POINT_KERNELS: dict[str, Callable[[Table, float], Table]] = {
    "median": _median,
    "percentile": _percentile,
    "stddev": _stddev,
    "distinct": _distinct,
    "count_distinct": _count_distinct,
    "mode": _mode,
}
