"""Statements that change the metadata, as commands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from dsdbd.cluster.messages import LeaveRequest, encode
from dsdbd.cluster.statements import standing
from dsdbd.cluster.statements.passwords import hash_password, verify_password
from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.meta import commands, views
from dsdbd.meta.state import Privilege

if TYPE_CHECKING:
    from dsdbd.cluster.statements.context import StatementContext

log = structlog.get_logger("metadata")
_PRIVILEGES = {
    ast.Privilege.NONE: Privilege.NONE,
    ast.Privilege.READ: Privilege.READ,
    ast.Privilege.WRITE: Privilege.WRITE,
    ast.Privilege.ALL: Privilege.ALL,
}
CHANGES = (
    ast.CreateDatabase,
    ast.DropDatabase,
    ast.CreateRetentionPolicy,
    ast.AlterRetentionPolicy,
    ast.DropRetentionPolicy,
    ast.CreateUser,
    ast.DropUser,
    ast.SetPassword,
    ast.Grant,
    ast.GrantAdmin,
    ast.Revoke,
    ast.RevokeAdmin,
    ast.DropServer,
    ast.DropShard,
    *standing.CHANGES,
)
"""The statements that ``change`` carries out."""


async def change(statement: ast.Statement, context: StatementContext) -> None:
    """Carry out a statement of ``CHANGES``; this node's metadata includes it on return.

    Raises MetaRefused, MembershipRefused, NoLeader or OutcomeUnknown.
    """
    if isinstance(statement, ast.DropServer):
        await _drop_server(statement, context)
        return
    command = await _command(statement, context)
    if command is not None:
        await context.node.metadata.propose(command)
    log.info("metadata changed", statement=type(statement).__name__, name=getattr(statement, "name", ""))


async def _command(statement: ast.Statement, context: StatementContext) -> commands.Command | None:
    """The command of a statement; None when the state is already what the statement asks for."""
    match statement:
        case ast.CreateDatabase():
            return _create_database(statement, context)
        case ast.DropDatabase(name):
            return commands.DropDatabase(name)
        case ast.CreateRetentionPolicy():
            return commands.CreateRetentionPolicy(
                statement.database,
                statement.name,
                statement.duration_ns,
                statement.replication,
                statement.shard_duration_ns or 0,
                statement.default,
            )
        case ast.AlterRetentionPolicy():
            return commands.UpdateRetentionPolicy(
                statement.database,
                statement.name,
                statement.duration_ns,
                statement.replication,
                statement.shard_duration_ns,
                statement.default,
            )
        case ast.DropRetentionPolicy(name, database):
            return commands.DropRetentionPolicy(database, name)
        case ast.DropShard(shard_id):
            return commands.DropShard(shard_id)
        case _ if isinstance(statement, standing.CHANGES):
            return standing.command_of(statement, context)
        case _:
            return await _user_command(statement, context)


def _create_database(statement: ast.CreateDatabase, context: StatementContext) -> commands.CreateDatabase:
    meta, options = context.node.config.meta, statement.policy
    spec = None
    if options is not None:
        spec = commands.PolicySpec(options.name, options.duration_ns, options.replication, options.shard_duration_ns)
    return commands.CreateDatabase(
        statement.name, spec, meta.retention_autocreate, meta.retention_autocreate_max_replicas
    )


async def _user_command(statement: ast.Statement, context: StatementContext) -> commands.Command | None:
    state = context.node.metadata.state
    match statement:
        case ast.CreateUser(name, password, admin):
            known = state.users.get(name)
            same = known is not None and known.admin == admin
            # The same user with the same password again is no error, although the hash would differ.
            if same and known is not None and await asyncio.to_thread(verify_password, password, known.hash):
                return None
            return commands.CreateUser(name, await asyncio.to_thread(hash_password, password), admin)
        case ast.SetPassword(name, password):
            views.user(state, name)
            return commands.UpdateUser(name, await asyncio.to_thread(hash_password, password))
        case ast.DropUser(name):
            return commands.DropUser(name)
        case ast.Grant(privilege, database, user):
            return commands.SetPrivilege(user, database, _PRIVILEGES[privilege])
        case ast.Revoke(privilege, database, user):
            return commands.RevokePrivilege(user, database, _PRIVILEGES[privilege])
        case ast.GrantAdmin(user):
            return commands.SetAdminPrivilege(user, admin=True)
        case ast.RevokeAdmin(user):
            return commands.SetAdminPrivilege(user, admin=False)
        case _:
            raise RequestError(f"{type(statement).__name__} is not a change of the metadata")


async def _drop_server(statement: ast.DropServer, context: StatementContext) -> None:
    if statement.node_id <= 0:
        raise RequestError("node id must be greater than 0")
    request = LeaveRequest(statement.node_id, statement.role.value.lower(), statement.force)
    await context.membership.leave(encode(request), forwarded=False)
