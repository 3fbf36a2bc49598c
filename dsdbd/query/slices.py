"""Divides a SELECT into questions whose answers, one after another, are its answer: big answers in bounded memory.

Everything here is a generator that yields what is to be done next (``slicing.Ask``, ``slicing.Emit``) and is sent what
came of it; it does nothing itself.

Raw points without GROUP BY tags go by slices of time, in the direction of the answer; with GROUP BY tags by groups, and
by slices of time within a group that is too large. A question ends where enough rows have come for LIMIT. How many rows
a slice will have is estimated from what the shards say they hold, and corrected by what the slices before it had.
What is small is asked for at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from dsdbd.limits import SLICE_ROWS, SLICE_VALUES
from dsdbd.model.scan import Extent
from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.schema import MeasurementSchema
from dsdbd.query.slices_buckets import bucket_slices, ends_early
from dsdbd.query.slices_groups import group_slices
from dsdbd.query.slices_raw import SLACK, is_filtered, time_slices
from dsdbd.query.slicing import Ask, Density, Emit, Steps

_TRIED = 16
"""A query whose filters may leave little is first asked for at once where there are up to so many slices of rows."""


def divide(
    plan: SelectPlan, schemas: Mapping[tuple[str, str], Mapping[str, MeasurementSchema]], goal_rows: int = 0
) -> Steps:
    """The steps of a SELECT.

    ``schemas``: those the plan was made from, which say how much there is. ``goal_rows``: rows of a slice, 0 for the
    usual number.
    """
    goal = goal_rows or max(min(SLICE_ROWS, SLICE_VALUES // (len(plan.refs) + 1)), 1)
    if plan.calls and not ends_early(plan):
        yield from _at_once(plan)
        return
    if not plan.calls and plan.fill == "previous":
        # A value is carried on from row to row, across slices too.
        yield from _at_once(plan)
        return
    extents = _extents(plan, schemas)
    if sum(one.rows for of_name in extents.values() for one in of_name) <= goal:
        yield from _at_once(plan)
        return
    densities = {name: Density(of_name, plan.min_ns, plan.max_ns) for name, of_name in extents.items()}
    total = sum(density.rows for density in densities.values())
    if plan.calls:
        yield from _buckets(plan, densities, goal)
        return
    if total <= goal or _promising(plan, total, goal):
        found = yield Ask(plan, SLACK * goal)
        if found is not None:
            yield Emit(plan, found, last=True)
            return
    yield from _raw(plan, densities, goal)


def _at_once(plan: SelectPlan) -> Steps:
    found = yield Ask(plan)
    assert found is not None
    yield Emit(plan, found, last=True)


def _extents(
    plan: SelectPlan, schemas: Mapping[tuple[str, str], Mapping[str, MeasurementSchema]]
) -> dict[str, list[Extent]]:
    """By measurement, in the order of the answer."""
    found: dict[str, list[Extent]] = {}
    for source in plan.sources:
        for measurement in source.measurements:
            schema = schemas[source.database, source.policy][measurement.name]
            found.setdefault(measurement.name, []).extend(schema.extents)
    return dict(sorted(found.items(), reverse=not plan.ascending))


def _promising(plan: SelectPlan, total: float, goal: int) -> bool:
    """Whether the answer may be small although there are many rows."""
    filtered = is_filtered(plan)
    selective = any(m.predicate != ["and"] for source in plan.sources for m in source.measurements)
    if plan.limit and not filtered:
        # Only the first rows of each series are read; there may be few series.
        return bool(plan.dimensions) or selective
    if plan.limit and not plan.dimensions:
        return False
    return (filtered or selective) and total <= _TRIED * goal


def _buckets(plan: SelectPlan, densities: Mapping[str, Density], goal: int) -> Steps:
    if sum(density.rows for density in densities.values()) <= goal:
        yield from _at_once(plan)
        return
    for names, final in _lasts([[name] for name, density in densities.items() if density.parts]):
        yield from bucket_slices(_of_measurements(plan, names), densities[names[0]], final=final)


def _raw(plan: SelectPlan, densities: Mapping[str, Density], goal: int) -> Steps:
    if plan.soffset and not plan.dimensions:
        return  # Each measurement is one series, and SOFFSET leaves it out.
    packs: list[list[str]] = []
    rows = 0.0
    for name, density in densities.items():
        if not density.parts:
            continue
        if not packs or rows + density.rows > goal:
            packs.append([])
            rows = 0.0
        packs[-1].append(name)
        rows += density.rows
    for names, final in _lasts(packs):
        part = _of_measurements(plan, names)
        if sum(densities[name].rows for name in names) <= goal:
            found = yield Ask(part, SLACK * goal)
            if found is not None:
                yield Emit(part, found, last=final)
                continue
        for name in names:
            one = _of_measurements(plan, [name])
            end = final and name == names[-1]
            if plan.dimensions:
                yield from group_slices(one, densities[name], goal, final=end)
            else:
                yield from time_slices(one, densities[name], goal, final=end)


def _lasts(packs: list[list[str]]) -> Iterator[tuple[list[str], bool]]:
    for number, names in enumerate(packs, 1):
        yield names, number == len(packs)


def _of_measurements(plan: SelectPlan, names: list[str]) -> SelectPlan:
    """The plan for some of its measurements."""
    sources = []
    for source in plan.sources:
        kept = [measurement for measurement in source.measurements if measurement.name in names]
        if kept:
            sources.append(msgspec.structs.replace(source, measurements=kept))
    return msgspec.structs.replace(plan, sources=sources)
