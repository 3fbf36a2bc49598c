"""Field types, continuous queries and subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec.structs import replace

from dsdbd.meta.commands import FieldConflict, FieldTypesAre
from dsdbd.meta.edit import need_database, need_policy, with_database, with_policy
from dsdbd.meta.refusals import fixed, subscription_url_invalid
from dsdbd.meta.state import ContinuousQuery, Subscription

if TYPE_CHECKING:
    from dsdbd.meta.commands import (
        CreateContinuousQuery,
        CreateFields,
        CreateSubscription,
        DropContinuousQuery,
        DropMeasurementSchema,
        DropSubscription,
        RecordContinuousQueryRuns,
    )
    from dsdbd.meta.edit import Applied, Context
    from dsdbd.meta.state import FieldTypes, MetaState

SUBSCRIPTION_SCHEMES = ("http", "https", "udp")


def create_fields(state: MetaState, command: CreateFields, _context: Context) -> Applied:
    """Fix the types of new fields and tell those of all fields asked for."""
    database, policy = need_policy(state, command.database, command.policy)
    changes: dict[str, FieldTypes] = {}
    held: dict[str, FieldTypes] = {}
    conflicts: list[FieldConflict] = []
    for measurement, asked in command.fields.items():
        known = policy.schema.get(measurement) or {}
        holds = {field: known.get(field, kind) for field, kind in asked.items()}
        held[measurement] = holds
        conflicts += [
            FieldConflict(measurement, field, kind, holds[field])
            for field, kind in asked.items()
            if holds[field] is not kind
        ]
        new = {field: kind for field, kind in asked.items() if field not in known}
        if new:
            changes[measurement] = {**known, **new}
    if changes:
        policy = replace(policy, schema=policy.schema.with_items(changes))
        state = with_database(state, with_policy(database, policy))
    return state, FieldTypesAre(held, tuple(conflicts))


def drop_measurement_schema(state: MetaState, command: DropMeasurementSchema, _context: Context) -> Applied:
    """Forget a measurement's field types, so that they can be fixed anew."""
    database = need_database(state, command.database)
    changed = database
    for policy in database.policies.values():
        schema = policy.schema.without(command.measurement)
        if schema is not policy.schema:
            changed = with_policy(changed, replace(policy, schema=schema))
    if changed is database:
        return state, None
    return with_database(state, changed), None


def create_continuous_query(state: MetaState, command: CreateContinuousQuery, _context: Context) -> Applied:
    """Store a continuous query under a name that is free or already means the same."""
    database = need_database(state, command.database)
    existing = database.continuous_queries.get(command.name)
    if existing is not None:
        if existing.query.lower() != command.query.lower():
            raise fixed("continuous_query_exists")
        return state, None
    queries = {**database.continuous_queries, command.name: ContinuousQuery(command.name, command.query)}
    return with_database(state, replace(database, continuous_queries=queries)), None


def drop_continuous_query(state: MetaState, command: DropContinuousQuery, _context: Context) -> Applied:
    """Forget a continuous query."""
    database = state.databases.get(command.database)
    if database is None or command.name not in database.continuous_queries:
        return state, None
    queries = {name: query for name, query in database.continuous_queries.items() if name != command.name}
    return with_database(state, replace(database, continuous_queries=queries)), None


def record_continuous_query_runs(state: MetaState, command: RecordContinuousQueryRuns, _context: Context) -> Applied:
    """Store how far continuous queries have come; what the newest run says counts, also after a clock was set back."""
    for run in command.runs:
        database = state.databases.get(run.database)
        query = None if database is None else database.continuous_queries.get(run.name)
        if database is None or query is None or query.last_run_ns == run.last_run_ns:
            continue
        queries = {**database.continuous_queries, run.name: replace(query, last_run_ns=run.last_run_ns)}
        state = with_database(state, replace(database, continuous_queries=queries))
    return state, None


def create_subscription(state: MetaState, command: CreateSubscription, _context: Context) -> Applied:
    """Add a subscription to a policy."""
    for url in command.destinations:
        if not _is_destination(url):
            raise subscription_url_invalid(url)
    database, policy = need_policy(state, command.database, command.policy)
    if any(subscription.name == command.name for subscription in policy.subscriptions):
        raise fixed("subscription_exists")
    added = Subscription(command.name, command.mode, command.destinations)
    policy = replace(policy, subscriptions=(*policy.subscriptions, added))
    return with_database(state, with_policy(database, policy)), None


def drop_subscription(state: MetaState, command: DropSubscription, _context: Context) -> Applied:
    """Remove a subscription from a policy."""
    database, policy = need_policy(state, command.database, command.policy)
    left = tuple(subscription for subscription in policy.subscriptions if subscription.name != command.name)
    if len(left) == len(policy.subscriptions):
        raise fixed("subscription_not_found")
    return with_database(state, with_policy(database, replace(policy, subscriptions=left))), None


def _is_destination(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in SUBSCRIPTION_SCHEMES and bool(parts.hostname) and bool(parts.port)
    except ValueError:  # a port that is no number, brackets that do not close
        return False
