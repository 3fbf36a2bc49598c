"""From scanned rows to the rows of a query without calls."""

from __future__ import annotations

import numpy as np

from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.run_scan import ScannedRows
from dsdbd.query.table import Table, concat_tables, run_lengths, run_starts, sort_table


def raw_table(plan: SelectPlan, rows: ScannedRows) -> Table:
    """Rows in which at least one field of the select list has a value."""
    columns = {f"r{index}": rows.column(ref) for index, ref in enumerate(plan.refs)}
    mask = np.zeros(len(rows.points), dtype=np.bool_)
    for index, ref in enumerate(plan.refs):
        if not ref.is_tag:
            valid = columns[f"r{index}"].valid
            mask = np.ones_like(mask) if valid is None else mask | valid
    if rows.mask is not None:
        mask = mask & rows.mask
    table = rows.table(plan, columns, mask, with_points=True)
    # Groups are numbered in the order of their first series here, and sorted before the rows are.
    return first_rows(plan, sort_table(concat_tables([table]))) if len(table) else table


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
