"""The normal form of the statements other than SELECT; importing this module completes ``format.to_text``."""

from __future__ import annotations

from dsdbd.influxql import ast, ast_show
from dsdbd.influxql.durations import format_duration
from dsdbd.influxql.format import (
    REDACTED,
    group_by_clause,
    limit_clauses,
    order_by_clause,
    quote_identifier,
    quote_string,
    sources_clause,
    to_text,
    where_clause,
)

# --- databases and retention policies


def _policy_attributes(duration_ns: int | None, replication: int | None, shard_duration_ns: int | None) -> str:
    return (
        ("" if duration_ns is None else f" DURATION {format_duration(duration_ns)}")
        + ("" if replication is None else f" REPLICATION {replication}")
        + ("" if shard_duration_ns is None else f" SHARD DURATION {format_duration(shard_duration_ns)}")
    )


@to_text.register
def _(node: ast.CreateDatabase) -> str:
    text = f"CREATE DATABASE {quote_identifier(node.name)}"
    policy = node.policy
    if policy is None:
        return text
    text += " WITH" + _policy_attributes(policy.duration_ns, policy.replication, policy.shard_duration_ns)
    return text if policy.name is None else f"{text} NAME {quote_identifier(policy.name)}"


@to_text.register
def _(node: ast.DropDatabase) -> str:
    return f"DROP DATABASE {quote_identifier(node.name)}"


@to_text.register
def _(node: ast.CreateRetentionPolicy) -> str:
    return (
        f"CREATE RETENTION POLICY {quote_identifier(node.name)} ON {quote_identifier(node.database)}"
        + _policy_attributes(node.duration_ns, node.replication, node.shard_duration_ns)
        + (" DEFAULT" if node.default else "")
    )


@to_text.register
def _(node: ast.AlterRetentionPolicy) -> str:
    return (
        f"ALTER RETENTION POLICY {quote_identifier(node.name)} ON {quote_identifier(node.database)}"
        + _policy_attributes(node.duration_ns, node.replication, node.shard_duration_ns)
        + (" DEFAULT" if node.default else "")
    )


@to_text.register
def _(node: ast.DropRetentionPolicy) -> str:
    return f"DROP RETENTION POLICY {quote_identifier(node.name)} ON {quote_identifier(node.database)}"


# --- deletion, shards, nodes


@to_text.register
def _(node: ast.Delete) -> str:
    return "DELETE" + sources_clause(node.sources) + where_clause(node.condition)


@to_text.register
def _(node: ast.DropSeries) -> str:
    return "DROP SERIES" + sources_clause(node.sources) + where_clause(node.condition)


@to_text.register
def _(node: ast.DropMeasurement) -> str:
    return f"DROP MEASUREMENT {quote_identifier(node.name)}"


@to_text.register
def _(node: ast.DropShard) -> str:
    return f"DROP SHARD {node.shard_id}"


@to_text.register
def _(node: ast.DropServer) -> str:
    role = f"{node.role} " if node.role else ""
    return f"DROP {role}SERVER {node.node_id}{' FORCE' if node.force else ''}"


# --- users


@to_text.register
def _(node: ast.CreateUser) -> str:
    admin = " WITH ALL PRIVILEGES" if node.admin else ""
    return f"CREATE USER {quote_identifier(node.name)} WITH PASSWORD {REDACTED}{admin}"


@to_text.register
def _(node: ast.DropUser) -> str:
    return f"DROP USER {quote_identifier(node.name)}"


@to_text.register
def _(node: ast.SetPassword) -> str:
    return f"SET PASSWORD FOR {quote_identifier(node.name)} = {REDACTED}"


@to_text.register
def _(node: ast.Grant) -> str:
    return f"GRANT {node.privilege} ON {quote_identifier(node.database)} TO {quote_identifier(node.user)}"


@to_text.register
def _(node: ast.GrantAdmin) -> str:
    return f"GRANT ALL PRIVILEGES TO {quote_identifier(node.user)}"


@to_text.register
def _(node: ast.Revoke) -> str:
    return f"REVOKE {node.privilege} ON {quote_identifier(node.database)} FROM {quote_identifier(node.user)}"


@to_text.register
def _(node: ast.RevokeAdmin) -> str:
    return f"REVOKE ALL PRIVILEGES FROM {quote_identifier(node.user)}"


# --- continuous queries, subscriptions, running queries


@to_text.register
def _(node: ast.CreateContinuousQuery) -> str:
    every = f"EVERY {format_duration(node.resample_every_ns)} " if node.resample_every_ns else ""
    until = f"FOR {format_duration(node.resample_for_ns)} " if node.resample_for_ns else ""
    resample = f"RESAMPLE {every}{until}" if every or until else ""
    name, database = quote_identifier(node.name), quote_identifier(node.database)
    return f"CREATE CONTINUOUS QUERY {name} ON {database} {resample}BEGIN {to_text(node.source)} END"


@to_text.register
def _(node: ast.DropContinuousQuery) -> str:
    return f"DROP CONTINUOUS QUERY {quote_identifier(node.name)} ON {quote_identifier(node.database)}"


@to_text.register
def _(node: ast.CreateSubscription) -> str:
    place = f"{quote_identifier(node.database)}.{quote_identifier(node.retention_policy)}"
    destinations = ", ".join(map(quote_string, node.destinations))
    return f"CREATE SUBSCRIPTION {quote_identifier(node.name)} ON {place} DESTINATIONS {node.mode} {destinations}"


@to_text.register
def _(node: ast.DropSubscription) -> str:
    place = f"{quote_identifier(node.database)}.{quote_identifier(node.retention_policy)}"
    return f"DROP SUBSCRIPTION {quote_identifier(node.name)} ON {place}"


@to_text.register
def _(node: ast.KillQuery) -> str:
    return f"KILL QUERY {node.query_id}" + ("" if node.host is None else f" ON {quote_identifier(node.host)}")


@to_text.register
def _(node: ast.Explain) -> str:
    return f"EXPLAIN {'ANALYZE ' if node.analyze else ''}{to_text(node.statement)}"


# --- SHOW


def _on(database: str | None) -> str:
    return "" if database is None else f" ON {quote_identifier(database)}"


def _with_key(node: ast_show.ShowTagValues | ast_show.ShowTagValuesCardinality) -> str:
    key = node.key
    shown = quote_identifier(key.value) if isinstance(key, ast.StringLiteral) else to_text(key)
    return f" WITH KEY {node.op} {shown}"


@to_text.register(ast_show.ShowDatabases)
@to_text.register(ast_show.ShowServers)
@to_text.register(ast_show.ShowShards)
@to_text.register(ast_show.ShowShardGroups)
@to_text.register(ast_show.ShowUsers)
@to_text.register(ast_show.ShowQueries)
@to_text.register(ast_show.ShowRepairs)
@to_text.register(ast_show.ShowContinuousQueries)
@to_text.register(ast_show.ShowSubscriptions)
def _(node: ast.Statement) -> str:
    words = {
        ast_show.ShowDatabases: "DATABASES",
        ast_show.ShowServers: "SERVERS",
        ast_show.ShowShards: "SHARDS",
        ast_show.ShowShardGroups: "SHARD GROUPS",
        ast_show.ShowUsers: "USERS",
        ast_show.ShowQueries: "QUERIES",
        ast_show.ShowRepairs: "REPAIRS",
        ast_show.ShowContinuousQueries: "CONTINUOUS QUERIES",
        ast_show.ShowSubscriptions: "SUBSCRIPTIONS",
    }
    return f"SHOW {words[type(node)]}"


@to_text.register
def _(node: ast_show.ShowGrants) -> str:
    return f"SHOW GRANTS FOR {quote_identifier(node.user)}"


@to_text.register
def _(node: ast_show.ShowStats) -> str:
    return "SHOW STATS" + ("" if node.module is None else f" FOR {quote_string(node.module)}")


@to_text.register
def _(node: ast_show.ShowDiagnostics) -> str:
    return "SHOW DIAGNOSTICS" + ("" if node.module is None else f" FOR {quote_string(node.module)}")


@to_text.register
def _(node: ast_show.ShowRetentionPolicies) -> str:
    return "SHOW RETENTION POLICIES" + _on(node.database)


@to_text.register
def _(node: ast_show.ShowMeasurements) -> str:
    source = ""
    if node.source is not None:
        source = f" WITH MEASUREMENT {'=' if node.source.regex is None else '=~'} {to_text(node.source)}"
    return (
        f"SHOW MEASUREMENTS{_on(node.database)}{source}"
        + where_clause(node.condition)
        + order_by_clause(node.sort)
        + limit_clauses(node.limit, node.offset)
    )


@to_text.register
def _(node: ast_show.ShowSeries) -> str:
    return (
        f"SHOW SERIES{_on(node.database)}{sources_clause(node.sources)}"
        + where_clause(node.condition)
        + order_by_clause(node.sort)
        + limit_clauses(node.limit, node.offset)
    )


@to_text.register
def _(node: ast_show.ShowTagKeys) -> str:
    return (
        f"SHOW TAG KEYS{_on(node.database)}{sources_clause(node.sources)}"
        + where_clause(node.condition)
        + order_by_clause(node.sort)
        + limit_clauses(node.limit, node.offset, node.slimit, node.soffset)
    )


@to_text.register
def _(node: ast_show.ShowTagValues) -> str:
    return (
        f"SHOW TAG VALUES{_on(node.database)}{sources_clause(node.sources)}{_with_key(node)}"
        + where_clause(node.condition)
        + order_by_clause(node.sort)
        + limit_clauses(node.limit, node.offset)
    )


@to_text.register
def _(node: ast_show.ShowFieldKeys) -> str:
    return (
        f"SHOW FIELD KEYS{_on(node.database)}{sources_clause(node.sources)}"
        + order_by_clause(node.sort)
        + limit_clauses(node.limit, node.offset)
    )


@to_text.register
def _(node: ast_show.ShowSeriesCardinality) -> str:
    return _cardinality("SERIES", node)


@to_text.register
def _(node: ast_show.ShowMeasurementCardinality) -> str:
    return _cardinality("MEASUREMENT", node)


@to_text.register
def _(node: ast_show.ShowTagKeyCardinality) -> str:
    return _cardinality("TAG KEY", node)


@to_text.register
def _(node: ast_show.ShowFieldKeyCardinality) -> str:
    return _cardinality("FIELD KEY", node)


@to_text.register
def _(node: ast_show.ShowTagValuesCardinality) -> str:
    return _cardinality("TAG VALUES", node, _with_key(node))


def _cardinality(
    what: str,
    node: ast_show.ShowSeriesCardinality
    | ast_show.ShowMeasurementCardinality
    | ast_show.ShowTagKeyCardinality
    | ast_show.ShowFieldKeyCardinality
    | ast_show.ShowTagValuesCardinality,
    key: str = "",
) -> str:
    exact = " EXACT" if node.exact else ""
    return (
        f"SHOW {what}{exact} CARDINALITY{_on(node.database)}{sources_clause(node.sources)}{key}"
        + where_clause(node.condition)
        + group_by_clause(node.dimensions)
        + limit_clauses(node.limit, node.offset)
    )
