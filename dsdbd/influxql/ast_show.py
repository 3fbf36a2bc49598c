"""The SHOW statements of InfluxQL 1.x; ``dsdbd.influxql.ast`` describes the conventions.

``database`` is what follows ON, ``None`` where it is left out and the request's database counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from dsdbd.influxql.ast import Expr, ListLiteral, Measurement, RegexLiteral, SortField, Source, Statement, StringLiteral


@dataclass(frozen=True, slots=True)
class ShowDatabases(Statement):
    """SHOW DATABASES."""


@dataclass(frozen=True, slots=True)
class ShowServers(Statement):
    """SHOW SERVERS."""


@dataclass(frozen=True, slots=True)
class ShowShards(Statement):
    """SHOW SHARDS."""


@dataclass(frozen=True, slots=True)
class ShowShardGroups(Statement):
    """SHOW SHARD GROUPS."""


@dataclass(frozen=True, slots=True)
class ShowUsers(Statement):
    """SHOW USERS."""


@dataclass(frozen=True, slots=True)
class ShowQueries(Statement):
    """SHOW QUERIES."""


@dataclass(frozen=True, slots=True)
class ShowContinuousQueries(Statement):
    """SHOW CONTINUOUS QUERIES."""


@dataclass(frozen=True, slots=True)
class ShowSubscriptions(Statement):
    """SHOW SUBSCRIPTIONS."""


@dataclass(frozen=True, slots=True)
class ShowGrants(Statement):
    """SHOW GRANTS FOR user."""

    user: str


@dataclass(frozen=True, slots=True)
class ShowStats(Statement):
    """SHOW STATS [FOR 'module']."""

    module: str | None = None


@dataclass(frozen=True, slots=True)
class ShowDiagnostics(Statement):
    """SHOW DIAGNOSTICS [FOR 'module']."""

    module: str | None = None


@dataclass(frozen=True, slots=True)
class ShowRetentionPolicies(Statement):
    """SHOW RETENTION POLICIES [ON database]."""

    database: str | None = None


@dataclass(frozen=True, slots=True)
class ShowMeasurements(Statement):
    """SHOW MEASUREMENTS [ON] [WITH MEASUREMENT = name | =~ /regex/] [WHERE] [ORDER BY] [LIMIT] [OFFSET]."""

    database: str | None = None
    source: Measurement | None = None
    condition: Expr | None = None
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowSeries(Statement):
    """SHOW SERIES [ON] [FROM] [WHERE] [ORDER BY] [LIMIT] [OFFSET]."""

    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowTagKeys(Statement):
    """SHOW TAG KEYS [ON] [FROM] [WHERE] [ORDER BY] [LIMIT] [OFFSET] [SLIMIT] [SOFFSET]."""

    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0
    slimit: int = 0
    soffset: int = 0


@dataclass(frozen=True, slots=True)
class ShowTagValues(Statement):
    """SHOW TAG VALUES [ON] [FROM] WITH KEY op key [WHERE] [ORDER BY] [LIMIT] [OFFSET].

    ``op`` is ``=``, ``!=`` (key is a StringLiteral), ``=~``, ``!~`` (RegexLiteral) or ``IN`` (ListLiteral).
    """

    op: str
    key: StringLiteral | RegexLiteral | ListLiteral
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowFieldKeys(Statement):
    """SHOW FIELD KEYS [ON] [FROM] [ORDER BY] [LIMIT] [OFFSET]."""

    database: str | None = None
    sources: tuple[Source, ...] = ()
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowSeriesCardinality(Statement):
    """SHOW SERIES [EXACT] CARDINALITY [ON] [FROM] [WHERE] [GROUP BY] [LIMIT] [OFFSET]."""

    exact: bool = False
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowMeasurementCardinality(Statement):
    """SHOW MEASUREMENT [EXACT] CARDINALITY [ON] [FROM] [WHERE] [GROUP BY] [LIMIT] [OFFSET]."""

    exact: bool = False
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowTagKeyCardinality(Statement):
    """SHOW TAG KEY [EXACT] CARDINALITY [ON] [FROM] [WHERE] [GROUP BY] [LIMIT] [OFFSET]."""

    exact: bool = False
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowFieldKeyCardinality(Statement):
    """SHOW FIELD KEY [EXACT] CARDINALITY [ON] [FROM] [WHERE] [GROUP BY] [LIMIT] [OFFSET]."""

    exact: bool = False
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowTagValuesCardinality(Statement):
    """SHOW TAG VALUES [EXACT] CARDINALITY [ON] [FROM] WITH KEY op key [WHERE] [GROUP BY] [LIMIT] [OFFSET]."""

    op: str
    key: StringLiteral | RegexLiteral | ListLiteral
    exact: bool = False
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


FromStatement: TypeAlias = (
    ShowSeries
    | ShowTagKeys
    | ShowTagValues
    | ShowFieldKeys
    | ShowSeriesCardinality
    | ShowMeasurementCardinality
    | ShowTagKeyCardinality
    | ShowTagValuesCardinality
    | ShowFieldKeyCardinality
)
"""Statements with ``sources``."""

SchemaStatement: TypeAlias = ShowMeasurements | FromStatement
"""Statements about what is stored, which shards answer; the others are about the cluster."""
