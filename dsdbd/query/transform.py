"""Functions of a sequence: derivative, difference, moving average and their kin, over whole tables at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dsdbd.model.columns import Bools, Column
from dsdbd.model.types import FieldType
from dsdbd.query.averages import indicator
from dsdbd.query.holt_winters import forecasts
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_check_calls import FORECASTS, INDICATORS
from dsdbd.query.plan_types import SelectPlan, Transform
from dsdbd.query.run import never_cancelled
from dsdbd.query.table import Table

_SECOND_NS = 1_000_000_000
_ONE_POINT_PER_TIME = frozenset({"derivative", "non_negative_derivative", "difference", "non_negative_difference"})


def apply_transform(
    plan: SelectPlan, transform: Transform, table: Table, cancelled: Callable[[], bool] = never_cancelled
) -> Table:
    """The transformed table; rows come group by group in the direction of the answer, and go so.

    Rows without a value are left out. Of points at one time derivative and difference see only the first.
    Raises QueryCancelled soon after ``cancelled`` has returned True, where it takes long.
    """
    value = table.columns["value"]
    if value.valid is not None:
        table = table.where(value.valid)
        value = table.columns["value"]
        value = Column(value.type, value.values)
        table = table.with_columns({"value": value})
    if transform.name in _ONE_POINT_PER_TIME:
        table = table.take(run_starts(table.group, table.time))
    if transform.name == "cumulative_sum":
        return _cumulative_sum(table)
    if transform.name in FORECASTS:
        return forecasts(plan, transform, table, cancelled)
    if transform.name in INDICATORS:
        return indicator(transform, table)
    if transform.name == "moving_average":
        return _moving_average(table, transform.arg)
    return _differences(plan, transform, table)


def _same_group(table: Table) -> Bools:
    """For each row but the first, whether its predecessor is of the same group."""
    same: Bools = table.group[1:] == table.group[:-1]
    return same


def _differences(plan: SelectPlan, transform: Transform, table: Table) -> Table:
    if len(table) < 2:
        return table.take(np.zeros(0, dtype=np.int64)).with_columns({"value": _empty(transform, table)})
    keep = _same_group(table)
    elapsed_ns = table.time[1:] - table.time[:-1]
    rows = table.take(np.arange(1, len(table)))
    values = table.columns["value"].values
    if transform.name == "elapsed":
        unit = transform.arg or 1
        column = Column(FieldType.INTEGER, np.fix(elapsed_ns / unit).astype(np.int64) if unit > 1 else elapsed_ns)
    elif "difference" in transform.name:
        column = Column(table.columns["value"].type, values[1:] - values[:-1])
    else:
        unit = transform.arg or plan.interval_ns or _SECOND_NS
        change = (values[1:] - values[:-1]).astype(np.float64)
        with np.errstate(all="ignore"):
            column = Column(FieldType.FLOAT, change / (np.abs(elapsed_ns) / unit))
    if transform.name.startswith("non_negative"):
        keep = keep & ~(column.values < 0)  # what is no number stays, as in InfluxDB 1.x
    return rows.with_columns({"value": column}).where(keep)


def _empty(transform: Transform, table: Table) -> Column:
    if transform.name == "elapsed":
        return Column.missing(FieldType.INTEGER, 0)
    return Column.missing(table.columns["value"].type if "difference" in transform.name else FieldType.FLOAT, 0)


def _moving_average(table: Table, window: int) -> Table:
    starts = run_starts(table.group)
    place = np.arange(len(table)) - np.repeat(starts, run_lengths(starts, len(table)))
    ends = np.flatnonzero(place >= window - 1)
    if len(ends) == 0:
        return table.take(ends).with_columns({"value": Column.missing(FieldType.FLOAT, 0)})
    values = table.columns["value"].values
    means = sliding_window_view(values, window)[ends - (window - 1)].sum(axis=1) / window
    odd = ~np.isfinite(values)
    if bool(odd.any()):
        # InfluxDB 1.x adds and subtracts at one sum, which does not come back from what is no number.
        before = np.concatenate([[0], np.cumsum(odd)])
        group_starts = ends - place[ends]
        means[before[ends - (window - 1)] > before[group_starts]] = np.nan
    return table.take(ends).with_columns({"value": Column(FieldType.FLOAT, means)})


def _cumulative_sum(table: Table) -> Table:
    starts = run_starts(table.group)
    value = table.columns["value"]
    # A running sum restarts at each group; subtracting one global sum from another would lose digits.
    parts = [np.cumsum(part) for part in np.split(value.values, starts[1:])]
    return table.with_columns({"value": Column(value.type, np.concatenate(parts))})
