"""SHOW MEASUREMENTS, SERIES, TAG KEYS, TAG VALUES, FIELD KEYS and their CARDINALITY forms over shards and nodes.

As a SELECT: ``show_partial`` near the data, ``show_finish`` where the statement arrived. Both are pure functions of
the statement and what the shards hold. Cardinalities are counted, never estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import re2

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql import ast_show as show
from dsdbd.influxql.condition import ALL_TIMES, TimeRange, split_condition
from dsdbd.model.columns import Column
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS
from dsdbd.model.types import FieldType
from dsdbd.query.rows import SeriesRows
from dsdbd.query.run import QueryCancelled
from dsdbd.query.schema import ShardReader, matching
from dsdbd.query.show_condition import comparisons, counted_series, facts_about, measurement_matches, predicate_of
from dsdbd.query.show_count import Cardinality, check_cardinality, count_rows, grouped_counts, is_estimate
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
    condition, times = _condition(statement, now_ns)
    if isinstance(statement, Cardinality):
        check_cardinality(statement, has_time=not times.is_unbounded)
        if _counts_series(statement):
            series = FoundSeries()
            for reader, name in _places(statement, readers, times, cancelled):
                found = counted_series(reader, name, condition)
                if len(found):
                    series.add(name, found)
            return series.encode()
    if isinstance(statement, show.ShowMeasurements) and condition is not None:
        return _measurement_facts(statement, condition, readers, cancelled)
    texts = FoundTexts()
    keep = _rows_needed(statement)
    for reader, name in _places(statement, readers, times, cancelled):
        groups = _groups(statement, reader, name, condition, keep)
        if groups is not None:
            texts.add(name, groups)
    return texts.encode(keep)


def show_finish(statement: show.SchemaStatement, parts: Iterable[bytes]) -> Iterator[SeriesRows]:
    """The answer from the parts of all shards and nodes; raises CorruptData for bytes of another statement."""
    if not isinstance(statement, Cardinality):
        yield from _listing(statement, FoundTexts.decode(parts))
    elif statement.offset:
        return  # every group has one row
    elif not _counts_series(statement):
        yield from _counted(statement, FoundTexts.decode(parts))
    elif is_estimate(statement):
        counts = FoundSeries.decode(parts).counts()
        yield from count_rows("", None, sum(counts.values()), estimate=True)
    else:
        key, op = getattr(statement, "key", None), getattr(statement, "op", "")
        accepts = _key_filter(op, key) if key is not None else bool
        yield from grouped_counts(statement, FoundSeries.decode(parts).sets(), accepts)


def has_time(statement: show.SchemaStatement, now_ns: int) -> bool:
    """Whether WHERE says something about time. Raises RequestError."""
    return not _condition(statement, now_ns)[1].is_unbounded


def _condition(statement: show.SchemaStatement, now_ns: int) -> tuple[ast.Expr | None, TimeRange]:
    """WHERE without times, and the times; raises RequestError for times that a statement cannot have."""
    condition = getattr(statement, "condition", None)
    if isinstance(statement, show.ShowMeasurements) and isinstance(condition, ast.VarRef | ast.BooleanLiteral):
        return condition, ALL_TIMES
    condition, times = split_condition(condition, now_ns)
    if isinstance(statement, show.ShowMeasurements) and not times.is_unbounded:
        raise RequestError("SHOW MEASUREMENTS doesn't support time in WHERE clause")
    return condition, times


def _counts_series(statement: Cardinality) -> bool:
    """Whether the tags of the series are needed; otherwise names and texts are."""
    return isinstance(statement, show.ShowSeriesCardinality) or bool(statement.dimensions)


def _counted(statement: Cardinality, found: FoundTexts) -> Iterator[SeriesRows]:
    """Counts of a statement without groups from texts."""
    if isinstance(statement, show.ShowMeasurementCardinality):
        yield from count_rows("", None, len(found.names()), estimate=is_estimate(statement))
        return
    for name in found.names():
        groups = found.groups(name)
        if isinstance(statement, show.ShowFieldKeyCardinality):
            number = len(groups)
        else:
            # A value that several keys have counts once.
            texts = [found.texts(name, group) for group in groups]
            number = len(pc.unique(pa.concat_arrays(texts))) if texts else 0
        yield from count_rows(name, None, number)


def _measurement_facts(
    statement: show.ShowMeasurements,
    condition: ast.Expr,
    readers: Sequence[ShardReader],
    cancelled: Callable[[], bool],
) -> bytes:
    """What shards know of every measurement and comparison; all of them together decide."""
    list(comparisons(condition))
    facts = FoundTexts()
    for reader, name in _places(statement, readers, ALL_TIMES, cancelled):
        facts.add(name, {number: _texts(known) for number, known in facts_about(condition, reader, name).items()})
    return facts.encode()


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
        if condition is not None and not len(counted_series(reader, name, condition)):
            return None
        return {key: _texts([kind.value]) for key, kind in reader.field_types(name).items()}
    if condition is None and isinstance(statement, _TAG_KEYS):
        return {"": _texts(reader.tag_keys(name))}
    if condition is None and isinstance(statement, _MEASUREMENTS):
        return {}
    if isinstance(statement, Cardinality):
        of_values = isinstance(statement, show.ShowTagValuesCardinality)
        series = counted_series(reader, name, condition, absent_differs=of_values)
    else:
        series = reader.series(name, predicate_of(condition, name))
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


def _listing(statement: show.SchemaStatement, found: FoundTexts) -> Iterator[SeriesRows]:
    limit, offset = getattr(statement, "limit", 0), getattr(statement, "offset", 0)
    if isinstance(statement, show.ShowMeasurements):
        names = found.names()
        if (condition := statement.condition) is not None:
            names = [name for name in names if measurement_matches(condition, name, found.listed(name))]
        yield from _table("measurements", ("name",), [(_texts(names),)], limit, offset)
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
