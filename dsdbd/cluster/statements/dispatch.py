"""From a statement to its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, TypeAlias

from dsdbd.cluster import deletes
from dsdbd.cluster.explain import explain
from dsdbd.cluster.into import Into, default_policy, named_select, written_rows
from dsdbd.cluster.statements.context import StatementContext, rows_of
from dsdbd.cluster.statements.ddl import CHANGES, change
from dsdbd.cluster.statements.queries import kill_query, show_queries
from dsdbd.cluster.statements.repairs import show_repairs
from dsdbd.cluster.statements.schema import show_schema
from dsdbd.cluster.statements.server import show_diagnostics, show_stats
from dsdbd.cluster.statements.standing import located
from dsdbd.errors import RequestError
from dsdbd.influxql import ast, ast_show
from dsdbd.meta import rows
from dsdbd.query import AnswerPart, SeriesRows

if TYPE_CHECKING:
    from dsdbd.meta.state import MetaState


BY_POST = (*CHANGES, ast.DropSeries, ast.DropMeasurement)
"""Statements of which a GET request is told that they belong into a POST; InfluxDB 1.x does not say so of DELETE."""
Series: TypeAlias = Iterator[SeriesRows] | AsyncGenerator[AnswerPart, None]


async def execute(statement: ast.Statement, context: StatementContext) -> Series:
    """Carry out a statement and give its rows; a plain iterator may do work and is meant for a worker thread.

    The asynchronous one of a SELECT gives part after part, and is closed when it is not used to its end.

    Raises DSDBError; a statement this version does not carry out raises RequestError that names it.
    """
    if isinstance(statement, CHANGES):
        await change(statement, context)
        return iter(())
    if isinstance(statement, ast.Delete | ast.DropSeries):
        await deletes.delete(context.node, context.writes, context.database, statement, context.now_ns)
        return iter(())
    if isinstance(statement, ast.DropMeasurement):
        await deletes.drop_measurement(context.node, context.writes, context.database, statement.name)
        return iter(())
    if isinstance(statement, ast.Select):
        if statement.target is not None:
            return iter([written_rows(await _into(statement, context))])
        return await context.reads.select(_named(statement, context), context.now_ns, context.cancelled)
    if isinstance(statement, ast.Explain):
        return iter([await _explain(statement, context)])
    if isinstance(statement, ast_show.ShowQueries):
        return iter([await show_queries(context.node)])
    if isinstance(statement, ast_show.ShowRepairs):
        return iter([await show_repairs(context.node)])
    if isinstance(statement, ast.KillQuery):
        await kill_query(context.node, statement.query_id, statement.host)
        return iter(())
    if isinstance(statement, ast_show.SchemaStatement):
        return await show_schema(statement, context)
    return iter(_show_metadata(statement, context))


def by_post(statement: ast.Statement, context: StatementContext) -> ast.Statement | None:
    """The statement as a GET request is told that it belongs into a POST; None where it does not."""
    if isinstance(statement, ast.Select) and statement.target is not None:
        return _named(statement, context)
    if isinstance(statement, ast.CreateContinuousQuery):
        return located(statement, context)
    return statement if isinstance(statement, BY_POST) else None


def _named(statement: ast.Select, context: StatementContext) -> ast.Select:
    policy_of = default_policy(context.node, context.database, context.policy)
    return named_select(statement, context.database, policy_of)


async def _explain(statement: ast.Explain, context: StatementContext) -> SeriesRows:
    return await explain(
        context.node,
        context.reads,
        _named(statement.statement, context),
        context.now_ns,
        context.cancelled,
        analyze=statement.analyze,
    )


async def _into(statement: ast.Select, context: StatementContext) -> int:
    return await Into(context.node, context.reads, context.writes).run(
        statement,
        database=context.database,
        policy=context.policy,
        now_ns=context.now_ns,
        cancelled=context.cancelled,
    )


def _show_metadata(statement: ast.Statement, context: StatementContext) -> list[SeriesRows]:
    state = context.node.metadata.state
    match statement:
        case ast_show.ShowStats(module):
            return show_stats(context, module)
        case ast_show.ShowDiagnostics(module):
            return show_diagnostics(context, module)
        case ast_show.ShowDatabases():
            return [rows_of(_visible_databases(state, context.user))]
        case ast_show.ShowRetentionPolicies(database):
            return [rows_of(rows.show_retention_policies(state, context.database_or(database)))]
        case ast_show.ShowServers():
            return [rows_of(table) for table in rows.show_servers(state)]
        case ast_show.ShowShards():
            return [rows_of(table) for table in rows.show_shards(state)]
        case ast_show.ShowShardGroups():
            return [rows_of(rows.show_shard_groups(state))]
        case ast_show.ShowUsers():
            return [rows_of(rows.show_users(state))]
        case ast_show.ShowGrants(user):
            return [rows_of(rows.show_grants(state, user))]
        case ast_show.ShowContinuousQueries():
            return [rows_of(table) for table in rows.show_continuous_queries(state)]
        case ast_show.ShowSubscriptions():
            return [rows_of(table) for table in rows.show_subscriptions(state)]
        case _:
            raise RequestError(f"{_words(statement)} is not supported yet")


def _visible_databases(state: MetaState, user: str | None) -> rows.Table:
    """All databases, or those on which a user who is no administrator has a privilege."""
    table = rows.show_databases(state)
    known = None if user is None else state.users.get(user)
    if known is None or known.admin:
        return table
    return table._replace(rows=[row for row in table.rows if known.privileges.get(str(row[0]))])


def _words(statement: ast.Statement) -> str:
    """The words a statement begins with, for an error: ``ShowQueries`` as ``SHOW QUERIES``."""
    name = type(statement).__name__
    return "".join(" " + char if char.isupper() and position else char for position, char in enumerate(name)).upper()
