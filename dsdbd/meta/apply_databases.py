"""Databases and retention policies, with the rules and sentences of InfluxDB 1.x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dsdbd.meta.edit import check_name, need_database, need_policy, resolve_policy, with_database, with_policy
from dsdbd.meta.placement import HOUR_NS, normal_shard_group_duration
from dsdbd.meta.refusals import fixed
from dsdbd.meta.state import AUTOGEN, INTERNAL_DATABASE, Database, RetentionPolicy

if TYPE_CHECKING:
    from dsdbd.meta.commands import (
        CreateDatabase,
        CreateRetentionPolicy,
        DropDatabase,
        DropRetentionPolicy,
        PolicySpec,
        RaiseReplication,
        SetDefaultRetentionPolicy,
        UpdateRetentionPolicy,
    )
    from dsdbd.meta.edit import Applied, Context
    from dsdbd.meta.state import MetaState

MIN_DURATION_NS = HOUR_NS
"""Shortest finite duration of a policy."""


def create_database(state: MetaState, command: CreateDatabase, _context: Context) -> Applied:
    """Create a database with its first policy, or check that it exists as described."""
    check_name(command.name)
    existing = state.databases.get(command.name)
    if command.policy is None:
        if existing is not None:
            return state, None
        return with_database(state, _with_autogen(state, command)), None
    policy = _policy_of_spec(command.policy, _automatic_copies(state, command.name, command.max_replicas))
    if existing is None or not existing.policies:
        _check_durations(policy.duration_ns, policy.shard_group_duration_ns)
        database = with_policy(existing or Database(command.name), policy)
        return with_database(state, replace(database, default_rp=policy.name)), None
    if not _matches(command.policy, policy, existing):
        raise fixed("retention_policy_conflict")
    return state, None


def drop_database(state: MetaState, command: DropDatabase, _context: Context) -> Applied:
    """Forget a database and every privilege on it."""
    if command.name not in state.databases:
        return state, None
    databases = {name: database for name, database in state.databases.items() if name != command.name}
    users = {
        name: replace(user, privileges={db: held for db, held in user.privileges.items() if db != command.name})
        if command.name in user.privileges
        else user
        for name, user in state.users.items()
    }
    return replace(state, databases=databases, users=users), None


def create_retention_policy(state: MetaState, command: CreateRetentionPolicy, _context: Context) -> Applied:
    """Add a policy to a database."""
    check_name(command.name)
    if command.replica_n < 1:
        raise fixed("replication_too_low")
    _check_minimum(command.duration_ns)
    shard_ns = normal_shard_group_duration(command.shard_group_duration_ns, command.duration_ns)
    _check_durations(command.duration_ns, shard_ns)
    database = need_database(state, command.database)
    policy = RetentionPolicy(command.name, command.duration_ns, shard_ns, command.replica_n)
    existing = database.policies.get(command.name)
    if existing is not None:
        if _terms(existing) != _terms(policy):
            raise fixed("retention_policy_exists")
        if command.default and database.default_rp != command.name:
            raise fixed("retention_policy_conflict")
        return state, None
    database = with_policy(database, policy)
    if command.default:
        database = replace(database, default_rp=command.name)
    return with_database(state, database), None


def update_retention_policy(state: MetaState, command: UpdateRetentionPolicy, _context: Context) -> Applied:
    """Change a policy; a shard duration that is not named stays, whatever becomes of the duration."""
    database, policy = need_policy(state, command.database, command.name)
    duration_ns = policy.duration_ns if command.duration_ns is None else command.duration_ns
    asked_ns = command.shard_group_duration_ns
    if command.duration_ns is not None:
        _check_minimum(command.duration_ns)
    if command.replica_n is not None and command.replica_n < 1:
        raise fixed("replication_too_low")
    shard_ns = policy.shard_group_duration_ns
    if asked_ns is not None:
        shard_ns = normal_shard_group_duration(asked_ns, duration_ns)
    if command.duration_ns is not None or asked_ns is not None:
        _check_durations(duration_ns, shard_ns)
    changed = replace(
        policy,
        duration_ns=duration_ns,
        shard_group_duration_ns=shard_ns,
        replica_n=policy.replica_n if command.replica_n is None else command.replica_n,
        replica_auto=policy.replica_auto and command.replica_n is None,
    )
    database = with_policy(database, changed)
    if command.default:
        database = replace(database, default_rp=policy.name)
    return with_database(state, database), None


def raise_replication(state: MetaState, command: RaiseReplication, _context: Context) -> Applied:
    """Raise the numbers of copies that nobody stated to what the data nodes allow."""
    for database in state.databases.values():
        changed = database
        for policy in database.policies.values():
            copies = _automatic_copies(state, database.name, command.cap)
            if policy.replica_auto and policy.replica_n < copies:
                changed = with_policy(changed, replace(policy, replica_n=copies))
        if changed is not database:
            state = with_database(state, changed)
    return state, None


def set_default_retention_policy(state: MetaState, command: SetDefaultRetentionPolicy, _context: Context) -> Applied:
    """Choose the policy for requests that name none."""
    database, policy = need_policy(state, command.database, command.name)
    return with_database(state, replace(database, default_rp=policy.name)), None


def drop_retention_policy(state: MetaState, command: DropRetentionPolicy, _context: Context) -> Applied:
    """Forget a policy. Its name stays the default one's, so that a policy made anew under it is the default again."""
    database = state.databases.get(command.database)
    policy = None if database is None else resolve_policy(database, command.name)
    if database is None or policy is None:
        return state, None
    policies = {name: other for name, other in database.policies.items() if name != policy.name}
    return with_database(state, replace(database, policies=policies)), None


def _with_autogen(state: MetaState, command: CreateDatabase) -> Database:
    database = Database(command.name)
    if not command.autocreate:
        return database
    copies = _automatic_copies(state, command.name, command.max_replicas)
    policy = RetentionPolicy(AUTOGEN, 0, normal_shard_group_duration(0, 0), copies, replica_auto=True)
    return replace(with_policy(database, policy), default_rp=AUTOGEN)


def _automatic_copies(state: MetaState, database_name: str, cap: int) -> int:
    if database_name == INTERNAL_DATABASE:
        return 1
    copies = max(1, len(state.data_nodes))
    return min(copies, cap) if cap > 0 else copies


def _policy_of_spec(spec: PolicySpec, automatic_copies: int) -> RetentionPolicy:
    name = AUTOGEN if spec.name is None else spec.name
    check_name(name)
    duration_ns = spec.duration_ns or 0
    _check_minimum(duration_ns)
    replica_n = automatic_copies if spec.replica_n is None else spec.replica_n
    if replica_n < 1:
        raise fixed("replication_too_low")
    shard_ns = normal_shard_group_duration(spec.shard_group_duration_ns or 0, duration_ns)
    return RetentionPolicy(name, duration_ns, shard_ns, replica_n, replica_auto=spec.replica_n is None)


def _matches(spec: PolicySpec, wanted: RetentionPolicy, database: Database) -> bool:
    """Whether the default policy is the one described; what the description leaves out is not compared."""
    existing = resolve_policy(database, wanted.name)
    if existing is None or existing.name != database.default_rp:
        return False
    if spec.duration_ns is not None and spec.duration_ns != existing.duration_ns:
        return False
    if spec.replica_n is not None and spec.replica_n != existing.replica_n:
        return False
    asked_ns = spec.shard_group_duration_ns or 0
    return normal_shard_group_duration(asked_ns, existing.duration_ns) == existing.shard_group_duration_ns


def _terms(policy: RetentionPolicy) -> tuple[int, int, int]:
    return policy.duration_ns, policy.replica_n, policy.shard_group_duration_ns


def _check_minimum(duration_ns: int) -> None:
    if duration_ns != 0 and duration_ns < MIN_DURATION_NS:
        raise fixed("retention_policy_too_short")


def _check_durations(duration_ns: int, shard_group_duration_ns: int) -> None:
    if 0 < duration_ns < shard_group_duration_ns:
        raise fixed("shard_duration_too_long")
