"""States of aggregates: a row for each group and bucket, and columns of numbers for each call that uses them.

A call's state is what its answer can be made of and what folds: ``n`` (number of values), ``sum``, ``low``, ``high``,
``m2`` (squared distances from the mean), or ``time`` and ``value`` of the first or last point. Folding is associative
and commutative, so any split over pieces, shards and nodes gives the same answer. Deviations fold as in Chan, Golub,
LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).

A column is called by the number of its call and the state, such as ``3:sum``. The column ``n`` counts rows, for the
calls that have a value in all of them; others have a count of their own, ``3:n``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsdbd.model.columns import Bools, Column, Int32s, Int64s
from dsdbd.model.types import FieldType
from dsdbd.query.aggregates import extremes, narrow
from dsdbd.query.columns import concat, take_or_missing
from dsdbd.query.groups import GroupSet, group_order, unite_groups
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_types import CallPlan

_EDGES = frozenset({"first", "last"})
_FOLDS: dict[str, Any] = {"n": np.add, "sum": np.add, "low": np.minimum, "high": np.maximum}


@dataclass(frozen=True, slots=True)
class States:
    """n rows: ``group`` int32[n] is a position in ``groups``, ``bucket`` int64[n] the start of the time bucket."""

    groups: GroupSet
    group: Int32s
    bucket: Int64s
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.group)

    def take(self, rows: Int64s) -> States:
        """The given rows in the given order."""
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return States(self.groups, self.group[rows], self.bucket[rows], columns)

    def counts(self, position: int) -> Int64s:
        """Number of values of a call in each row."""
        own = self.columns.get(f"{position}:n")
        counts: Int64s = (self.columns["n"] if own is None else own).values
        return counts


def state_names(calls: Sequence[CallPlan]) -> set[str]:
    """Columns that states of these calls always have, for those calls that travel as states in every plan."""
    needed = {"sum": ["sum"], "mean": ["sum"], "stddev": ["sum", "m2"], "spread": ["low", "high"]}
    names = {f"{at}:{name}" for at, call in enumerate(calls) for name in needed.get(call.function, ())}
    return names | {"n"}


def segment_states(call: CallPlan, column: Column, mask: Bools | None, starts: Int64s) -> dict[str, Column]:
    """States of one call for segments of rows, without the call's number in their names.

    ``starts``: int64[s], first row of each segment; segments follow each other without gaps, none is empty, and times
    ascend within each. ``mask``: rows that have a value; None for all. ``time`` is left to ``edge_rows``.
    """
    found: dict[str, Column] = {}
    if mask is not None:
        found["n"] = _integers(np.add.reduceat(mask, starts, dtype=np.int64))
    function, kind, values = call.function, column.type, column.values
    if function in ("sum", "mean"):
        values = values if mask is None else np.where(mask, values, values.dtype.type(0))
        found["sum"] = Column(kind, np.add.reduceat(values, starts))
    elif function == "stddev":
        found["sum"], found["m2"] = _deviations(values.astype(np.float64, copy=False), mask, starts)
    if function in ("min", "spread"):
        found["low"] = Column(kind, np.minimum.reduceat(_neutral(values, mask, lowest=False), starts))
    if function in ("max", "spread"):
        found["high"] = Column(kind, np.maximum.reduceat(_neutral(values, mask, lowest=True), starts))
    return found


def edge_rows(function: str, mask: Bools | None, starts: Int64s, size: int) -> Int64s:
    """Row of the first or last value of each segment, -1 for one without."""
    if mask is None:
        return starts if function == "first" else starts + run_lengths(starts, size) - 1
    rows = np.flatnonzero(mask)
    segment = np.searchsorted(starts, rows, side="right") - 1
    heads = run_starts(segment)
    chosen = np.full(len(starts), -1, dtype=np.int64)
    chosen[segment[heads]] = rows[heads if function == "first" else heads + run_lengths(heads, len(rows)) - 1]
    return chosen


def _integers(values: Any) -> Column:
    return Column(FieldType.INTEGER, values)


def _neutral(values: Any, mask: Bools | None, *, lowest: bool) -> Any:
    """The values, and in place of missing ones what changes no maximum (``lowest``) or no minimum."""
    if mask is None:
        return values
    if values.dtype == np.bool_:
        return np.where(mask, values, not lowest)
    if values.dtype == np.float64:
        return np.where(mask, values, -np.inf if lowest else np.inf)
    bounds = np.iinfo(np.int64)
    return np.where(mask, values, np.int64(bounds.min if lowest else bounds.max))


def _deviations(values: Any, mask: Bools | None, starts: Int64s) -> tuple[Column, Column]:
    lengths = run_lengths(starts, len(values))
    counts = lengths if mask is None else np.add.reduceat(mask, starts, dtype=np.int64)
    values = values if mask is None else np.where(mask, values, 0.0)
    total = np.add.reduceat(values, starts)
    distance = values - np.repeat(total / np.maximum(counts, 1), lengths)
    if mask is not None:
        distance = np.where(mask, distance, 0.0)
    return Column(FieldType.FLOAT, total), Column(FieldType.FLOAT, np.add.reduceat(distance * distance, starts))


def concat_states(parts: Sequence[States]) -> States:
    """Rows of all parts, one part after another; needs at least one, all of the same calls."""
    if len(parts) == 1:
        return parts[0]
    groups, maps = unite_groups([part.groups for part in parts])
    names = {name: None for part in parts for name in part.columns}
    columns = {name: concat([part.columns.get(name, part.columns["n"]) for part in parts]) for name in names}
    group = np.concatenate([places[part.group] for places, part in zip(maps, parts, strict=True)])
    return States(groups, group, np.concatenate([part.bucket for part in parts]), columns)


def fold_states(calls: Sequence[CallPlan], states: States, interval_ns: int) -> States:
    """One row for each group and bucket, in this order."""
    order = group_order(states.groups, states.group, states.bucket, interval_ns)
    if order is not None:
        states = states.take(order)
    starts = run_starts(states.group, states.bucket)
    if len(starts) == len(states):
        return states
    columns: dict[str, Column] = {}
    for name, column in states.columns.items():
        state = name.rpartition(":")[2]
        if state in _FOLDS:
            columns[name] = Column(column.type, _FOLDS[state].reduceat(column.values, starts))
    for position, call in enumerate(calls):
        if call.function == "stddev" and f"{position}:m2" in states.columns:
            columns[f"{position}:m2"] = _folded_deviations(states, columns, position, starts)
        elif call.function in _EDGES and f"{position}:time" in states.columns:
            columns |= _folded_edges(call, states, position, starts)
    return States(states.groups, states.group[starts], states.bucket[starts], columns)


def _folded_deviations(states: States, columns: Mapping[str, Column], position: int, starts: Int64s) -> Column:
    lengths = run_lengths(starts, len(states))
    counts = states.counts(position)
    totals = np.maximum(np.add.reduceat(counts, starts), 1)
    mean = np.repeat(columns[f"{position}:sum"].values / totals, lengths)
    apart = states.columns[f"{position}:sum"].values / np.maximum(counts, 1) - mean
    spread = states.columns[f"{position}:m2"].values + counts * apart * apart
    return Column(FieldType.FLOAT, np.add.reduceat(spread, starts))


def _folded_edges(call: CallPlan, states: States, position: int, starts: Int64s) -> dict[str, Column]:
    time, value = states.columns[f"{position}:time"], states.columns[f"{position}:value"]
    rows = np.flatnonzero(states.counts(position))
    run = np.searchsorted(starts, rows, side="right") - 1
    kept, run_of = narrow(rows, run, extremes(call.function, value, time.values)[:2])
    heads = run_starts(run_of)
    chosen = np.full(len(starts), -1, dtype=np.int64)
    chosen[run_of[heads]] = kept[heads]
    return {
        f"{position}:time": _integers(time.values[np.maximum(chosen, 0)]),
        f"{position}:value": take_or_missing(value, chosen),
    }


def finished_values(call: CallPlan, position: int, states: States) -> Column:
    """Final values of a call in each row; no value where it has seen none."""
    counts = states.counts(position)
    present = counts > 0
    valid = None if bool(present.all()) else present

    def state(name: str) -> Any:
        return states.columns[f"{position}:{name}"].values

    match call.function:
        case "count":
            return Column(FieldType.INTEGER, counts, valid)
        case "sum":
            return Column(call.ref.field_type, state("sum"), valid)
        case "mean":
            return Column(FieldType.FLOAT, state("sum") / (counts if valid is None else np.maximum(counts, 1)), valid)
        case "min":
            return Column(call.ref.field_type, state("low"), valid)
        case "max":
            return Column(call.ref.field_type, state("high"), valid)
        case "spread":
            with np.errstate(invalid="ignore"):
                return Column(call.ref.field_type, state("high") - state("low"), valid)
        case "stddev":
            with np.errstate(invalid="ignore", divide="ignore"):
                return Column(FieldType.FLOAT, np.sqrt(state("m2") / (counts - 1)), valid)
    value = states.columns[f"{position}:value"]
    return Column(value.type, value.values, valid)
