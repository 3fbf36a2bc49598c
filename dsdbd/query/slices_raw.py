"""Raw points in slices: of time, and of groups."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec
import numpy as np

from dsdbd.limits import MAX_SLICE_GROUPS
from dsdbd.query.groups import GroupKey
from dsdbd.query.ordering import run_starts
from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.run import Partial
from dsdbd.query.slicing import Ask, Density, Emit, Steps

SLACK = 2
"""A slice may turn out larger than it was meant to be by this factor; beyond it, it is asked for again in parts."""
_STEP = 8
"""An estimate is corrected by no more than this factor at a time."""
_SMALLEST_SHARE = 1e-12


@dataclass(slots=True)
class _Width:
    """How long a slice of time may be, learnt from slices that were too large; free as long as none was."""

    goal_rows: int
    widest_ns: int | None = None
    crowd_end: int | None = None
    """The end of the newest stretch that was too large."""
    crowd_rows: int = 0

    def bound(self, at: int, until: int) -> int:
        """The end of a slice from ``at`` that was to end at ``until``, which may be before it."""
        if self.widest_ns is None or abs(until - at) < self.widest_ns:
            return until
        return at + self.widest_ns - 1 if until > at else at - self.widest_ns + 1

    def refused(self, at: int, until: int) -> None:
        """The slice was too large."""
        self.widest_ns = max((abs(until - at) + 1) // _STEP, 1)
        self.crowd_end, self.crowd_rows = until, 0

    def taken(self, at: int, until: int, rows: int) -> None:
        """The slice had so many rows."""
        if self.widest_ns is None:
            return
        self.widest_ns = max(int((abs(until - at) + 1) * min(self.goal_rows / max(rows, 1), _STEP)), 1)
        if self.crowd_end is None:
            return
        self.crowd_rows += rows
        left_ns = (self.crowd_end - until) * (1 if until >= at else -1)
        if left_ns <= 0:
            self.crowd_end = None
        elif self.crowd_rows < self.goal_rows:
            # What is left of the stretch is too large still.
            self.widest_ns = min(self.widest_ns, max(left_ns // 2, 1))


def is_filtered(plan: SelectPlan) -> bool:
    """Whether rows are chosen by more than time and tags."""
    return any(m.filter is not None for source in plan.sources for m in source.measurements)


def row_count(partial: Partial) -> int:
    """Rows of an answer of raw points."""
    table = partial.tables[0]
    return 0 if table is None else len(table)


def corrected(share: float, found: int, estimated: float) -> float:
    """How many rows there are for each that was estimated, after one more slice."""
    seen = found / estimated if estimated > 0 else share
    return max(min(max(seen, share / _STEP), share * _STEP), _SMALLEST_SHARE)


def time_slices(
    plan: SelectPlan, density: Density, goal_rows: int, *, share: float = 1.0, final: bool = True
) -> Generator[Ask | Emit, Partial | None, bool]:
    """A series of the answer by slices of time; returns whether it has any rows before LIMIT and OFFSET.

    ``density``: estimates rows, of which about ``share`` are the plan's. ``final``: nothing follows this series.
    """
    wanted, skip = plan.limit, plan.offset
    eager = bool(plan.limit) and not is_filtered(plan)
    width = _Width(goal_rows)
    some = emitted = False
    at = density.low if plan.ascending else density.high
    while density.low <= at <= density.high:
        goal = min(max(4 * (wanted + skip), goal_rows // 128), goal_rows) if eager else goal_rows
        until = width.bound(at, density.cut(at, goal / share, ascending=plan.ascending))
        first, last = min(at, until), max(at, until)
        # What OFFSET leaves out is known only when all shards' rows are together.
        limit = wanted + skip if plan.limit else 0
        part = msgspec.structs.replace(plan, min_ns=first, max_ns=last, limit=limit, offset=0, slimit=0, soffset=0)
        found = yield Ask(part, SLACK * goal_rows if last > first else 0)
        if found is None:
            width.refused(at, until)
            continue
        rows = row_count(found)
        share = corrected(share, rows, density.between(first, last))
        width.taken(at, until, rows)
        some = some or rows > 0
        ended = until == (density.high if plan.ascending else density.low) or 0 < limit <= rows
        if rows > skip:
            shown = msgspec.structs.replace(part, limit=wanted, offset=skip)
            yield Emit(shown, found, continues=emitted, last=final and ended)
            emitted = True
            wanted -= min(rows - skip, wanted)
        skip = max(skip - rows, 0)
        if ended:
            break
        at = until + 1 if plan.ascending else until - 1
    return some


def group_slices(plan: SelectPlan, density: Density, goal_rows: int, *, final: bool = True) -> Steps:
    """The series of one measurement by groups: several in a slice, and a large one by slices of time."""
    known = yield Ask(msgspec.structs.replace(plan, limit=0, offset=0, slimit=0, soffset=0), groups=True)
    if known is None or known.states is None:
        return
    groups, series = known.states.groups, known.states.counts(0).astype(np.float64)
    each = density.rows / max(float(series.sum()), 1.0)
    if plan.limit and not is_filtered(plan):
        each = min(each, float((plan.limit + plan.offset) * density.parts))
    estimated = series * each
    order = np.arange(len(groups)) if plan.ascending else np.arange(len(groups) - 1, -1, -1)
    at, share, most = 0, 1.0, MAX_SLICE_GROUPS
    skip, left = plan.soffset, plan.slimit
    while at < len(order) and (left > 0 or not plan.slimit):
        weights = estimated[order[at : at + min(most, skip or left or most)]]
        size = max(int(np.searchsorted(np.cumsum(weights) * share, goal_rows, side="right")), 1)
        part = of_groups(plan, [groups.key(place) for place in order[at : at + size].tolist()])
        whole = float(weights[:size].sum())
        if skip:
            # Groups that SOFFSET leaves out count only if they have a row.
            part = msgspec.structs.replace(part, limit=1, offset=0)
        found = None
        if skip or size > 1 or whole * share <= SLACK * goal_rows:
            found = yield Ask(part, 0 if skip and size == 1 else SLACK * goal_rows)
            if found is None and size > 1:
                most = max(size // 4, 1)
                continue
        end = final and at + size == len(order)
        if found is None:
            whole_share = float(series[order[at]]) / float(series.sum())
            present = int((yield from time_slices(part, density, goal_rows, share=whole_share, final=end)))
        else:
            rows = row_count(found)
            present = _groups_in(found)
            if not skip:
                share = corrected(share, rows, whole)
                if rows:
                    shown = msgspec.structs.replace(part, slimit=left)
                    yield Emit(shown, found, last=end or (final and 0 < left <= present))
        if skip:
            skip -= present
        elif plan.slimit:
            left -= present
        at += size
        most = min(most * 4, MAX_SLICE_GROUPS)


def _groups_in(partial: Partial) -> int:
    table = partial.tables[0]
    return 0 if table is None else len(run_starts(table.group))


def of_groups(plan: SelectPlan, keys: Sequence[GroupKey]) -> SelectPlan:
    """The plan for some groups of one measurement only, all of them: SLIMIT and SOFFSET are left to the caller."""
    chosen = _any_of(plan.dimensions, [key.tags for key in keys])
    sources = [
        msgspec.structs.replace(
            source,
            measurements=[
                msgspec.structs.replace(m, predicate=["and", m.predicate, chosen]) for m in source.measurements
            ],
        )
        for source in plan.sources
    ]
    return msgspec.structs.replace(plan, sources=sources, slimit=0, soffset=0)


def _any_of(dimensions: Sequence[str], values: Sequence[tuple[str, ...]]) -> list[Any]:
    """A predicate for series that have one of these combinations of tag values; the order is that of the answer."""
    first, rest = dimensions[0], dimensions[1:]
    if not rest:
        return ["or", *[["=", first, value, False] for (value,) in values]]
    terms = []
    for value, same in groupby(values, key=lambda one: one[0]):
        terms.append(["and", ["=", first, value, False], _any_of(rest, [one[1:] for one in same])])
    return terms[0] if len(terms) == 1 else ["or", *terms]
