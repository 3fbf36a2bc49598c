"""The tables that SHOW statements about metadata print, as InfluxDB 1.x prints them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from dsdbd.meta import views
from dsdbd.meta.state import Privilege

if TYPE_CHECKING:
    from dsdbd.meta.state import MetaState, RetentionPolicy, ShardGroup

Cell = str | int | bool | list[str]

_PRIVILEGE_TEXT = {
    Privilege.NONE: "NO PRIVILEGES",
    Privilege.READ: "READ",
    Privilege.WRITE: "WRITE",
    Privilege.ALL: "ALL PRIVILEGES",
}


class Table(NamedTuple):
    """One series of a result: its name (empty for none), columns and rows."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


def duration_text(duration_ns: int) -> str:
    """A duration as Go prints it: ``0s``, ``168h0m0s``, ``1h30m0s``, ``1.5s``, ``10ms``."""
    if duration_ns < 0:
        return "-" + duration_text(-duration_ns)
    for unit, name in ((1, "ns"), (10**3, "µs"), (10**6, "ms")):
        if 0 < duration_ns < 10**9 and duration_ns < unit * 1000:
            return f"{_decimal(duration_ns, unit)}{name}"
    minutes, rest_ns = divmod(duration_ns, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest_ns, 10**9)}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def time_text(time_ns: int) -> str:
    """An instant as RFC 3339 in UTC, cut to the second."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show_databases(state: MetaState) -> Table:
    """Names of all databases, in order of creation."""
    return Table("databases", ("name",), [(name,) for name in state.databases])


def show_retention_policies(state: MetaState, database_name: str) -> Table:
    """Policies of a database, in order of creation. Raises NotFound."""
    owner = views.database(state, database_name)
    return Table(
        "",
        ("name", "duration", "shardGroupDuration", "replicaN", "default"),
        [
            (
                policy.name,
                duration_text(policy.duration_ns),
                duration_text(policy.shard_group_duration_ns),
                policy.replica_n,
                policy.name == owner.default_rp,
            )
            for policy in owner.policies.values()
        ],
    )


def show_servers(state: MetaState) -> list[Table]:
    """Data nodes, then meta nodes; both tables always, rows sorted by id."""
    columns = ("id", "http_addr", "tcp_addr")
    return [
        Table("data_nodes", columns, [(node.id, node.http_addr, node.tcp_addr) for node in state.data_nodes]),
        Table("meta_nodes", columns, [(node.id, node.http_addr, node.tcp_addr) for node in state.meta_nodes]),
    ]


def show_shards(state: MetaState) -> list[Table]:
    """One table per database; owners are ids of data nodes, ``1,2``."""
    columns = ("id", "database", "retention_policy", "shard_group", "start_time", "end_time", "expiry_time", "owners")
    tables = {name: Table(name, columns, []) for name in state.databases}
    for place in views.all_shards(state):
        owners = ",".join(str(owner) for owner in place.shard.owners)
        where = (place.shard.id, place.database.name, place.policy.name, place.group.id)
        tables[place.database.name].rows.append((*where, *_span(place.policy, place.group), owners))
    return list(tables.values())


def show_shard_groups(state: MetaState) -> Table:
    """Live groups of all databases."""
    columns = ("id", "database", "retention_policy", "start_time", "end_time", "expiry_time")
    rows: list[tuple[Cell, ...]] = [
        (group.id, owner.name, policy.name, *_span(policy, group))
        for owner in state.databases.values()
        for policy in owner.policies.values()
        for group in policy.shard_groups
    ]
    return Table("shard groups", columns, rows)


def show_users(state: MetaState) -> Table:
    """All users, in order of creation."""
    return Table("", ("user", "admin"), [(user.name, user.admin) for user in state.users.values()])


def show_grants(state: MetaState, user_name: str) -> Table:
    """Privileges of one user, sorted by database. Raises NotFound."""
    held = sorted(views.user(state, user_name).privileges.items())
    return Table("", ("database", "privilege"), [(name, _PRIVILEGE_TEXT[privilege]) for name, privilege in held])


def show_continuous_queries(state: MetaState) -> list[Table]:
    """One table per database, also for those without continuous queries."""
    return [
        Table(owner.name, ("name", "query"), [(query.name, query.query) for query in owner.continuous_queries.values()])
        for owner in state.databases.values()
    ]


def show_subscriptions(state: MetaState) -> list[Table]:
    """One table per database that has subscriptions."""
    tables = []
    for owner in state.databases.values():
        rows: list[tuple[Cell, ...]] = [
            (policy.name, subscription.name, subscription.mode.value, list(subscription.destinations))
            for policy in owner.policies.values()
            for subscription in policy.subscriptions
        ]
        if rows:
            tables.append(Table(owner.name, ("retention_policy", "name", "mode", "destinations"), rows))
    return tables


def _span(policy: RetentionPolicy, group: ShardGroup) -> tuple[str, str, str]:
    expiry_ns = group.end_ns + policy.duration_ns
    return time_text(group.start_ns), time_text(group.end_ns), time_text(expiry_ns)


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = len(str(unit)) - 1
    fraction = f"{rest:0{digits}d}".rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)
