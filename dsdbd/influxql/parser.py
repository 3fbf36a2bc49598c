"""From the text of a query to its statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias, Union

from dsdbd.errors import QueryParseError
from dsdbd.influxql import ast_show as show
from dsdbd.influxql import parser_ddl as ddl
from dsdbd.influxql import parser_show
from dsdbd.influxql.ast import DropDatabase, DropMeasurement, DropShard, DropUser, ServerRole, Statement
from dsdbd.influxql.cursor import PREFIX, Cursor
from dsdbd.influxql.parser_select import parse_select
from dsdbd.limits import MAX_QUERY_CHARS

_Parse: TypeAlias = Callable[[Cursor], Statement]
_Words: TypeAlias = Mapping[str, Union[_Parse, "_Words"]]

_CARDINALITY_OF: Final[Mapping[str, type[parser_show.CardinalityStatement]]] = {
    "FIELD": show.ShowFieldKeyCardinality,
    "MEASUREMENT": show.ShowMeasurementCardinality,
    "TAG": show.ShowTagKeyCardinality,
}


def parse(text: str, params: Mapping[str, object] | None = None) -> tuple[Statement, ...]:
    """Statements of a text in their order; empty ones are skipped.

    Args:
        text: statements separated by semicolons.
        params: values of ``$name``: str, int, float, bool, or a mapping with one of the keys identifier, regex,
            string, float, integer, duration and the value to read as that.

    Raises:
        QueryParseError: with the message of InfluxDB 1.x, ``error parsing query: …``.

    """
    if len(text) > MAX_QUERY_CHARS:
        raise QueryParseError(
            f"{PREFIX}the query has {len(text)} characters, at most {MAX_QUERY_CHARS} are read; split it"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryParseError(f"{PREFIX}the query is not valid text at character {error.start + 1}") from None
    cursor = Cursor(text, params if params is not None else MappingProxyType({}))
    statements: list[Statement] = []
    while True:
        while cursor.accept(";"):
            pass
        if cursor.kind == "EOF":
            return tuple(statements)
        statements.append(_statement(cursor))
        if cursor.kind not in {";", "EOF"}:
            raise cursor.expected(cursor.peek(), ";")


def _statement(cursor: Cursor) -> Statement:
    """Follow the words of a statement to the function that reads the rest of it."""
    words: _Words = _STATEMENTS
    while True:
        word = cursor.kind if cursor.kind != "IDENT" or cursor.quoted else cursor.text.upper()
        found = words.get(word)
        if found is None:
            raise cursor.expected(cursor.peek(), *words)
        cursor.advance()
        if not isinstance(found, Mapping):
            return found(cursor)
        words = found


def _plain(statement: Statement) -> _Parse:
    return lambda _cursor: statement


def _named(kind: Callable[[str], Statement]) -> _Parse:
    return lambda cursor: kind(cursor.identifier())


def _drop_server(role: ServerRole) -> _Parse:
    return lambda cursor: ddl.parse_drop_server(cursor, role)


def _cardinality(of: str) -> _Words:
    kind = _CARDINALITY_OF[of]
    return {
        "EXACT": {"CARDINALITY": lambda cursor: parser_show.parse_cardinality(cursor, kind, exact=True)},
        "CARDINALITY": lambda cursor: parser_show.parse_cardinality(cursor, kind, exact=False),
    }


def _module(kind: Callable[[str | None], Statement]) -> _Parse:
    return lambda cursor: kind(cursor.string() if cursor.accept("FOR") else None)


# The order of the words is the order in which an error lists them: that of InfluxDB 1.x, our own words among them.
_STATEMENTS: Final[_Words] = {
    "SELECT": parse_select,
    "DELETE": ddl.parse_delete,
    "SHOW": {
        "CONTINUOUS": {"QUERIES": _plain(show.ShowContinuousQueries())},
        "DATABASES": _plain(show.ShowDatabases()),
        "DIAGNOSTICS": _module(show.ShowDiagnostics),
        "FIELD": {"KEY": _cardinality("FIELD"), "KEYS": parser_show.parse_show_field_keys},
        "GRANTS": {"FOR": _named(show.ShowGrants)},
        "MEASUREMENT": _cardinality("MEASUREMENT"),
        "MEASUREMENTS": parser_show.parse_show_measurements,
        "QUERIES": _plain(show.ShowQueries()),
        "REPAIRS": _plain(show.ShowRepairs()),
        "RETENTION": {"POLICIES": lambda cursor: show.ShowRetentionPolicies(parser_show.parse_database(cursor))},
        "SERIES": parser_show.parse_show_series,
        "SERVERS": _plain(show.ShowServers()),
        "SHARD": {"GROUPS": _plain(show.ShowShardGroups())},
        "SHARDS": _plain(show.ShowShards()),
        "STATS": _module(show.ShowStats),
        "SUBSCRIPTIONS": _plain(show.ShowSubscriptions()),
        "TAG": {
            "KEY": _cardinality("TAG"),
            "KEYS": parser_show.parse_show_tag_keys,
            "VALUES": parser_show.parse_show_tag_values,
        },
        "USERS": _plain(show.ShowUsers()),
    },
    "CREATE": {
        "CONTINUOUS": {"QUERY": ddl.parse_create_continuous_query},
        "DATABASE": ddl.parse_create_database,
        "USER": ddl.parse_create_user,
        "RETENTION": {"POLICY": ddl.parse_create_policy},
        "SUBSCRIPTION": ddl.parse_create_subscription,
    },
    "DROP": {
        "CONTINUOUS": {"QUERY": ddl.parse_drop_continuous_query},
        "DATA": {"SERVER": _drop_server(ServerRole.DATA)},
        "DATABASE": _named(DropDatabase),
        "MEASUREMENT": _named(DropMeasurement),
        "META": {"SERVER": _drop_server(ServerRole.META)},
        "RETENTION": {"POLICY": ddl.parse_drop_policy},
        "SERIES": ddl.parse_drop_series,
        "SERVER": _drop_server(ServerRole.ANY),
        "SHARD": lambda cursor: DropShard(cursor.unsigned()),
        "SUBSCRIPTION": ddl.parse_drop_subscription,
        "USER": _named(DropUser),
    },
    "EXPLAIN": ddl.parse_explain,
    "GRANT": ddl.parse_grant,
    "REVOKE": ddl.parse_revoke,
    "ALTER": {"RETENTION": {"POLICY": ddl.parse_alter_policy}},
    "SET": {"PASSWORD": {"FOR": ddl.parse_set_password}},
    "KILL": {"QUERY": ddl.parse_kill_query},
}
