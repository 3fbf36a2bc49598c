"""What a statement and its subqueries give each other: names upwards, time range, grouping and order downwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from dsdbd.model.types import FieldType
from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.schema import MeasurementSchema

_DERIVED = ""
"""No database has this name."""


def derived_place(number: int) -> tuple[str, str]:
    """What stands for (database, policy) of a statement's subquery of this number, from 0."""
    return _DERIVED, str(number)


def is_derived(database: str) -> bool:
    """Whether a source of a plan is a subquery."""
    return database == _DERIVED


def condition_schema(schema: MeasurementSchema, dimensions: Iterable[str]) -> MeasurementSchema:
    """How WHERE reads the names of a subquery: its columns, and every tag that its rows are grouped by."""
    titles = schema.derived.titles if schema.derived is not None else frozenset()
    names = {*schema.fields, *titles, *schema.tags, *dimensions}
    return MeasurementSchema(dict.fromkeys(names, FieldType.STRING), frozenset())


@dataclass(frozen=True, slots=True)
class Outer:
    """What a subquery takes over from the statement around it; times are inclusive."""

    min_ns: int
    max_ns: int
    interval_ns: int
    offset_ns: int
    dimensions: tuple[str, ...]
    ascending: bool

    @staticmethod
    def of(plan: SelectPlan) -> Outer:
        """What a plan hands on, the lead of its transformations included."""
        low, high = bounds(plan)
        tags = {*plan.dimensions, *(tag for call in plan.calls for tag in call.apart if tag)}
        return Outer(low, high, plan.interval_ns, plan.offset_ns, tuple(sorted(tags)), plan.ascending)

    def with_own(self, dimensions: Iterable[str]) -> list[str]:
        """What a subquery with these tags in its GROUP BY is grouped by."""
        return sorted({*dimensions, *self.dimensions})

    def handed_on(self, plan: SelectPlan) -> SelectPlan:
        """The plan of a subquery, which is grouped by ``with_own`` already, with what else it takes over.

        Empty buckets would be rows without values, so they are left out: only values that fill() makes count.
        """
        own = plan.interval_ns > 0
        return replace(
            plan,
            min_ns=max(plan.min_ns, self.min_ns),
            max_ns=min(plan.max_ns, self.max_ns),
            interval_ns=plan.interval_ns if own else self.interval_ns,
            offset_ns=plan.offset_ns if own else self.offset_ns,
            ascending=self.ascending,
            fill="none" if plan.calls and plan.fill == "null" else plan.fill,
        )


def bounds(plan: SelectPlan) -> tuple[int, int]:
    """The inclusive time range a plan reads, the lead of its transformations included."""
    ranges = [plan.call_range(call) for call in plan.calls] or [(plan.min_ns, plan.max_ns)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)
