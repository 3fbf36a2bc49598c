"""SHOW MEASUREMENTS, SERIES, TAG KEYS, TAG VALUES, FIELD KEYS and their CARDINALITY forms over shards and nodes.

As a SELECT: ``show_partial`` near the data, ``show_finish`` where the statement arrived. Both are pure functions of
the statement and what the shards hold. Cardinalities are counted, never estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import re2

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql import ast_show as show
from dsdbd.influxql.condition import TimeRange, split_condition
from dsdbd.model.columns import Column
from dsdbd.model.predicate import AllOf, TagPredicate
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS
from dsdbd.model.types import FieldType
from dsdbd.query.plan_condition import tags_only
from dsdbd.query.rows import SeriesRows
from dsdbd.query.run import QueryCancelled
from dsdbd.query.schema import ShardReader, matching
from dsdbd.query.show_parts import FoundSeries, FoundTexts, sorted_texts

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
    if isinstance(statement, show.ShowSeriesCardinality):
        series = FoundSeries()
        for reader, name in _places(statement, readers, times, cancelled):
            chosen = reader.series(name, _predicate(condition, name))
            if len(chosen):
                series.add(name, chosen)
        return series.encode()
    texts = FoundTexts()
    keep = _rows_needed(statement)
    for reader, name in _places(statement, readers, times, cancelled):
        groups = _groups(statement, reader, name, condition, keep)
        if groups is not None:
            texts.add(name, groups)
    return texts.encode(keep)


def show_finish(statement: show.SchemaStatement, parts: Iterable[bytes]) -> Iterator[SeriesRows]:
    """The answer from the parts of all shards and nodes; raises CorruptData for bytes of another statement."""
    if isinstance(statement, show.ShowSeriesCardinality):
        yield from _cardinality(statement, FoundSeries.decode(parts).counts())
        return
    found = FoundTexts.decode(parts)
    match statement:
        case show.ShowMeasurementCardinality():
            yield from _count("", len(found.names()), estimate=_is_estimate(statement))
        case show.ShowFieldKeyCardinality():
            yield from _cardinality(statement, {name: len(found.groups(name)) for name in found.names()})
        case show.ShowTagKeyCardinality() | show.ShowTagValuesCardinality():
            yield from _cardinality(statement, {name: _size(found, name) for name in found.names()})
        case _:
            yield from _listing(statement, found)


def _places(
    statement: show.SchemaStatement,
    readers: Sequence[ShardReader],
    times: TimeRange,
    cancelled: Callable[[], bool],
) -> Iterator[tuple[ShardReader, str]]:
    """Shards and measurements that the statement is about."""
    for reader in readers:
        if _overlaps(reader, times):
            for name in _chosen_measurements(statement, reader.measurements()):
                if cancelled():
                    raise QueryCancelled("query interrupted")
                yield reader, name


def _rows_needed(statement: show.SchemaStatement) -> int:
    """Of each measurement how many rows of a shard the answer can have at most; 0 for all."""
    if isinstance(statement, show.ShowSeries | show.ShowTagValues) and statement.limit:
        return statement.limit + statement.offset
    return 0


def _size(found: FoundTexts, name: str) -> int:
    return sum(len(found.texts(name, group)) for group in found.groups(name))


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


def _groups(
    statement: show.SchemaStatement, reader: ShardReader, name: str, condition: ast.Expr | None, keep: int
) -> Mapping[str, Any] | None:
    """What one shard knows of one measurement; None when no series of it satisfies the condition."""
    if isinstance(statement, _FIELD_KEYS):
        return {key: _texts([kind.value]) for key, kind in reader.field_types(name).items()}
    predicate = _predicate(condition, name)
    if condition is None and isinstance(statement, _TAG_KEYS):
        return {"": _texts(reader.tag_keys(name))}
    if condition is None and isinstance(statement, _MEASUREMENTS):
        return {}
    series = reader.series(name, predicate)
    if not len(series):
        return None
    if isinstance(statement, show.ShowSeries):
        return {"": series.first_keys(keep) if keep else series.key_array()}
    if isinstance(statement, _TAG_KEYS):
        return {"": _texts(key for key, column in series.tags.items() if bool((column.codes >= 0).any()))}
    if isinstance(statement, _TAG_VALUES):
        accepts = _key_filter(statement.op, statement.key)
        return {key: series.tags[key].distinct() for key in series.tags if accepts(key)}
    return {}


def _texts(texts: Iterable[str]) -> Any:
    return pa.array(list(texts), pa.large_string())


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


def _listing(statement: show.SchemaStatement, found: FoundTexts) -> Iterator[SeriesRows]:
    limit, offset = getattr(statement, "limit", 0), getattr(statement, "offset", 0)
    if isinstance(statement, show.ShowMeasurements):
        yield from _table("measurements", ("name",), [(_texts(found.names()),)], limit, offset)
        return
    if isinstance(statement, show.ShowSeries):
        keys = [found.texts(name, group) for name in found.names() for group in found.groups(name)]
        yield from _table("", ("key",), [(sorted_texts(pa.concat_arrays(keys)),)] if keys else [], limit, offset)
        return
    for name in found.names():
        if isinstance(statement, show.ShowTagKeys):
            columns = [(sorted_texts(found.texts(name, group)),) for group in found.groups(name)]
            yield from _table(name, ("tagKey",), columns, limit, offset)
        else:
            titles = ("key", "value") if isinstance(statement, show.ShowTagValues) else ("fieldKey", "fieldType")
            yield from _table(name, titles, _pairs(found, name), limit, offset)


def _pairs(found: FoundTexts, name: str) -> list[tuple[Any, ...]]:
    """Group and text of a measurement as two columns, sorted by both, in pieces."""
    pieces = []
    for group in found.groups(name):
        texts = sorted_texts(found.texts(name, group))
        pieces.append((pa.repeat(pa.scalar(group, pa.large_string()), len(texts)), texts))
    return pieces


def _is_estimate(statement: show.ShowSeriesCardinality | show.ShowMeasurementCardinality) -> bool:
    # 1.x estimates where nothing narrows the statement, and names the column so; the title is kept for its clients.
    return not (statement.exact or statement.sources or statement.condition)


def _cardinality(statement: show.SchemaStatement, counts: Mapping[str, int]) -> Iterator[SeriesRows]:
    if isinstance(statement, show.ShowSeriesCardinality) and _is_estimate(statement):
        yield from _count("", sum(counts.values()), estimate=True)
    else:
        for name, count in counts.items():
            yield from _count(name, count, estimate=False)


def _count(name: str, number: int, *, estimate: bool) -> Iterator[SeriesRows]:
    if number or estimate:
        title = "cardinality estimation" if estimate else "count"
        array = pa.array([number], pa.int64())
        yield SeriesRows(name, None, (title,), (Column.from_arrow(array),), None)


def _table(
    name: str, titles: tuple[str, ...], pieces: Sequence[tuple[Any, ...]], limit: int, offset: int
) -> Iterator[SeriesRows]:
    """Rows of text columns, given in pieces, without those that LIMIT and OFFSET leave out."""
    if not pieces:
        return
    columns = []
    for place in range(len(titles)):
        texts = pa.concat_arrays([piece[place] for piece in pieces])[offset : offset + limit if limit else None]
        try:
            columns.append(Column(FieldType.STRING, texts.cast(pa.string())))
        except pa.ArrowInvalid as error:
            raise RequestError(
                f"the answer has {len(texts)} rows with more than 2 GB of text; ask for a part with LIMIT and OFFSET"
            ) from error
    if len(columns[0]):
        yield SeriesRows(name, None, titles, tuple(columns), None)
