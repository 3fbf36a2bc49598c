"""Raw points of one measurement in slices of groups; a group that is too large by itself goes by slices of time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import groupby
from typing import Any

import msgspec
import numpy as np

from dsdbd.limits import MAX_SLICE_GROUPS
from dsdbd.model.columns import Int64s
from dsdbd.query.groups import GroupKey, GroupSet
from dsdbd.query.ordering import run_starts
from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.run import Partial
from dsdbd.query.slices_raw import SLACK, corrected, is_filtered, row_count, time_slices
from dsdbd.query.slicing import Ask, Density, Emit, Steps


def group_slices(plan: SelectPlan, density: Density, goal_rows: int, *, final: bool = True) -> Steps:
    """The series of one measurement, in the order of the answer.

    SLIMIT and SOFFSET count groups that have rows, in ascending order, whatever the direction of the answer.
    """
    known = yield Ask(msgspec.structs.replace(plan, limit=0, offset=0, slimit=0, soffset=0), groups=True)
    if known is None or known.states is None:
        return
    groups, series = known.states.groups, known.states.counts(0).astype(np.float64)
    each = density.rows / max(float(series.sum()), 1.0)
    if plan.limit and not is_filtered(plan):
        each = min(each, float((plan.limit + plan.offset) * density.parts))
    order = yield from _chosen(plan, groups, goal_rows)
    left = plan.slimit if plan.ascending else 0
    at, share, most = 0, 1.0, MAX_SLICE_GROUPS
    while at < len(order):
        weights = series[order[at : at + min(most, left or most)]] * each
        size = max(int(np.searchsorted(np.cumsum(weights) * share, goal_rows, side="right")), 1)
        part = of_groups(plan, groups, order[at : at + size])
        estimated = float(weights[:size].sum())
        found = None
        if size > 1 or estimated * share <= SLACK * goal_rows:
            found = yield Ask(part, SLACK * goal_rows)
            if found is None and size > 1:
                most = max(size // 4, 1)
                continue
        at += size
        end = final and at == len(order)
        if found is None:
            whole_share = float(series[order[at - 1]]) / float(series.sum())
            present = int((yield from time_slices(part, density, goal_rows, share=whole_share, final=end)))
        else:
            present = len(_keys_in(found))
            share = corrected(share, row_count(found), estimated)
            if present:
                shown = msgspec.structs.replace(part, slimit=left)
                yield Emit(shown, found, last=end or (final and 0 < left <= present))
        if left:
            left -= present
            if left <= 0:
                return
        most = min(most * 4, MAX_SLICE_GROUPS)


def _chosen(plan: SelectPlan, groups: GroupSet, goal_rows: int) -> Generator[Ask | Emit, Partial | None, Int64s]:
    """The groups that may be in the answer, in its order: without those that SOFFSET leaves out.

    In a descending answer SLIMIT is met here too, because its first groups are the last ones that count.
    """
    order = np.arange(len(groups))
    if plan.soffset or (plan.slimit and not plan.ascending):
        needed = plan.soffset if plan.ascending else plan.soffset + plan.slimit
        present, at = yield from _with_rows(plan, groups, needed, goal_rows)
        order = order[at:]
        if plan.slimit and not plan.ascending:
            order = np.array(present[plan.soffset :], dtype=np.int64)
    return order if plan.ascending else order[::-1]


def _with_rows(
    plan: SelectPlan, groups: GroupSet, needed: int, goal_rows: int
) -> Generator[Ask | Emit, Partial | None, tuple[list[int], int]]:
    """The first groups that have a row, in ascending order, and the place behind the last one."""
    present: list[int] = []
    at, most = 0, MAX_SLICE_GROUPS
    while at < len(groups) and len(present) < needed:
        places = np.arange(at, min(at + min(most, needed - len(present)), len(groups)))
        part = msgspec.structs.replace(of_groups(plan, groups, places), limit=1, offset=0)
        found = yield Ask(part, SLACK * goal_rows if len(places) > 1 else 0)
        if found is None:
            most = max(len(places) // 4, 1)
            continue
        keys = _keys_in(found)
        present += [place for place in places.tolist() if groups.key(place) in keys]
        at += len(places)
        most = min(most * 4, MAX_SLICE_GROUPS)
    return present, at


def _keys_in(partial: Partial) -> set[GroupKey]:
    """The groups that have a row."""
    table = partial.tables[0]
    if table is None:
        return set()
    return {table.groups.key(group) for group in table.group[run_starts(table.group)].tolist()}


def of_groups(plan: SelectPlan, groups: GroupSet, places: Int64s) -> SelectPlan:
    """The plan for some groups of one measurement only, all of them: SLIMIT and SOFFSET are left to the caller."""
    chosen = _any_of(plan.dimensions, [groups.key(place).tags for place in places.tolist()])
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
