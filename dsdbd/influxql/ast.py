"""The syntax tree of InfluxQL 1.x: immutable values, one class per statement and per kind of expression.

Conventions: an absent name is ``None``; durations and times are int64 nanoseconds (``_ns``); a limit or offset of 0
means "not given", as in InfluxDB 1.x. ``dsdbd.influxql.format.to_text`` prints any node in its normal form.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

# --- expressions


class WildcardKind(enum.StrEnum):
    """What a ``*`` stands for: everything, ``*::field`` or ``*::tag``."""

    ANY = ""
    FIELD = "field"
    TAG = "tag"


class VarRef(msgspec.Struct, frozen=True):
    """A field, tag or ``time``; ``type`` is the cast after ``::``.

    Casts are float, integer, unsigned, string, boolean, field and tag.
    """

    name: str
    type: str | None = None


class NumberLiteral(msgspec.Struct, frozen=True):
    """A number with a decimal point."""

    value: float


class IntegerLiteral(msgspec.Struct, frozen=True):
    """A whole number within int64."""

    value: int


class UnsignedLiteral(msgspec.Struct, frozen=True):
    """A whole number above int64 and within uint64."""

    value: int


class StringLiteral(msgspec.Struct, frozen=True):
    """A single-quoted string, without quotes and escapes."""

    value: str


class BooleanLiteral(msgspec.Struct, frozen=True):
    """``true`` or ``false``."""

    value: bool


class DurationLiteral(msgspec.Struct, frozen=True):
    """A length of time in nanoseconds, such as ``1h30m``."""

    value_ns: int


class TimeLiteral(msgspec.Struct, frozen=True):
    """A point in time in nanoseconds since the epoch; made by reduction, printed as a quoted RFC3339 string."""

    value_ns: int


class RegexLiteral(msgspec.Struct, frozen=True):
    """A regular expression in RE2 syntax, without slashes; ``/`` inside is not escaped here."""

    pattern: str


class ListLiteral(msgspec.Struct, frozen=True):
    """Identifiers in parentheses, the right side of ``WITH KEY IN (…)``."""

    values: tuple[str, ...]


class Wildcard(msgspec.Struct, frozen=True):
    """``*``, ``*::field`` or ``*::tag``."""

    kind: WildcardKind = WildcardKind.ANY


class Distinct(msgspec.Struct, frozen=True):
    """``DISTINCT name`` without parentheses; ``distinct(name)`` is a Call."""

    name: str


class Call(msgspec.Struct, frozen=True):
    """A function call; the name is in lower case."""

    name: str
    args: tuple[Expr, ...] = ()


class ParenExpr(msgspec.Struct, frozen=True):
    """An expression in parentheses."""

    expr: Expr


@dataclass(frozen=True, slots=True)
class BinaryExpr:
    """``lhs op rhs``; op is one of ``+ - * / % & | ^ = != < <= > >= =~ !~ AND OR``."""

    op: str
    lhs: Expr
    rhs: Expr


Literal: TypeAlias = (
    NumberLiteral
    | IntegerLiteral
    | UnsignedLiteral
    | StringLiteral
    | BooleanLiteral
    | DurationLiteral
    | TimeLiteral
    | RegexLiteral
    | ListLiteral
)
Expr: TypeAlias = VarRef | Literal | Wildcard | Distinct | Call | ParenExpr | BinaryExpr


# --- sources and the parts of SELECT


class Measurement(msgspec.Struct, frozen=True):
    """A measurement by name or by regex; the name is empty for the back-reference ``:MEASUREMENT`` of INTO."""

    name: str = ""
    regex: RegexLiteral | None = None
    database: str | None = None
    retention_policy: str | None = None

    @property
    def is_back_reference(self) -> bool:
        """True for ``:MEASUREMENT``, which stands for each source's own name."""
        return not self.name and self.regex is None


class SubQuery(msgspec.Struct, frozen=True):
    """A SELECT in parentheses, used as a source."""

    statement: Select


Source: TypeAlias = Measurement | SubQuery


class Field(msgspec.Struct, frozen=True):
    """One column of a SELECT; ``alias`` is what follows AS."""

    expr: Expr
    alias: str | None = None


class SortField(msgspec.Struct, frozen=True):
    """One part of ORDER BY; the name is empty in ``ORDER BY DESC``."""

    name: str = ""
    ascending: bool = True


class FillKind(enum.StrEnum):
    """What stands in a GROUP BY time() bucket without points."""

    NULL = "null"
    NONE = "none"
    NUMBER = "number"
    PREVIOUS = "previous"
    LINEAR = "linear"


class Statement(msgspec.Struct, frozen=True):
    """Base of every statement."""


class Select(Statement, frozen=True):
    """SELECT; ``dimensions`` are the expressions of GROUP BY, ``timezone`` is the name given to ``tz()``."""

    fields: tuple[Field, ...]
    sources: tuple[Source, ...]
    target: Measurement | None = None
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    fill: FillKind = FillKind.NULL
    fill_value: int | float | None = None
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0
    slimit: int = 0
    soffset: int = 0
    timezone: str | None = None

    @property
    def ascending(self) -> bool:
        """Direction of time in the answer."""
        return not self.sort or self.sort[0].ascending


class Explain(Statement, frozen=True):
    """EXPLAIN [ANALYZE] SELECT."""

    statement: Select
    analyze: bool = False


class Delete(Statement, frozen=True):
    """DELETE [FROM …] [WHERE …]; at least one of both is given."""

    sources: tuple[Source, ...] = ()
    condition: Expr | None = None


class DropSeries(Statement, frozen=True):
    """DROP SERIES [FROM …] [WHERE …]; at least one of both is given."""

    sources: tuple[Source, ...] = ()
    condition: Expr | None = None


class DropMeasurement(Statement, frozen=True):
    """DROP MEASUREMENT name."""

    name: str


# --- databases and retention policies


class PolicyOptions(msgspec.Struct, frozen=True):
    """Attributes of CREATE DATABASE … WITH; ``None`` where not given, a duration of 0 is INF."""

    duration_ns: int | None = None
    replication: int | None = None
    shard_duration_ns: int | None = None
    name: str | None = None


class CreateDatabase(Statement, frozen=True):
    """CREATE DATABASE name [WITH …]."""

    name: str
    policy: PolicyOptions | None = None


class DropDatabase(Statement, frozen=True):
    """DROP DATABASE name."""

    name: str


class CreateRetentionPolicy(Statement, frozen=True):
    """CREATE RETENTION POLICY; a duration of 0 is INF, a shard duration of ``None`` is "choose by the duration"."""

    name: str
    database: str
    duration_ns: int
    replication: int
    shard_duration_ns: int | None = None
    default: bool = False


class AlterRetentionPolicy(Statement, frozen=True):
    """ALTER RETENTION POLICY; what is ``None`` stays as it is."""

    name: str
    database: str
    duration_ns: int | None = None
    replication: int | None = None
    shard_duration_ns: int | None = None
    default: bool = False


class DropRetentionPolicy(Statement, frozen=True):
    """DROP RETENTION POLICY name ON database."""

    name: str
    database: str


# --- nodes and shards


class DropShard(Statement, frozen=True):
    """DROP SHARD id."""

    shard_id: int


class ServerRole(enum.StrEnum):
    """Which registration DROP … SERVER names; ANY is the one that owns the id."""

    ANY = ""
    META = "META"
    DATA = "DATA"


class DropServer(Statement, frozen=True):
    """DROP [META | DATA] SERVER id [FORCE]."""

    node_id: int
    role: ServerRole = ServerRole.ANY
    force: bool = False


# --- users


class Privilege(enum.StrEnum):
    """A right on a database, in the words of GRANT."""

    NONE = "NO PRIVILEGES"
    READ = "READ"
    WRITE = "WRITE"
    ALL = "ALL PRIVILEGES"


class CreateUser(Statement, frozen=True):
    """CREATE USER name WITH PASSWORD '…' [WITH ALL PRIVILEGES]."""

    name: str
    password: str
    admin: bool = False


class DropUser(Statement, frozen=True):
    """DROP USER name."""

    name: str


class SetPassword(Statement, frozen=True):
    """SET PASSWORD FOR name = '…'."""

    name: str
    password: str


class Grant(Statement, frozen=True):
    """GRANT privilege ON database TO user."""

    privilege: Privilege
    database: str
    user: str


class GrantAdmin(Statement, frozen=True):
    """GRANT ALL [PRIVILEGES] TO user."""

    user: str


class Revoke(Statement, frozen=True):
    """REVOKE privilege ON database FROM user."""

    privilege: Privilege
    database: str
    user: str


class RevokeAdmin(Statement, frozen=True):
    """REVOKE ALL [PRIVILEGES] FROM user."""

    user: str


# --- continuous queries, subscriptions, running queries


class CreateContinuousQuery(Statement, frozen=True):
    """CREATE CONTINUOUS QUERY; ``resample_*_ns`` are 0 where not given."""

    name: str
    database: str
    source: Select
    resample_every_ns: int = 0
    resample_for_ns: int = 0


class DropContinuousQuery(Statement, frozen=True):
    """DROP CONTINUOUS QUERY name ON database."""

    name: str
    database: str


class CreateSubscription(Statement, frozen=True):
    """CREATE SUBSCRIPTION; mode is ALL or ANY."""

    name: str
    database: str
    retention_policy: str
    mode: str
    destinations: tuple[str, ...]


class DropSubscription(Statement, frozen=True):
    """DROP SUBSCRIPTION name ON database.policy."""

    name: str
    database: str
    retention_policy: str


class KillQuery(Statement, frozen=True):
    """KILL QUERY id [ON host]."""

    query_id: int
    host: str | None = None
