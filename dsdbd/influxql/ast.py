"""The syntax tree of InfluxQL 1.x: immutable values, one class per statement and per kind of expression.

Conventions: an absent name is ``None``; durations and times are int64 nanoseconds (``_ns``); a limit or offset of 0
means "not given", as in InfluxDB 1.x. ``dsdbd.influxql.format.to_text`` prints any node in its normal form.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

# --- expressions


class WildcardKind(enum.StrEnum):
    """What a ``*`` stands for: everything, ``*::field`` or ``*::tag``."""

    ANY = ""
    FIELD = "field"
    TAG = "tag"


@dataclass(frozen=True, slots=True)
class VarRef:
    """A field, tag or ``time``; ``type`` is the cast after ``::``.

    Casts are float, integer, unsigned, string, boolean, field and tag.
    """

    name: str
    type: str | None = None


@dataclass(frozen=True, slots=True)
class NumberLiteral:
    """A number with a decimal point."""

    value: float


@dataclass(frozen=True, slots=True)
class IntegerLiteral:
    """A whole number within int64."""

    value: int


@dataclass(frozen=True, slots=True)
class UnsignedLiteral:
    """A whole number above int64 and within uint64."""

    value: int


@dataclass(frozen=True, slots=True)
class StringLiteral:
    """A single-quoted string, without quotes and escapes."""

    value: str


@dataclass(frozen=True, slots=True)
class BooleanLiteral:
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True, slots=True)
class DurationLiteral:
    """A length of time in nanoseconds, such as ``1h30m``."""

    value_ns: int


@dataclass(frozen=True, slots=True)
class TimeLiteral:
    """A point in time in nanoseconds since the epoch; made by reduction, printed as a quoted RFC3339 string."""

    value_ns: int


@dataclass(frozen=True, slots=True)
class RegexLiteral:
    """A regular expression in RE2 syntax, without slashes; ``/`` inside is not escaped here."""

    pattern: str


@dataclass(frozen=True, slots=True)
class ListLiteral:
    """Identifiers in parentheses, the right side of ``WITH KEY IN (…)``."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wildcard:
    """``*``, ``*::field`` or ``*::tag``."""

    kind: WildcardKind = WildcardKind.ANY


@dataclass(frozen=True, slots=True)
class Distinct:
    """``DISTINCT name`` without parentheses; ``distinct(name)`` is a Call."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function call; the name is in lower case."""

    name: str
    args: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class ParenExpr:
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


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement by name or by regex; the name is empty for the back-reference ``:MEASUREMENT`` of INTO."""

    name: str = ""
    regex: RegexLiteral | None = None
    database: str | None = None
    retention_policy: str | None = None

    @property
    def is_back_reference(self) -> bool:
        """True for ``:MEASUREMENT``, which stands for each source's own name."""
        return not self.name and self.regex is None


@dataclass(frozen=True, slots=True)
class SubQuery:
    """A SELECT in parentheses, used as a source."""

    statement: Select


Source: TypeAlias = Measurement | SubQuery


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a SELECT; ``alias`` is what follows AS."""

    expr: Expr
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class SortField:
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


class Statement:
    """Base of every statement."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Select(Statement):
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


@dataclass(frozen=True, slots=True)
class Explain(Statement):
    """EXPLAIN [ANALYZE] SELECT."""

    statement: Select
    analyze: bool = False


@dataclass(frozen=True, slots=True)
class Delete(Statement):
    """DELETE [FROM …] [WHERE …]; at least one of both is given."""

    sources: tuple[Source, ...] = ()
    condition: Expr | None = None


@dataclass(frozen=True, slots=True)
class DropSeries(Statement):
    """DROP SERIES [FROM …] [WHERE …]; at least one of both is given."""

    sources: tuple[Source, ...] = ()
    condition: Expr | None = None


@dataclass(frozen=True, slots=True)
class DropMeasurement(Statement):
    """DROP MEASUREMENT name."""

    name: str


# --- databases and retention policies


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Attributes of CREATE DATABASE … WITH; ``None`` where not given, a duration of 0 is INF."""

    duration_ns: int | None = None
    replication: int | None = None
    shard_duration_ns: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class CreateDatabase(Statement):
    """CREATE DATABASE name [WITH …]."""

    name: str
    policy: PolicyOptions | None = None


@dataclass(frozen=True, slots=True)
class DropDatabase(Statement):
    """DROP DATABASE name."""

    name: str


@dataclass(frozen=True, slots=True)
class CreateRetentionPolicy(Statement):
    """CREATE RETENTION POLICY; a duration of 0 is INF, a shard duration of ``None`` is "choose by the duration"."""

    name: str
    database: str
    duration_ns: int
    replication: int
    shard_duration_ns: int | None = None
    default: bool = False


@dataclass(frozen=True, slots=True)
class AlterRetentionPolicy(Statement):
    """ALTER RETENTION POLICY; what is ``None`` stays as it is."""

    name: str
    database: str
    duration_ns: int | None = None
    replication: int | None = None
    shard_duration_ns: int | None = None
    default: bool = False


@dataclass(frozen=True, slots=True)
class DropRetentionPolicy(Statement):
    """DROP RETENTION POLICY name ON database."""

    name: str
    database: str


# --- nodes and shards


@dataclass(frozen=True, slots=True)
class DropShard(Statement):
    """DROP SHARD id."""

    shard_id: int


class ServerRole(enum.StrEnum):
    """Which registration DROP … SERVER names; ANY is the one that owns the id."""

    ANY = ""
    META = "META"
    DATA = "DATA"


@dataclass(frozen=True, slots=True)
class DropServer(Statement):
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


@dataclass(frozen=True, slots=True)
class CreateUser(Statement):
    """CREATE USER name WITH PASSWORD '…' [WITH ALL PRIVILEGES]."""

    name: str
    password: str
    admin: bool = False


@dataclass(frozen=True, slots=True)
class DropUser(Statement):
    """DROP USER name."""

    name: str


@dataclass(frozen=True, slots=True)
class SetPassword(Statement):
    """SET PASSWORD FOR name = '…'."""

    name: str
    password: str


@dataclass(frozen=True, slots=True)
class Grant(Statement):
    """GRANT privilege ON database TO user."""

    privilege: Privilege
    database: str
    user: str


@dataclass(frozen=True, slots=True)
class GrantAdmin(Statement):
    """GRANT ALL [PRIVILEGES] TO user."""

    user: str


@dataclass(frozen=True, slots=True)
class Revoke(Statement):
    """REVOKE privilege ON database FROM user."""

    privilege: Privilege
    database: str
    user: str


@dataclass(frozen=True, slots=True)
class RevokeAdmin(Statement):
    """REVOKE ALL [PRIVILEGES] FROM user."""

    user: str


# --- continuous queries, subscriptions, running queries


@dataclass(frozen=True, slots=True)
class CreateContinuousQuery(Statement):
    """CREATE CONTINUOUS QUERY; ``resample_*_ns`` are 0 where not given."""

    name: str
    database: str
    source: Select
    resample_every_ns: int = 0
    resample_for_ns: int = 0


@dataclass(frozen=True, slots=True)
class DropContinuousQuery(Statement):
    """DROP CONTINUOUS QUERY name ON database."""

    name: str
    database: str


@dataclass(frozen=True, slots=True)
class CreateSubscription(Statement):
    """CREATE SUBSCRIPTION; mode is ALL or ANY."""

    name: str
    database: str
    retention_policy: str
    mode: str
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DropSubscription(Statement):
    """DROP SUBSCRIPTION name ON database.policy."""

    name: str
    database: str
    retention_policy: str


@dataclass(frozen=True, slots=True)
class KillQuery(Statement):
    """KILL QUERY id [ON host]."""

    query_id: int
    host: str | None = None
