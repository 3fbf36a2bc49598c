"""Queries with subqueries over in-memory shards, as a cluster runs them: stored parts cross the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsdbd.influxql.ast import Select
from dsdbd.query import (
    Collected,
    MeasurementSchema,
    NestedPlan,
    SeriesBlock,
    ShardReader,
    decode_partial,
    decode_plan,
    derived_place,
    derived_shards,
    encode_partial,
    encode_plan,
    finish,
    plan_nested,
    run_partial,
)

PIECE_ROWS = 3
"""Answers of subqueries are read in pieces of so few rows, so that every query has several."""


def run_nested(
    select: Select,
    schemas: Mapping[tuple[str, str], Mapping[str, MeasurementSchema]],
    nodes: Sequence[Sequence[ShardReader]],
    now_ns: int,
) -> list[SeriesBlock]:
    """The answer of a normalised statement, as blocks."""
    return blocks_of(plan_nested(select, schemas, now_ns), nodes)


def blocks_of(nested: NestedPlan, nodes: Sequence[Sequence[ShardReader]]) -> list[SeriesBlock]:
    plan = decode_plan(encode_plan(nested.plan))
    collected = Collected(plan)
    for shards in nodes:
        part = decode_partial(plan, encode_partial(run_partial(plan, ("d", "autogen"), shards, lambda: False)))
        collected.add(part.states, part.tables)
    for number, inner in enumerate(nested.inner):
        for shard in derived_shards(blocks_of(inner, nodes), inner, number, PIECE_ROWS):
            part = run_partial(plan, derived_place(number), [shard], lambda: False)
            collected.add(part.states, part.tables)
    return list(finish(plan, collected.result()))
