"""Statements that change metadata or delete data; each function starts after the words that name its statement."""

from __future__ import annotations

from dsdbd.influxql.ast import (
    AlterRetentionPolicy,
    CreateContinuousQuery,
    CreateDatabase,
    CreateRetentionPolicy,
    CreateSubscription,
    CreateUser,
    Delete,
    DropContinuousQuery,
    DropRetentionPolicy,
    DropSeries,
    DropServer,
    DropSubscription,
    Explain,
    Expr,
    Grant,
    GrantAdmin,
    KillQuery,
    Measurement,
    PolicyOptions,
    Privilege,
    Revoke,
    RevokeAdmin,
    Select,
    ServerRole,
    SetPassword,
    Source,
    Statement,
)
from dsdbd.influxql.cursor import Cursor
from dsdbd.influxql.durations import format_duration
from dsdbd.influxql.lexer import Token
from dsdbd.influxql.parser_select import (
    IntoClause,
    contains_call,
    group_by_interval_ns,
    parse_select,
    parse_sources,
    parse_where,
)

_DATABASE_OPTIONS = ("DURATION", "NAME", "REPLICATION", "SHARD")
_POLICY_OPTIONS = ("DURATION", "REPLICATION", "SHARD", "DEFAULT")

# --- databases and retention policies


def parse_create_database(cursor: Cursor) -> CreateDatabase:
    """CREATE DATABASE; the attributes after WITH come in any order, each once, at least one."""
    name = cursor.identifier()
    if not cursor.accept("WITH"):
        return CreateDatabase(name)
    if cursor.peek().kind not in _DATABASE_OPTIONS:
        raise cursor.expected(cursor.peek(), *_DATABASE_OPTIONS)
    given: set[str] = set()
    duration_ns = replication = shard_duration_ns = policy_name = None
    while (kind := _option(cursor, _DATABASE_OPTIONS, given)) is not None:
        if kind == "DURATION":
            duration_ns = cursor.duration()
        elif kind == "REPLICATION":
            replication = cursor.replication()
        elif kind == "SHARD":
            cursor.expect("DURATION")
            shard_duration_ns = cursor.duration()
        else:
            policy_name = cursor.identifier()
    return CreateDatabase(name, PolicyOptions(duration_ns, replication, shard_duration_ns, policy_name))


def parse_create_policy(cursor: Cursor) -> CreateRetentionPolicy:
    """CREATE RETENTION POLICY."""
    name = cursor.identifier()
    cursor.expect("ON")
    database = cursor.identifier()
    cursor.expect("DURATION")
    duration_ns = cursor.duration()
    cursor.expect("REPLICATION")
    replication = cursor.replication()
    shard_duration_ns = _shard_duration(cursor) if cursor.accept("SHARD") else None
    return CreateRetentionPolicy(
        name, database, duration_ns, replication, shard_duration_ns, default=cursor.accept("DEFAULT")
    )


def parse_alter_policy(cursor: Cursor) -> AlterRetentionPolicy:
    """ALTER RETENTION POLICY; attributes in any order, each once, at least one."""
    name = "default" if cursor.accept("DEFAULT") else cursor.identifier()
    cursor.expect("ON")
    database = cursor.identifier()
    if cursor.peek().kind not in _POLICY_OPTIONS:
        raise cursor.expected(cursor.peek(), *_POLICY_OPTIONS)
    given: set[str] = set()
    duration_ns = replication = shard_duration_ns = None
    while (kind := _option(cursor, _POLICY_OPTIONS, given)) is not None:
        if kind == "DURATION":
            duration_ns = cursor.duration()
        elif kind == "REPLICATION":
            replication = cursor.replication()
        elif kind == "SHARD":
            shard_duration_ns = _shard_duration(cursor)
    return AlterRetentionPolicy(name, database, duration_ns, replication, shard_duration_ns, default="DEFAULT" in given)


def parse_drop_policy(cursor: Cursor) -> DropRetentionPolicy:
    """DROP RETENTION POLICY."""
    name = cursor.identifier()
    cursor.expect("ON")
    return DropRetentionPolicy(name, cursor.identifier())


def _option(cursor: Cursor, options: tuple[str, ...], given: set[str]) -> str | None:
    token = cursor.peek()
    if token.kind in given:
        raise cursor.error_at(f"found duplicate {token.kind} option", token.at)
    if token.kind not in options:
        return None
    given.add(token.kind)
    return cursor.take().kind


def _shard_duration(cursor: Cursor) -> int:
    cursor.expect("DURATION")
    token = cursor.peek()
    if token.kind == "INF":
        raise cursor.error_at("invalid duration INF for shard duration", token.at)
    return cursor.duration()


# --- deletion


def parse_delete(cursor: Cursor) -> Delete:
    """DELETE."""
    sources, condition = _deletion(cursor)
    return Delete(sources, condition)


def parse_drop_series(cursor: Cursor) -> DropSeries:
    """DROP SERIES."""
    sources, condition = _deletion(cursor)
    return DropSeries(sources, condition)


def _deletion(cursor: Cursor) -> tuple[tuple[Source, ...], Expr | None]:
    first = cursor.peek()
    sources: tuple[Source, ...] = parse_sources(cursor) if cursor.accept("FROM") else ()
    for source in sources:
        # What is deleted goes from every retention policy of the selected database.
        if isinstance(source, Measurement) and source.retention_policy:
            raise cursor.error_at("retention policy not supported", 0)
        if isinstance(source, Measurement) and source.database:
            raise cursor.error_at("database not supported", 0)
    condition = parse_where(cursor)
    if not sources and condition is None:
        raise cursor.expected(first, "FROM", "WHERE")
    return sources, condition


# --- nodes


def parse_drop_server(cursor: Cursor, role: ServerRole) -> DropServer:
    """The id and FORCE of DROP [META | DATA] SERVER."""
    node_id = cursor.unsigned()
    return DropServer(node_id, role, force=cursor.accept_word("FORCE"))


# --- users


def parse_create_user(cursor: Cursor) -> CreateUser:
    """CREATE USER."""
    name = cursor.identifier()
    cursor.expect("WITH", "PASSWORD")
    password = cursor.string()
    admin = cursor.accept("WITH")
    if admin:
        cursor.expect("ALL", "PRIVILEGES")
    return CreateUser(name, password, admin)


def parse_set_password(cursor: Cursor) -> SetPassword:
    """SET PASSWORD FOR."""
    name = cursor.identifier()
    cursor.expect("=")
    return SetPassword(name, cursor.string())


def parse_grant(cursor: Cursor) -> Statement:
    """GRANT."""
    privilege, token = _privilege(cursor, "TO")
    if token.kind == "TO":
        return GrantAdmin(cursor.identifier())
    database = cursor.identifier()
    cursor.expect("TO")
    return Grant(privilege, database, cursor.identifier())


def parse_revoke(cursor: Cursor) -> Statement:
    """REVOKE."""
    privilege, token = _privilege(cursor, "FROM")
    if token.kind == "FROM":
        return RevokeAdmin(cursor.identifier())
    database = cursor.identifier()
    cursor.expect("FROM")
    return Revoke(privilege, database, cursor.identifier())


def _privilege(cursor: Cursor, user_word: str) -> tuple[Privilege, Token]:
    """A privilege and the word after it: ON, or directly the word before the user, which only ALL allows."""
    token = cursor.peek()
    if token.kind not in {"READ", "WRITE", "ALL"}:
        raise cursor.expected(token, "READ", "WRITE", "ALL [PRIVILEGES]")
    cursor.take()
    everything = token.kind == "ALL"
    if everything:
        cursor.accept("PRIVILEGES")
    allowed = ("ON", user_word) if everything else ("ON",)
    if cursor.peek().kind not in allowed:
        raise cursor.expected(cursor.peek(), *allowed)
    return Privilege.ALL if everything else Privilege(token.kind), cursor.take()


# --- continuous queries, subscriptions, running queries


def parse_create_continuous_query(cursor: Cursor) -> CreateContinuousQuery:
    """CREATE CONTINUOUS QUERY."""
    name = cursor.identifier()
    cursor.expect("ON")
    database = cursor.identifier()
    every_ns, for_ns = _resample(cursor) if cursor.accept("RESAMPLE") else (0, 0)
    cursor.expect("BEGIN", "SELECT")
    source = parse_select(cursor, IntoClause.REQUIRED)
    last = cursor.previous
    interval_ns, problem = 0, None
    try:
        interval_ns = group_by_interval_ns(source)
    except ValueError as error:
        problem = str(error)
    if interval_ns == 0 and _aggregates(source):
        raise cursor.expected(last, "GROUP BY time(...)", *([problem] if problem else []))
    cursor.expect("END")
    if problem:
        raise cursor.error(problem)
    least_ns = max(interval_ns, every_ns)
    if for_ns and least_ns > for_ns:
        raise cursor.error(
            "FOR duration must be >= GROUP BY time duration:"
            f" must be a minimum of {format_duration(least_ns)}, got {format_duration(for_ns)}"
        )
    return CreateContinuousQuery(name, database, source, every_ns, for_ns)


def _aggregates(select: Select) -> bool:
    return any(contains_call(field.expr) for field in select.fields)


def _resample(cursor: Cursor) -> tuple[int, int]:
    every_ns = cursor.duration(infinite=False) if cursor.accept("EVERY") else 0
    for_ns = cursor.duration(infinite=False) if cursor.accept("FOR") else 0
    if not every_ns and not for_ns:
        raise cursor.expected(cursor.peek(), "EVERY", "FOR")
    return every_ns, for_ns


def parse_drop_continuous_query(cursor: Cursor) -> DropContinuousQuery:
    """DROP CONTINUOUS QUERY."""
    name = cursor.identifier()
    cursor.expect("ON")
    return DropContinuousQuery(name, cursor.identifier())


def parse_create_subscription(cursor: Cursor) -> CreateSubscription:
    """CREATE SUBSCRIPTION."""
    name, database, policy = _subscription_name(cursor)
    cursor.expect("DESTINATIONS")
    if cursor.peek().kind not in {"ALL", "ANY"}:
        raise cursor.expected(cursor.peek(), "ALL", "ANY")
    mode = cursor.take().kind
    return CreateSubscription(name, database, policy, mode, cursor.strings())


def parse_drop_subscription(cursor: Cursor) -> DropSubscription:
    """DROP SUBSCRIPTION."""
    name, database, policy = _subscription_name(cursor)
    return DropSubscription(name, database, policy)


def _subscription_name(cursor: Cursor) -> tuple[str, str, str]:
    name = cursor.identifier()
    cursor.expect("ON")
    database = cursor.identifier()
    if not cursor.adjacent("."):
        raise cursor.expected_adjacent(".")
    cursor.take()
    return name, database, cursor.identifier()


def parse_kill_query(cursor: Cursor) -> KillQuery:
    """KILL QUERY."""
    query_id = cursor.unsigned()
    return KillQuery(query_id, cursor.identifier() if cursor.accept("ON") else None)


def parse_explain(cursor: Cursor) -> Explain:
    """EXPLAIN [ANALYZE]."""
    analyze = cursor.accept("ANALYZE")
    cursor.expect("SELECT")
    return Explain(parse_select(cursor), analyze)
