"""SHOW MEASUREMENTS, SERIES, TAG KEYS, TAG VALUES, FIELD KEYS and their CARDINALITY forms over shards and nodes.

As a SELECT: ``show_partial`` near the data, ``show_finish`` where the statement arrived. Both are pure functions of
the statement and what the shards hold. Cardinalities are counted, never estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import re2

from dsdbd.errors import CorruptData, RequestError
from dsdbd.influxql import ast
from dsdbd.influxql import ast_show as show
from dsdbd.influxql.condition import TimeRange, split_condition
from dsdbd.model.columns import Column
from dsdbd.model.predicate import AllOf, TagPredicate
from dsdbd.model.scan import SeriesSet
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS
from dsdbd.model.types import FieldType
from dsdbd.query.plan_condition import tags_only
from dsdbd.query.rows import SeriesRows
from dsdbd.query.run import QueryCancelled
from dsdbd.query.schema import ShardReader, matching

_Found: TypeAlias = dict[str, set[tuple[str, ...]]]
_SERIES = (show.ShowSeries, show.ShowSeriesCardinality)
_MEASUREMENTS = (show.ShowMeasurements, show.ShowMeasurementCardinality)
_TAG_KEYS = (show.ShowTagKeys, show.ShowTagKeyCardinality)
_TAG_VALUES = (show.ShowTagValues, show.ShowTagValuesCardinality)
_FIELD_KEYS = (show.ShowFieldKeys, show.ShowFieldKeyCardinality)


def show_partial(
    statement: show.SchemaStatement, readers: Sequence[ShardReader], now_ns: int, cancelled: Callable[[], bool]
) -> bytes:
    """What these shards contribute (MessagePack). Blocks; for a worker thread.

    Raises RequestError for a WHERE that the statement does not have, QueryCancelled when ``cancelled`` says so.
    """
    _refuse_unsupported(statement)
    condition, times = split_condition(getattr(statement, "condition", None), now_ns)
    if isinstance(statement, _MEASUREMENTS) and not times.is_unbounded:
        raise RequestError("SHOW MEASUREMENTS doesn't support time in WHERE clause")
    found: _Found = {}
    for reader in readers:
        if not _overlaps(reader, times):
            continue
        for name in _chosen_measurements(statement, reader.measurements()):
            if cancelled():
                raise QueryCancelled("query interrupted")
            items = _items(statement, reader, name, condition)
            if items is not None:
                found.setdefault(name, set()).update(items)
    return msgspec.msgpack.encode({name: sorted(items) for name, items in found.items()})


def show_finish(statement: show.SchemaStatement, parts: Iterable[bytes]) -> Iterator[SeriesRows]:
    """The answer from the parts of all shards and nodes; raises CorruptData for bytes of another statement."""
    found: _Found = {}
    for part in parts:
        try:
            decoded = msgspec.msgpack.decode(part, type=dict[str, list[list[str]]])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptData(f"partial answer of {len(part)} bytes cannot be decoded: {error}") from error
        for name, items in decoded.items():
            found.setdefault(name, set()).update(tuple(item) for item in items)
    if isinstance(
        statement,
        show.ShowSeriesCardinality
        | show.ShowMeasurementCardinality
        | show.ShowTagKeyCardinality
        | show.ShowTagValuesCardinality
        | show.ShowFieldKeyCardinality,
    ):
        yield from _cardinality(statement, found)
    else:
        yield from _listing(statement, found)


def _refuse_unsupported(statement: show.SchemaStatement) -> None:
    if getattr(statement, "dimensions", ()):
        raise RequestError("GROUP BY is not supported yet in cardinality statements")


def _overlaps(reader: ShardReader, times: TimeRange) -> bool:
    low = MIN_TIME_NS if times.min_ns is None else times.min_ns
    high = MAX_TIME_NS if times.max_ns is None else times.max_ns
    return reader.start_ns <= high and low < reader.end_ns


def _chosen_measurements(statement: show.SchemaStatement, names: list[str]) -> list[str]:
    if isinstance(statement, show.ShowMeasurements):
        sources: tuple[ast.Source, ...] = () if statement.source is None else (statement.source,)
    else:
        sources = statement.sources
    if not sources:
        return sorted(names)
    wanted: list[str | re2._Regexp] = []
    for source in sources:
        if isinstance(source, ast.SubQuery):
            raise RequestError("SHOW statements read measurements, not subqueries")
        wanted.append(source.name if source.regex is None else re2.compile(source.regex.pattern))
    return matching(names, wanted)


def _items(
    statement: show.SchemaStatement, reader: ShardReader, name: str, condition: ast.Expr | None
) -> set[tuple[str, ...]] | None:
    """What one shard knows of one measurement; None when no series of it satisfies the condition."""
    if isinstance(statement, _FIELD_KEYS):
        return {(key, kind.value) for key, kind in reader.field_types(name).items()}
    predicate = _predicate(condition, name)
    if condition is None and isinstance(statement, _TAG_KEYS):
        return {(key,) for key in reader.tag_keys(name)}
    if condition is None and isinstance(statement, _MEASUREMENTS):
        return set()
    series = reader.series(name, predicate)
    if not len(series):
        return None
    if isinstance(statement, _SERIES):
        return {(key.decode(),) for key in series.series_keys()}
    if isinstance(statement, _TAG_KEYS):
        return {(key,) for key, column in series.tags.items() if bool((column.codes >= 0).any())}
    if isinstance(statement, _TAG_VALUES):
        return _tag_values(statement, series)
    return set()


def _tag_values(
    statement: show.ShowTagValues | show.ShowTagValuesCardinality, series: SeriesSet
) -> set[tuple[str, ...]]:
    accepts = _key_filter(statement.op, statement.key)
    found: set[tuple[str, ...]] = set()
    for key, column in series.tags.items():
        if accepts(key):
            found.update((key, column.values[code]) for code in np.unique(column.codes).tolist() if code >= 0)
    return found


def _key_filter(op: str, key: ast.StringLiteral | ast.RegexLiteral | ast.ListLiteral) -> Callable[[str], bool]:
    match key:
        case ast.StringLiteral(text):
            return lambda name: (name == text) == (op == "=")
        case ast.ListLiteral(texts):
            return lambda name: name in texts
        case ast.RegexLiteral(pattern):
            compiled = re2.compile(pattern)
            return lambda name: (compiled.search(name) is not None) == (op == "=~")


def _predicate(condition: ast.Expr | None, measurement: str) -> TagPredicate:
    return AllOf(()) if condition is None else tags_only(_simplified(condition, measurement))


def _simplified(expr: ast.Expr, measurement: str) -> ast.Expr:
    """The condition with ``_name`` decided, and comparisons with numbers, which 1.x passes over, as true."""
    match expr:
        case ast.ParenExpr(inner):
            return ast.ParenExpr(_simplified(inner, measurement))
        case ast.BinaryExpr("AND" | "OR", lhs, rhs):
            return replace(expr, lhs=_simplified(lhs, measurement), rhs=_simplified(rhs, measurement))
        case ast.BinaryExpr(op, ast.VarRef(name), value):
            if op not in ("=", "!=", "=~", "!~"):
                raise RequestError("invalid tag comparison operator")
            if name == "_name":
                return ast.BooleanLiteral(_name_matches(op, measurement, value))
            if not isinstance(value, ast.StringLiteral | ast.RegexLiteral | ast.VarRef):
                return ast.BooleanLiteral(True)
    return expr


def _name_matches(op: str, measurement: str, value: ast.Expr) -> bool:
    match value:
        case ast.StringLiteral(text):
            return (measurement == text) == (op == "=")
        case ast.RegexLiteral(pattern):
            return (re2.search(pattern, measurement) is not None) == (op in ("=", "=~"))
    raise RequestError("_name can be compared with a string or a regular expression only")


def _cut(items: list[tuple[str, ...]], limit: int, offset: int) -> list[tuple[str, ...]]:
    return items[offset : offset + limit if limit else None]


def _listing(
    statement: show.ShowMeasurements | show.ShowSeries | show.ShowTagKeys | show.ShowTagValues | show.ShowFieldKeys,
    found: _Found,
) -> Iterator[SeriesRows]:
    limit, offset = statement.limit, statement.offset
    if isinstance(statement, show.ShowMeasurements):
        yield from _table("measurements", ("name",), _cut([(name,) for name in sorted(found)], limit, offset))
        return
    if isinstance(statement, show.ShowSeries):
        keys = sorted(key for keys in found.values() for key in keys)
        yield from _table("", ("key",), _cut(keys, limit, offset))
        return
    titles: tuple[str, ...] = ("tagKey",)
    if isinstance(statement, show.ShowTagValues):
        titles = ("key", "value")
    elif isinstance(statement, show.ShowFieldKeys):
        titles = ("fieldKey", "fieldType")
    for name in sorted(found):
        yield from _table(name, titles, _cut(sorted(found[name]), limit, offset))


def _cardinality(
    statement: show.ShowSeriesCardinality
    | show.ShowMeasurementCardinality
    | show.ShowTagKeyCardinality
    | show.ShowTagValuesCardinality
    | show.ShowFieldKeyCardinality,
    found: _Found,
) -> Iterator[SeriesRows]:
    whole = isinstance(statement, show.ShowSeriesCardinality | show.ShowMeasurementCardinality)
    # 1.x estimates where nothing narrows the statement, and names the column so; the title is kept for its clients.
    estimate = whole and not (statement.exact or statement.sources or statement.condition)
    if isinstance(statement, show.ShowMeasurementCardinality):
        yield from _count("", len(found), estimate=estimate)
    elif estimate:
        yield from _count("", sum(len(items) for items in found.values()), estimate=True)
    else:
        for name in sorted(found):
            if isinstance(statement, show.ShowFieldKeyCardinality):
                yield from _count(name, len({item[0] for item in found[name]}), estimate=False)
            else:
                yield from _count(name, len(found[name]), estimate=False)


def _count(name: str, number: int, *, estimate: bool) -> Iterator[SeriesRows]:
    if number or estimate:
        title = "cardinality estimation" if estimate else "count"
        array = pa.array([number], pa.int64())
        yield SeriesRows(name, None, (title,), (Column.from_arrow(array),), None)


def _table(name: str, titles: tuple[str, ...], items: list[tuple[str, ...]]) -> Iterator[SeriesRows]:
    if items:
        data = tuple(
            Column(FieldType.STRING, pa.array([item[position] for item in items], pa.string()))
            for position in range(len(titles))
        )
        yield SeriesRows(name, None, titles, data, None)
