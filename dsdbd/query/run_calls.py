"""From scanned rows to states of a plan's calls."""

from __future__ import annotations

from collections.abc import Iterator

from dsdbd.model.columns import Column
from dsdbd.query import aggregates
from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.run_scan import ScannedRows
from dsdbd.query.table import Table


def call_tables(plan: SelectPlan, rows: ScannedRows) -> Iterator[Table]:
    """One table of states per call."""
    for call in plan.calls:
        column = rows.column(call.ref)
        low, high = plan.call_range(call)
        mask = (rows.points.time_ns >= low) & (rows.points.time_ns <= high)
        for other in (column.valid, rows.mask):
            if other is not None:
                mask = mask & other
        with_points = call.function not in ("count", "sum", "mean", "spread")
        columns = {"value": column}
        if plan.selector:
            columns |= {f"r{index}": rows.column(ref) for index, ref in enumerate(plan.refs)}
        table = rows.table(plan, columns, mask, with_points=with_points)
        if len(table):
            value = Column(column.type, table.columns["value"].values)
            series = rows.series_index[mask]
            yield aggregates.partial(call, table.with_columns({**table.columns, "value": value}), series)
        else:
            yield table
