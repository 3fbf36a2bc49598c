"""SELECT with subqueries: the inner ones first, near the data as ever, and their rows here as a source of the outer.

The rows of a subquery come part by part, and each part is folded into what the statement around it needs, so that an
aggregate of many rows holds few of them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dsdbd import query
from dsdbd.limits import SLICE_ROWS
from dsdbd.query import AnswerPart, Collected, NestedPlan, SeriesBlock
from dsdbd.query.select_limits import limit_buckets

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from dsdbd.cluster.reads import Cancellation, ReadPath
    from dsdbd.influxql import ast
    from dsdbd.query import MeasurementSchema

    Schemas = Mapping[tuple[str, str], Mapping[str, MeasurementSchema]]


async def answer(
    reads: ReadPath, statement: ast.Select, now_ns: int, cancelled: Cancellation, most_buckets: int
) -> AsyncGenerator[AnswerPart, None]:
    """The answer of a SELECT with subqueries; arguments and errors are those of ``ReadPath.select``.

    ``most_buckets``: of GROUP BY time in the outermost statement, 0 for any number.
    """
    schemas = await reads.schemas(statement, now_ns, cancelled)
    nested = await cancelled.guard(reads.work(query.plan_nested, statement, schemas, now_ns))
    limit_buckets(nested.plan, most_buckets)
    return parts(reads, nested, schemas, cancelled)


async def parts(
    reads: ReadPath, nested: NestedPlan, schemas: Schemas, cancelled: Cancellation
) -> AsyncGenerator[AnswerPart, None]:
    """The answer of a plan. Raises RequestError when it needs more rows in memory than a node may hold."""
    if not nested.inner:
        async with contextlib.aclosing(await reads.run(query.divide(nested.plan, schemas), cancelled)) as found:
            async for part in found:
                yield part
        return
    collected = Collected(nested.plan)
    stored = nested.stored()
    if stored.sources:
        partial = await reads.asked(query.Ask(stored), cancelled)
        assert partial is not None
        collected.add(partial.states, partial.tables)
    for number, inner in enumerate(nested.inner):
        if not nested.reads(number):
            continue
        async with contextlib.aclosing(parts(reads, inner, schemas, cancelled)) as found:
            async for part in found:
                blocks = [rows for rows in part.series if isinstance(rows, SeriesBlock)]
                await cancelled.guard(reads.work(fold, collected, number, inner, blocks, cancelled))
    yield AnswerPart(await cancelled.guard(reads.work(_finished, collected, cancelled)))


def fold(
    collected: Collected, number: int, inner: NestedPlan, blocks: Sequence[SeriesBlock], cancelled: Cancellation
) -> None:
    """Take rows of a subquery into what the statement around it has so far. Blocks; for a worker thread."""
    for shard in query.derived_shards(blocks, inner, number, SLICE_ROWS):
        partial = query.run_partial(collected.plan, query.derived_place(number), [shard], cancelled)
        collected.add(partial.states, partial.tables)


def _finished(collected: Collected, cancelled: Cancellation) -> list[SeriesBlock]:
    return list(query.finish(collected.plan, collected.result(), cancelled))
