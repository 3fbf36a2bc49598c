"""EXPLAIN: the plan of a SELECT and whom it would ask. EXPLAIN ANALYZE: it is carried out, and what that took."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from dsdbd import query
from dsdbd.cluster import nested as nested_reads
from dsdbd.influxql.format import to_text
from dsdbd.limits import MAX_EXPLAINED_SHARDS
from dsdbd.model.columns import Column
from dsdbd.model.times import format_rfc3339nano
from dsdbd.model.types import FieldType
from dsdbd.query import NestedPlan, Partial, SeriesBlock, SeriesRows
from dsdbd.query.plan_derived import is_derived

if TYPE_CHECKING:
    from dsdbd.cluster.cancellation import Cancellation
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.influxql import ast
    from dsdbd.meta.views import ShardPlace
    from dsdbd.query import MeasurementSchema

    Schemas = Mapping[tuple[str, str], Mapping[str, MeasurementSchema]]


@dataclass(slots=True)
class _Asked:
    """What an owner was asked for one kind of request."""

    times: int = 0
    shards: set[int] = field(default_factory=set)
    rows: int = 0
    size_bytes: int = 0
    waited_s: float = 0.0


class _Watch:
    """Takes the time of the requests of one query, by owner and kind."""

    def __init__(self, node: Node) -> None:
        self._clock = node.clock
        self.asked: dict[tuple[int, str], _Asked] = {}

    async def __call__(
        self, owner: int, kind: str, places: Sequence[ShardPlace], asked: Awaitable[bytes | Partial]
    ) -> bytes | Partial:
        start_s = self._clock.monotonic_s()
        result = await asked
        entry = self.asked.setdefault((owner, kind), _Asked())
        entry.times += 1
        entry.waited_s += self._clock.monotonic_s() - start_s
        entry.shards.update(place.shard.id for place in places)
        if isinstance(result, bytes):
            entry.size_bytes += len(result)
        else:
            entry.rows += (0 if result.states is None else len(result.states)) + sum(
                len(table) for table in result.tables if table is not None
            )
        return result


async def explain(
    node: Node, reads: ReadPath, statement: ast.Select, now_ns: int, cancelled: Cancellation, *, analyze: bool
) -> SeriesRows:
    """The lines of EXPLAIN for a SELECT whose sources name database and policy; nothing is written for INTO.

    Raises as ``ReadPath.select`` does.
    """
    clock, watch = node.clock, _Watch(node)
    begun_s = clock.monotonic_s()
    if analyze:
        cancelled.watcher = watch
    schemas = await reads.schemas(statement, now_ns, cancelled)
    looked_s = clock.monotonic_s()
    nested = await cancelled.guard(reads.work(query.plan_nested, statement, schemas, now_ns))
    planned_s = clock.monotonic_s()
    shards = {source: _shard_lines(node, reads, nested, source) for source in _sources(nested)}
    lines = [to_text(statement)]
    if not analyze:
        lines += ["  " + line for line in query.plan_lines(nested, schemas, shards)]
        return _text_rows("QUERY PLAN", lines)
    series, rows, parts = await _carry_out(reads, nested, schemas, cancelled)
    ended_s = clock.monotonic_s()
    lines += [
        f"  total: {_milliseconds(ended_s - begun_s)}",
        f"  looking up fields and tags: {_milliseconds(looked_s - begun_s)}",
        f"  planning: {_milliseconds(planned_s - looked_s)}",
        f"  reading and computing: {_milliseconds(ended_s - planned_s)}",
        f"  answer: {rows} rows of {series} series in {parts} parts",
    ]
    lines += [f"  {_asked_text(node, owner, kind, asked)}" for (owner, kind), asked in sorted(watch.asked.items())]
    lines.append("  plan")
    lines += ["    " + line for line in query.plan_lines(nested, schemas, shards)]
    return _text_rows("EXPLAIN ANALYZE", lines)


async def _carry_out(
    reads: ReadPath, nested: NestedPlan, schemas: Schemas, cancelled: Cancellation
) -> tuple[int, int, int]:
    """Read a whole answer and throw it away; how many series, rows and parts it had."""
    series = rows = parts = 0
    async with contextlib.aclosing(nested_reads.parts(reads, nested, schemas, cancelled)) as found:
        async for part in found:
            parts += 1
            rows += len(part)
            series += sum(len(one.starts) for one in part.series if isinstance(one, SeriesBlock)) - part.continues
    return series, rows, parts


def _sources(nested: NestedPlan) -> set[tuple[str, str]]:
    found = {(s.database, s.policy) for s in nested.plan.sources if not is_derived(s.database)}
    return found.union(*map(_sources, nested.inner))


def _shard_lines(node: Node, reads: ReadPath, nested: NestedPlan, source: tuple[str, str]) -> list[str]:
    """The shards of a source in the time of the outermost statement, each with the node that is asked for it."""
    lines = []
    for owner, places in reads.owners(*source, *query.bounds(nested.plan)).items():
        for place in places:
            group = place.group
            times = f"{format_rfc3339nano(group.start_ns)} to {format_rfc3339nano(group.end_ns)}"
            owners = ", ".join(map(str, place.shard.owners))
            lines.append(f"shard {place.shard.id}, {times}: asked of {_node_text(node, owner)}, owners {owners}")
    more = len(lines) - MAX_EXPLAINED_SHARDS
    return lines if more <= 0 else [*lines[:MAX_EXPLAINED_SHARDS], f"{more} more shards"]


def _node_text(node: Node, owner: int) -> str:
    return f"node {owner} (this one)" if owner == node.data_id else f"node {owner}"


def _asked_text(node: Node, owner: int, kind: str, asked: _Asked) -> str:
    came = f"{asked.size_bytes} bytes came" if asked.size_bytes else f"{asked.rows} partial rows"
    return (
        f"{_node_text(node, owner)}: {kind} asked {asked.times} times of {len(asked.shards)} shards, "
        f"{_milliseconds(asked.waited_s)} in all, {came}"
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}ms"


def _text_rows(title: str, lines: list[str]) -> SeriesRows:
    return SeriesRows("", None, (title,), (Column(FieldType.STRING, pa.array(lines, pa.string())),), time_column=None)
