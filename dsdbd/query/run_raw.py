"""From scanned rows to the rows of a query without calls."""

from __future__ import annotations

import numpy as np

from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.run_scan import ScannedRows
from dsdbd.query.table import Table, member_keys, sort_table


def raw_table(plan: SelectPlan, rows: ScannedRows, *, whole: bool = False) -> Table:
    """Rows in which at least one field of the select list has a value, or with ``whole`` all of them."""
    columns = {f"r{index}": rows.column(ref) for index, ref in enumerate(plan.refs)}
    series = rows.points.series
    members, of_run = member_keys(series.all_keys, series.numbers[rows.run_series])
    member, group = rows.spread(of_run), rows.spread(rows.run_group)
    bucket = np.zeros(len(rows), dtype=np.int64)
    table = Table(rows.groups, members, group, bucket, rows.time_ns, member, columns)
    some = np.full(len(rows), whole)
    for index, ref in enumerate(plan.refs):
        valid = columns[f"r{index}"].valid
        if not ref.is_tag:
            some = np.ones_like(some) if valid is None else some | valid
    table = table.where(some)
    return first_rows(plan, sort_table(table))


def first_rows(plan: SelectPlan, table: Table) -> Table:
    """Of every group the rows that LIMIT and OFFSET can let through, so that the rest need not travel."""
    if not plan.limit:
        return table
    keep = plan.limit + plan.offset
    starts = run_starts(table.group)
    lengths = run_lengths(starts, len(table))
    if int(lengths.max(initial=0)) <= keep:
        return table
    place = np.arange(len(table)) - np.repeat(starts, lengths)
    if not plan.ascending:
        place = np.repeat(lengths, lengths) - 1 - place
    return table.where(place < keep)
