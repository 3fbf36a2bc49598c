"""Aggregates by time with LIMIT: only the first buckets of the answer are read."""

from __future__ import annotations

from typing import Any

import msgspec

from dsdbd.query.aggregates import kind_of
from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.run import Partial
from dsdbd.query.slicing import Ask, Density, Emit, Steps

_GROWTH = 4


def ends_early(plan: SelectPlan) -> bool:
    """Whether the first buckets can be answered without the rest.

    Not where a bucket's value depends on later ones (transformations, ``fill(linear)``), where points may give a bucket
    no value (``percentile``) or several rows (``top``), nor where there are many groups, each of which ends elsewhere,
    nor by local clocks, where buckets differ in length.
    """
    return (
        bool(plan.interval_ns and plan.limit and plan.calls)
        and not plan.dimensions
        and not plan.timezone
        and plan.fill != "linear"
        and all(not call.transforms and kind_of(plan, call) in ("states", "picked") for call in plan.calls)
    )


def bucket_slices(plan: SelectPlan, density: Density, *, final: bool = True) -> Steps:
    """The answer for one measurement: slices of whole buckets, until each call has rows enough for LIMIT and OFFSET."""
    needed = plan.limit + plan.offset
    width_ns = needed * plan.interval_ns
    at = density.low if plan.ascending else density.high
    held: Partial | None = None
    while True:
        start_ns = plan.window_start(at)
        if plan.ascending:
            first, last = at, min(start_ns + width_ns - 1, density.high)
            ended = last >= density.high
        else:
            first, last = max(start_ns + plan.interval_ns - width_ns, density.low), at
            ended = first <= density.low
        held = yield Ask(msgspec.structs.replace(plan, min_ns=first, max_ns=last), onto=held)
        assert held is not None
        if ended:
            yield Emit(plan, held, last=final)
            return
        shown = plan
        if plan.ascending:
            shown = msgspec.structs.replace(plan, max_ns=last)
        elif plan.bounded_below:
            shown = msgspec.structs.replace(plan, min_ns=first)
        if all(_rows(shown, held, position) >= needed for position in range(len(plan.calls))):
            yield Emit(shown, held, last=final)
            return
        at = last + 1 if plan.ascending else first - 1
        width_ns *= _GROWTH


def _rows(plan: SelectPlan, partial: Partial, position: int) -> int:
    """How many rows one call gives in the time range of the plan, empty buckets that are filled included."""
    buckets = _buckets(plan, partial, position)
    if buckets is None or len(buckets) == 0 or plan.fill == "none":
        return 0 if buckets is None else len(buckets)
    first = plan.window_start(plan.min_ns) if plan.bounded_below else int(buckets.min())
    return int((plan.window_start(plan.max_ns) - first) // plan.interval_ns) + 1


def _buckets(plan: SelectPlan, partial: Partial, position: int) -> Any:
    """Starts of the buckets in which a call has a value."""
    if kind_of(plan, plan.calls[position]) == "states":
        states = partial.states
        return None if states is None else states.bucket[states.counts(position) > 0]
    table = partial.tables[position]
    return None if table is None else table.bucket
