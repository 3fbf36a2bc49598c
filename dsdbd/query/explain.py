"""Plans in words, for EXPLAIN: one line for each thing that a reader may wonder about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dsdbd.influxql.durations import format_duration
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS, format_rfc3339nano
from dsdbd.query.plan_derived import bounds, is_derived
from dsdbd.query.plan_nested import NestedPlan
from dsdbd.query.plan_types import CallPlan, MeasurementPlan, SelectPlan, SourcePlan
from dsdbd.query.schema import MeasurementSchema
from dsdbd.query.slices import divide
from dsdbd.query.slicing import Ask, Density

_INDENT = "  "


def plan_lines(
    nested: NestedPlan,
    schemas: Mapping[tuple[str, str], Mapping[str, MeasurementSchema]],
    shards: Mapping[tuple[str, str], Sequence[str]],
) -> Iterator[str]:
    """A plan and, indented, those of its subqueries; ``shards``: a line for each shard of a (database, policy)."""
    plan = nested.plan
    yield f"columns: {', '.join(column.name for column in plan.columns)}"
    if plan.calls:
        yield f"computes: {', '.join(map(_call_text, plan.calls))}"
    carried = [f"{ref.name}::{ref.type}" for ref in plan.refs if ref.type != "unknown"]
    if carried:
        yield f"{'carries along' if plan.calls else 'reads'}: {', '.join(carried)}"
    yield f"time: {_range_text(*bounds(plan))}"
    yield from _group_lines(plan)
    if not plan.sources:
        yield "nothing is read: no name of the select list is a field"
    elif not nested.inner:
        yield f"asked: {_division_text(plan, schemas)}"
    for source in plan.sources:
        if not is_derived(source.database):
            yield from _source_lines(plan, source, schemas, shards.get((source.database, source.policy), ()))
    for number, inner in enumerate(nested.inner):
        if not nested.reads(number):
            yield f"subquery {number + 1}: not read"
            continue
        filtered = any(_is_filtered(plan, number))
        yield f"subquery {number + 1}: its rows are read here{', those that WHERE holds for' if filtered else ''}"
        for line in plan_lines(inner, schemas, shards):
            yield _INDENT + line


def _is_filtered(plan: SelectPlan, number: int) -> Iterator[bool]:
    for source in plan.sources:
        if is_derived(source.database) and source.policy == str(number):
            for measurement in source.measurements:
                yield measurement.filter is not None


def _call_text(call: CallPlan) -> str:
    text = call.ref.name if call.function == "raw" else f"{call.function}({call.ref.name})"
    for transform in call.transforms:
        text = f"{transform.name}({text})"
    return text


def _group_lines(plan: SelectPlan) -> Iterator[str]:
    parts = []
    if plan.interval_ns and plan.calls:
        parts.append(f"time({format_duration(plan.interval_ns)}) fill({plan.fill})")
    parts += plan.dimensions
    if parts:
        yield f"group by: {', '.join(parts)}"
    cut = [(name, value) for name in ("limit", "offset", "slimit", "soffset") if (value := getattr(plan, name))]
    if cut:
        yield ", ".join(f"{name} {value}" for name, value in cut)


def _division_text(plan: SelectPlan, schemas: Mapping[tuple[str, str], Mapping[str, MeasurementSchema]]) -> str:
    step = next(divide(plan, schemas), None)
    if not isinstance(step, Ask):
        return "nothing, because no shard has rows in this time"
    if step.groups or step.plan != plan:
        return "part after part, as the client reads"
    return "at once" if not step.most_rows else f"at once, or part after part above {step.most_rows} rows"


def _source_lines(
    plan: SelectPlan,
    source: SourcePlan,
    schemas: Mapping[tuple[str, str], Mapping[str, MeasurementSchema]],
    shards: Sequence[str],
) -> Iterator[str]:
    yield f"source {source.database}.{source.policy}: {len(source.measurements)} measurements, {len(shards)} shards"
    for measurement in source.measurements:
        extents = schemas[source.database, source.policy][measurement.name].extents
        rows = round(Density(extents, *bounds(plan)).rows)
        yield f"{_INDENT}{measurement.name}: about {rows} rows{_condition_text(measurement)}"
    for line in shards:
        yield _INDENT + line


def _condition_text(measurement: MeasurementPlan) -> str:
    parts = []
    if measurement.predicate != ["and"]:
        parts.append("series chosen by tags")
    if measurement.filter is not None:
        parts.append("rows filtered")
    return f" before WHERE, {', '.join(parts)}" if parts else ""


def _range_text(low_ns: int, high_ns: int) -> str:
    low = "the first" if low_ns <= MIN_TIME_NS else format_rfc3339nano(low_ns)
    high = "the last" if high_ns >= MAX_TIME_NS else format_rfc3339nano(high_ns)
    return f"{low} to {high}"
