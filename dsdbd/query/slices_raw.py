"""Raw points of one series of the answer in slices of time."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import msgspec

from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.run import Partial
from dsdbd.query.slicing import Ask, Density, Emit

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
        # An empty slice always widens the next, or a gap would be crossed a nanosecond at a time.
        growth = min(self.goal_rows / rows, _STEP) if rows else _STEP
        self.widest_ns = max(int((abs(until - at) + 1) * growth), 1)
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
