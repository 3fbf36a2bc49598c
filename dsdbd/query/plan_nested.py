"""From a SELECT with subqueries to a plan for each of its statements: names are found from within, ranges from outside.

A subquery is planned twice, as it were. First its names are looked up, which gives the statement around it its columns
and tags; when that one is planned, the subquery gets its plan with the time range, the GROUP BY and the order of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.query.plan import Planner, Schemas, refuse_unsupported
from dsdbd.query.plan_check import check_select, time_dimension
from dsdbd.query.plan_derived import Outer, derived_place, is_derived
from dsdbd.query.plan_fields import simplified
from dsdbd.query.plan_types import CallPlan, Expr, MathCall, Op, OutputColumn, Ref, SelectPlan, Slot

_Entry = TypeVar("_Entry", Ref, CallPlan)


@dataclass(frozen=True, slots=True)
class NestedPlan:
    """The plan of a statement and those of its subqueries.

    ``inner[i]`` belongs to the source whose place is ``derived_place(i)``. ``names``: the names of a subquery's columns
    by which the statement around it knows them, one for each of the plan.
    """

    plan: SelectPlan
    inner: tuple[NestedPlan, ...] = ()
    names: tuple[str, ...] = ()

    def stored(self) -> SelectPlan:
        """The part of the plan that is answered by shards."""
        sources = [source for source in self.plan.sources if not is_derived(source.database)]
        return replace(self.plan, sources=sources)

    def reads(self, number: int) -> bool:
        """Whether the plan reads anything of a subquery."""
        return any((source.database, source.policy) == derived_place(number) for source in self.plan.sources)


def has_subqueries(select: ast.Select) -> bool:
    """Whether a statement needs ``plan_nested``."""
    return any(type(source) is ast.SubQuery for source in select.sources)


def plan_nested(select: ast.Select, schemas: Schemas, now_ns: int) -> NestedPlan:
    """The plans of a normalised SELECT; arguments and errors are those of ``plan_select``."""
    select = simplified(select)
    _check(select, now_ns, interval=False)
    return _planned(_look_up(select, schemas, now_ns), None)


@dataclass(frozen=True, slots=True)
class _Looked:
    """A statement whose names are known, and its subqueries."""

    select: ast.Select
    planner: Planner
    inner: tuple[_Looked, ...]


def _check(select: ast.Select, now_ns: int, *, interval: bool) -> None:
    """Raise what can be said of the statements by themselves; ``interval``: the one around it has one."""
    refuse_unsupported(select)
    own = time_dimension(select.dimensions, now_ns)[0] > 0
    check_select(select, has_interval=own or interval, inherited=interval and not own)
    for source in select.sources:
        if not isinstance(source, ast.SubQuery):
            continue
        inner = source.statement
        if inner.sort and inner.ascending != select.ascending:
            raise RequestError("subqueries must be ordered in the same direction as the query itself")
        if inner.fill is ast.FillKind.NULL and time_dimension(inner.dimensions, now_ns)[0]:
            inner = replace(inner, fill=ast.FillKind.NONE)
        _check(inner, now_ns, interval=own or interval)


def _look_up(select: ast.Select, schemas: Schemas, now_ns: int) -> _Looked:
    inner = tuple(
        _look_up(source.statement, schemas, now_ns) for source in select.sources if isinstance(source, ast.SubQuery)
    )
    planner = Planner(schemas, now_ns, [one.planner.schema() for one in inner])
    planner.look_up(select)
    return _Looked(select, planner, inner)


def _planned(looked: _Looked, outer: SelectPlan | None) -> NestedPlan:
    plan = looked.planner.planned(looked.select, None if outer is None else Outer.of(outer))
    names = looked.planner.names()
    if outer is not None:
        plan, names = _narrowed(_shortened(plan, outer), names, outer)
    return NestedPlan(plan, tuple(_planned(one, plan) for one in looked.inner), names)


def _shortened(plan: SelectPlan, outer: SelectPlan) -> SelectPlan:
    """A subquery of raw points with the rows that LIMIT of a statement around it can let through of each series."""
    some = outer.limit + outer.offset
    if not outer.limit or outer.calls or plan.calls or plan.offset or _is_filtered(outer) or plan.fill == "previous":
        return plan
    return replace(plan, limit=min(plan.limit or some, some))


def _is_filtered(plan: SelectPlan) -> bool:
    return any(m.filter is not None or m.predicate != ["and"] for source in plan.sources for m in source.measurements)


def _narrowed(plan: SelectPlan, names: tuple[str, ...], outer: SelectPlan) -> tuple[SelectPlan, tuple[str, ...]]:
    """A subquery without the columns that nobody reads, where rows without values count for nothing.

    They count for a statement of raw points, and for LIMIT.
    """
    if not outer.calls or (not plan.calls and (plan.limit or plan.offset)):
        return plan, names
    wanted = {ref.name for ref in outer.refs} | {call.ref.name for call in outer.calls}
    for source in outer.sources:
        for measurement in source.measurements:
            wanted.update(measurement.filter_fields)
    titles = [column.name for column in plan.columns]
    kept = [at for at, name in enumerate(names) if name in wanted or titles[at] in wanted]
    if len(kept) == len(names) or not kept:
        return plan, names
    counted = {call.ref.name for call in outer.calls}
    if not plan.calls and any(_is_label(plan, plan.columns[at].expr) for at in kept if names[at] in counted):
        return plan, names  # which rows there are is said by the other columns
    renumbered = _Renumbered(plan)
    columns = [OutputColumn(titles[at], renumbered.expr(plan.columns[at].expr)) for at in kept]
    if plan.calls and not renumbered.calls:
        return plan, names
    return replace(plan, columns=columns, refs=renumbered.refs, calls=renumbered.calls), tuple(names[at] for at in kept)


def _is_label(plan: SelectPlan, expr: Expr) -> bool:
    return isinstance(expr, Slot) and expr.kind == "ref" and plan.refs[expr.index].is_tag


class _Renumbered:
    """Expressions of some columns of a plan, with the references and calls that they use numbered anew."""

    def __init__(self, plan: SelectPlan) -> None:
        self._plan = plan
        self.refs: list[Ref] = []
        self.calls: list[CallPlan] = []

    def expr(self, expr: Expr) -> Expr:
        match expr:
            case Slot("ref", index):
                return Slot("ref", _place(self.refs, self._plan.refs[index]))
            case Slot("call", index):
                return Slot("call", _place(self.calls, self._plan.calls[index]))
            case Op(op, lhs, rhs):
                return Op(op, self.expr(lhs), self.expr(rhs))
            case MathCall(name, args):
                return MathCall(name, [self.expr(arg) for arg in args])
        return expr


def _place(found: list[_Entry], one: _Entry) -> int:
    if one not in found:
        found.append(one)
    return found.index(one)
