"""The SHOW statements that have clauses; each function starts after the words that name its statement."""

from __future__ import annotations

from typing import TypeAlias

from dsdbd.influxql.ast import ListLiteral, Measurement, RegexLiteral, Source, Statement, StringLiteral
from dsdbd.influxql.ast_show import (
    ShowFieldKeyCardinality,
    ShowFieldKeys,
    ShowMeasurementCardinality,
    ShowMeasurements,
    ShowSeries,
    ShowSeriesCardinality,
    ShowTagKeyCardinality,
    ShowTagKeys,
    ShowTagValues,
    ShowTagValuesCardinality,
)
from dsdbd.influxql.cursor import Cursor
from dsdbd.influxql.parser_expr import parse_regex, require_regex
from dsdbd.influxql.parser_select import (
    parse_group_by,
    parse_measurement,
    parse_order_by,
    parse_sources,
    parse_where,
)

CardinalityStatement: TypeAlias = (
    ShowSeriesCardinality | ShowMeasurementCardinality | ShowTagKeyCardinality | ShowFieldKeyCardinality
)


def parse_database(cursor: Cursor) -> str | None:
    """``ON database``, if given."""
    return cursor.identifier() if cursor.accept("ON") else None


def parse_show_measurements(cursor: Cursor) -> ShowMeasurements:
    """SHOW MEASUREMENTS."""
    return ShowMeasurements(
        database=parse_database(cursor),
        source=_with_measurement(cursor),
        condition=parse_where(cursor),
        sort=parse_order_by(cursor),
        limit=cursor.count("LIMIT"),
        offset=cursor.count("OFFSET"),
    )


def parse_show_series(cursor: Cursor) -> Statement:
    """SHOW SERIES and SHOW SERIES [EXACT] CARDINALITY."""
    exact = cursor.accept("EXACT")
    if cursor.accept("CARDINALITY"):
        return parse_cardinality(cursor, ShowSeriesCardinality, exact=exact)
    return ShowSeries(
        database=parse_database(cursor),
        sources=_from(cursor),
        condition=parse_where(cursor),
        sort=parse_order_by(cursor),
        limit=cursor.count("LIMIT"),
        offset=cursor.count("OFFSET"),
    )


def parse_show_tag_keys(cursor: Cursor) -> ShowTagKeys:
    """SHOW TAG KEYS."""
    return ShowTagKeys(
        database=parse_database(cursor),
        sources=_from(cursor),
        condition=parse_where(cursor),
        sort=parse_order_by(cursor),
        limit=cursor.count("LIMIT"),
        offset=cursor.count("OFFSET"),
        slimit=cursor.count("SLIMIT"),
        soffset=cursor.count("SOFFSET"),
    )


def parse_show_field_keys(cursor: Cursor) -> ShowFieldKeys:
    """SHOW FIELD KEYS."""
    return ShowFieldKeys(
        database=parse_database(cursor),
        sources=_from(cursor),
        sort=parse_order_by(cursor),
        limit=cursor.count("LIMIT"),
        offset=cursor.count("OFFSET"),
    )


def parse_show_tag_values(cursor: Cursor) -> Statement:
    """SHOW TAG VALUES and SHOW TAG VALUES [EXACT] CARDINALITY."""
    if cursor.peek().kind in {"EXACT", "CARDINALITY"}:
        return _tag_values_cardinality(cursor)
    database, sources = parse_database(cursor), _from(cursor)
    op, key = _with_key(cursor)
    return ShowTagValues(
        op=op,
        key=key,
        database=database,
        sources=sources,
        condition=parse_where(cursor),
        sort=parse_order_by(cursor),
        limit=cursor.count("LIMIT"),
        offset=cursor.count("OFFSET"),
    )


def parse_cardinality(cursor: Cursor, kind: type[CardinalityStatement], *, exact: bool) -> CardinalityStatement:
    """The clauses after CARDINALITY."""
    return kind(
        exact=exact,
        database=parse_database(cursor),
        sources=_from(cursor),
        condition=parse_where(cursor),
        dimensions=parse_group_by(cursor),
        limit=cursor.count("LIMIT"),
        offset=cursor.count("OFFSET"),
    )


def _tag_values_cardinality(cursor: Cursor) -> ShowTagValuesCardinality:
    exact = cursor.accept("EXACT")
    cursor.expect("CARDINALITY")
    database, sources = parse_database(cursor), _from(cursor)
    op, key = _with_key(cursor)
    return ShowTagValuesCardinality(
        op=op,
        key=key,
        exact=exact,
        database=database,
        sources=sources,
        condition=parse_where(cursor),
        dimensions=parse_group_by(cursor),
        limit=cursor.count("LIMIT"),
        offset=cursor.count("OFFSET"),
    )


def _from(cursor: Cursor) -> tuple[Source, ...]:
    return parse_sources(cursor) if cursor.accept("FROM") else ()


def _with_measurement(cursor: Cursor) -> Measurement | None:
    if not cursor.accept("WITH"):
        return None
    cursor.expect("MEASUREMENT")
    if cursor.peek().kind not in {"=", "=~"}:
        raise cursor.expected(cursor.peek(), "=", "=~")
    cursor.take()
    regex = parse_regex(cursor)
    return Measurement(regex=regex) if regex else parse_measurement(cursor)


def _with_key(cursor: Cursor) -> tuple[str, StringLiteral | RegexLiteral | ListLiteral]:
    cursor.expect("WITH", "KEY")
    operator = cursor.peek()
    if operator.kind not in {"IN", "=", "!=", "=~", "!~"}:
        raise cursor.expected(operator, "IN", "=", "=~")
    cursor.take()
    if operator.kind == "IN":
        cursor.expect("(")
        keys = cursor.identifiers()
        cursor.expect(")")
        return "IN", ListLiteral(keys)
    if operator.kind in {"=~", "!~"}:
        return operator.kind, require_regex(cursor)
    # The guide quotes the key like a string; it can mean nothing else here.
    key = cursor.string() if cursor.peek().kind == "STRING" else cursor.identifier()
    return operator.kind, StringLiteral(key)
