"""SHOW statements about what is stored: which databases and retention policies they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from dsdbd import query
from dsdbd.influxql import ast, ast_show
from dsdbd.influxql.format import to_text
from dsdbd.meta import views
from dsdbd.query.show import has_time
from dsdbd.query.show_count import is_estimate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.cluster.statements.context import StatementContext
    from dsdbd.query import SeriesRows

_COUNTS_OF_NOTHING = (ast_show.ShowSeriesCardinality, ast_show.ShowMeasurementCardinality)


class _Scope(NamedTuple):
    """A statement for one database; ``policy`` None is about all of its retention policies."""

    database: str
    policy: str | None
    statement: ast_show.SchemaStatement


async def show_schema(statement: ast_show.SchemaStatement, context: StatementContext) -> Iterator[SeriesRows]:
    """The answer from every shard that the statement is about; an iterator for a worker thread.

    Raises DSDBError.
    """
    state = context.node.metadata.state
    database = context.database_or(statement.database)
    if database not in state.databases:
        # InfluxDB 1.x answers these without a database as if it had no measurements.
        if isinstance(statement, ast_show.ShowMeasurements):
            return iter(())
        if isinstance(statement, _COUNTS_OF_NOTHING) and is_estimate(statement):
            return query.show_finish(statement, [])
    parts: list[bytes] = []
    for scope in _scopes(statement, database, context):
        parts += await context.reads.show(
            to_text(scope.statement), scope.database, context.now_ns, context.cancelled, policy=scope.policy
        )
    return await context.reads.work(query.show_finish, statement, parts)


def _scopes(statement: ast_show.SchemaStatement, database: str, context: StatementContext) -> list[_Scope]:
    """As in InfluxDB 1.x: lists of series and tags are about all policies of a database, unless times limit them.

    Field keys and counts are about the policy that FROM names or else the default one, and about its database.
    Raises NotFound.
    """
    lists_series = isinstance(statement, ast_show.ShowSeries)
    everywhere = isinstance(
        statement, ast_show.ShowMeasurements | ast_show.ShowTagKeys | ast_show.ShowTagValues
    ) or is_estimate(statement)
    if everywhere or isinstance(statement, ast_show.ShowMeasurements):
        return [_Scope(database, None, statement)]
    sources: dict[tuple[str, str | None], list[ast.Source]] = {}
    by_policy = not lists_series or has_time(statement, context.now_ns)
    for source in statement.sources or (ast.Measurement(),):
        assert isinstance(source, ast.Measurement)
        owner = source.database or database
        views.database(context.node.metadata.state, owner)
        policy = views.policy(context.node.metadata.state, owner, source.retention_policy or context.policy or None)
        sources.setdefault((owner, policy.name if by_policy else None), []).append(source)
    return [
        _Scope(owner, named, replace(statement, sources=tuple(found) if statement.sources else ()))
        for (owner, named), found in sources.items()
    ]
