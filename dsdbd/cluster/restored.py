"""What a restore changes in the metadata: commands that make databases, policies, types and users where missing. Pure.

What is there already stays as it is, so that a restore may be repeated and never takes anything away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dsdbd.cluster.archive import DatabaseEntry, UserEntry
from dsdbd.errors import RequestError
from dsdbd.meta import commands
from dsdbd.meta.edit import resolve_policy
from dsdbd.meta.state import AUTOGEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.cluster.archive import Policy
    from dsdbd.meta.state import MetaState, RetentionPolicy


class Preparation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /cluster/restore``: what shall exist before points are sent.

    ``new_database``: the name a single database gets; empty for its own. Continuous queries and subscriptions are made
    only under the old name, because they name databases.
    """

    databases: list[DatabaseEntry]
    users: list[UserEntry] = []
    new_database: str = ""


class Prepared(msgspec.Struct, frozen=True):
    """Its answer: sentences about what was made, and what was found and differs."""

    made: list[str]
    kept: list[str]


class Compared(msgspec.Struct, frozen=True):
    """Of rows of a backup, how many the cluster lacks, and how many it has deleted with a newer version."""

    missing: int = 0
    deleted: int = 0


def target_name(wanted: Preparation, database: DatabaseEntry) -> str:
    """The name a database of the backup has in the cluster. Raises RequestError."""
    if not wanted.new_database:
        return database.name
    if len(wanted.databases) != 1:
        raise RequestError("a new name can be given to one database only: name the database to restore")
    return wanted.new_database


def needed_database(
    state: MetaState, name: str, database: DatabaseEntry, max_replicas: int
) -> commands.CreateDatabase | None:
    """The command that makes a database; None where it exists.

    An automatic ``autogen`` comes with it, so that its number of copies follows this cluster's size, not the old one's.
    """
    if name in state.databases:
        return None
    automatic = any(_is_automatic(policy) for policy in database.policies)
    return commands.CreateDatabase(name, None, automatic, max_replicas)


def needed_policy(
    state: MetaState, name: str, policy: Policy, *, fresh: bool
) -> commands.CreateRetentionPolicy | commands.UpdateRetentionPolicy | None:
    """The command that makes a policy of database ``name``; None where it exists.

    ``fresh``: the database was made for this restore, so its automatic policy takes the durations of the backup's, and
    the backup's default policy is the default.
    """
    found = _resolve(state, name, policy.name)
    if found is None:
        return commands.CreateRetentionPolicy(
            name,
            policy.name,
            policy.duration_ns,
            policy.replica_n,
            policy.shard_group_duration_ns,
            policy.default and fresh,
        )
    if fresh and differs(found, policy):
        return commands.UpdateRetentionPolicy(
            name, found.name, policy.duration_ns, None, policy.shard_group_duration_ns, policy.default
        )
    return None


def differs(found: RetentionPolicy, policy: Policy) -> bool:
    """Whether a policy keeps points for another time, or in shards of another length, than the backup's."""
    return (found.duration_ns, found.shard_group_duration_ns) != (policy.duration_ns, policy.shard_group_duration_ns)


def field_conflicts(state: MetaState, name: str, policy: Policy) -> list[str]:
    """Sentences about fields that have another type in the cluster: their points could not be stored."""
    found = _resolve(state, name, policy.name)
    if found is None:
        return []
    told = []
    for measurement, fields in policy.fields.items():
        known = found.schema.get(measurement) or {}
        told += [
            f'field "{field}" of measurement "{measurement}" in {name}.{found.name} is {known[field].value}, '
            f"in the backup {kind.value}"
            for field, kind in fields.items()
            if known.get(field, kind) is not kind
        ]
    return told


def standing_commands(
    state: MetaState, database: DatabaseEntry
) -> Iterator[tuple[commands.CreateContinuousQuery | commands.CreateSubscription, str]]:
    """Commands for continuous queries and subscriptions that are missing, each with what it makes."""
    found = state.databases.get(database.name)
    if found is None:
        return
    for query in database.continuous_queries:
        if query.name not in found.continuous_queries:
            command = commands.CreateContinuousQuery(database.name, query.name, query.query)
            yield command, f"continuous query {query.name} on {database.name}"
    for policy in database.policies:
        existing = _resolve(state, database.name, policy.name)
        names = set() if existing is None else {one.name for one in existing.subscriptions}
        for one in policy.subscriptions:
            if one.name not in names:
                yield (
                    commands.CreateSubscription(
                        database.name, policy.name, one.name, one.mode, tuple(one.destinations)
                    ),
                    f"subscription {one.name} on {database.name}.{policy.name}",
                )


def user_commands(state: MetaState, user: UserEntry) -> list[commands.CreateUser | commands.SetPrivilege]:
    """Commands that make a missing user with the old password and privileges; none where the name exists."""
    if user.name in state.users:
        return []
    made: list[commands.CreateUser | commands.SetPrivilege] = [commands.CreateUser(user.name, user.hash, user.admin)]
    made += [
        commands.SetPrivilege(user.name, database, privilege)
        for database, privilege in user.privileges.items()
        if database in state.databases
    ]
    return made


def _is_automatic(policy: Policy) -> bool:
    return policy.name == AUTOGEN and policy.replica_auto


def _resolve(state: MetaState, database: str, policy: str) -> RetentionPolicy | None:
    found = state.databases.get(database)
    return None if found is None else resolve_policy(found, policy)
