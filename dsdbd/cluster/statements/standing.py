"""Continuous queries and subscriptions: what the statements about them mean as commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dsdbd import query
from dsdbd.errors import NotFound
from dsdbd.influxql import ast
from dsdbd.influxql.format import to_text
from dsdbd.meta import commands, views
from dsdbd.meta.state import SubscriptionMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.cluster.statements.context import StatementContext
    from dsdbd.meta.state import MetaState

CHANGES = (ast.CreateContinuousQuery, ast.DropContinuousQuery, ast.CreateSubscription, ast.DropSubscription)
"""The statements that ``command_of`` translates."""


def command_of(statement: ast.Statement, context: StatementContext) -> commands.Command | None:
    """The command of a statement of ``CHANGES``; None for any other. Raises NotFound or RequestError."""
    match statement:
        case ast.CreateContinuousQuery(name, database):
            named = located(statement, context)
            return commands.CreateContinuousQuery(database, name, to_text(named))
        case ast.DropContinuousQuery(name, database):
            return commands.DropContinuousQuery(database, name)
        case ast.CreateSubscription(name, database, policy, mode, destinations):
            return commands.CreateSubscription(database, policy, name, SubscriptionMode(mode), destinations)
        case ast.DropSubscription(name, database, policy):
            return commands.DropSubscription(database, policy, name)
    return None


def located(statement: ast.CreateContinuousQuery, context: StatementContext) -> ast.CreateContinuousQuery:
    """The statement with database and policy of every measurement, the target's too, as it is stored and shown.

    What is not named is the statement's database and the policy of the request, or the default one of the moment: a
    later change of the default does not move what a continuous query reads and writes, as in InfluxDB 1.x.
    """
    state, database = context.node.metadata.state, statement.database

    def default_policy(name: str) -> str:
        return context.policy or views.policy(state, name).name

    select = query.normalise(statement.source, database, default_policy)
    target = select.target
    if target is not None:
        owner = target.database or database
        views.database(state, owner)
        policy = target.retention_policy or default_policy(owner)
        select = replace(select, target=replace(target, database=owner, retention_policy=policy))
    for place in _measurements(select):
        _check_policy(state, place)
    return replace(statement, source=select)


def _measurements(select: ast.Select) -> Iterator[ast.Measurement]:
    """Every measurement of a SELECT: its target first, then what it reads at any depth."""
    if select.target is not None:
        yield select.target
    for source in select.sources:
        if isinstance(source, ast.SubQuery):
            yield from _measurements(source.statement)
        else:
            yield source


def _check_policy(state: MetaState, place: ast.Measurement) -> None:
    assert place.database is not None
    views.database(state, place.database)
    try:
        views.policy(state, place.database, place.retention_policy)
    except NotFound:
        raise NotFound(f"retention policy not found: {place.database}.{place.retention_policy}") from None
