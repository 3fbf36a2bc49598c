"""The SHOW statements of InfluxQL 1.x; ``dsdbd.influxql.ast`` describes the conventions.

``database`` is what follows ON, ``None`` where it is left out and the request's database counts.
"""

from __future__ import annotations

from typing import TypeAlias

from dsdbd.influxql.ast import Expr, ListLiteral, Measurement, RegexLiteral, SortField, Source, Statement, StringLiteral


class ShowDatabases(Statement, frozen=True):
    """SHOW DATABASES."""


class ShowServers(Statement, frozen=True):
    """SHOW SERVERS."""


class ShowShards(Statement, frozen=True):
    """SHOW SHARDS."""


class ShowShardGroups(Statement, frozen=True):
    """SHOW SHARD GROUPS."""


class ShowUsers(Statement, frozen=True):
    """SHOW USERS."""


class ShowQueries(Statement, frozen=True):
    """SHOW QUERIES."""


class ShowRepairs(Statement, frozen=True):
    """SHOW REPAIRS, a statement of DSDB only."""


class ShowContinuousQueries(Statement, frozen=True):
    """SHOW CONTINUOUS QUERIES."""


class ShowSubscriptions(Statement, frozen=True):
    """SHOW SUBSCRIPTIONS."""


class ShowGrants(Statement, frozen=True):
    """SHOW GRANTS FOR user."""

    user: str


class ShowStats(Statement, frozen=True):
    """SHOW STATS [FOR 'module']."""

    module: str | None = None


class ShowDiagnostics(Statement, frozen=True):
    """SHOW DIAGNOSTICS [FOR 'module']."""

    module: str | None = None


class ShowRetentionPolicies(Statement, frozen=True):
    """SHOW RETENTION POLICIES [ON database]."""

    database: str | None = None


class ShowMeasurements(Statement, frozen=True):
    """SHOW MEASUREMENTS [ON] [WITH MEASUREMENT = name | =~ /regex/] [WHERE] [ORDER BY] [LIMIT] [OFFSET]."""

    database: str | None = None
    source: Measurement | None = None
    condition: Expr | None = None
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0


class ShowSeries(Statement, frozen=True):
    """SHOW SERIES [ON] [FROM] [WHERE] [ORDER BY] [LIMIT] [OFFSET]."""

    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0


class ShowTagKeys(Statement, frozen=True):
    """SHOW TAG KEYS [ON] [FROM] [WHERE] [ORDER BY] [LIMIT] [OFFSET] [SLIMIT] [SOFFSET]."""

    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0
    slimit: int = 0
    soffset: int = 0


class ShowTagValues(Statement, frozen=True):
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


class ShowFieldKeys(Statement, frozen=True):
    """SHOW FIELD KEYS [ON] [FROM] [ORDER BY] [LIMIT] [OFFSET]."""

    database: str | None = None
    sources: tuple[Source, ...] = ()
    sort: tuple[SortField, ...] = ()
    limit: int = 0
    offset: int = 0


class ShowSeriesCardinality(Statement, frozen=True):
    """SHOW SERIES [EXACT] CARDINALITY [ON] [FROM] [WHERE] [GROUP BY] [LIMIT] [OFFSET]."""

    exact: bool = False
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


class ShowMeasurementCardinality(Statement, frozen=True):
    """SHOW MEASUREMENT [EXACT] CARDINALITY [ON] [FROM] [WHERE] [GROUP BY] [LIMIT] [OFFSET]."""

    exact: bool = False
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


class ShowTagKeyCardinality(Statement, frozen=True):
    """SHOW TAG KEY [EXACT] CARDINALITY [ON] [FROM] [WHERE] [GROUP BY] [LIMIT] [OFFSET]."""

    exact: bool = False
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


class ShowFieldKeyCardinality(Statement, frozen=True):
    """SHOW FIELD KEY [EXACT] CARDINALITY [ON] [FROM] [WHERE] [GROUP BY] [LIMIT] [OFFSET]."""

    exact: bool = False
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


class ShowTagValuesCardinality(Statement, frozen=True):
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
