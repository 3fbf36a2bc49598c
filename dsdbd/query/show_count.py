"""CARDINALITY statements: counting series, measurements, tag keys and values, by groups of tags too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import re2

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql import ast_show as show
from dsdbd.model.columns import Column, Int64s
from dsdbd.model.scan import SeriesSet
from dsdbd.query.rows import SeriesRows

Cardinality = (
    show.ShowSeriesCardinality
    | show.ShowMeasurementCardinality
    | show.ShowTagKeyCardinality
    | show.ShowTagValuesCardinality
    | show.ShowFieldKeyCardinality
)
_NAMES: dict[type[Any], str] = {
    show.ShowSeriesCardinality: "SERIES EXACT",
    show.ShowMeasurementCardinality: "MEASUREMENT EXACT",
    show.ShowTagKeyCardinality: "TAG KEY EXACT",
    show.ShowFieldKeyCardinality: "FIELD KEY",
}
_PIECE = 1 << 12
"""Groups that become objects at a time."""


def is_estimate(statement: show.SchemaStatement) -> bool:
    """Whether InfluxDB 1.x estimates: where nothing narrows a count of series or measurements.

    It is about all retention policies then. Here it is counted as well; the title is kept for its clients.
    """
    return isinstance(statement, show.ShowSeriesCardinality | show.ShowMeasurementCardinality) and not (
        statement.exact
        or statement.sources
        or statement.condition
        or statement.dimensions
        or statement.limit
        or statement.offset
    )


def check_cardinality(statement: Cardinality, *, has_time: bool) -> None:
    """Raise RequestError for what a cardinality cannot be asked for."""
    if has_time and type(statement) in _NAMES and not is_estimate(statement):
        raise RequestError(f"SHOW {_NAMES[type(statement)]} CARDINALITY doesn't support time in WHERE clause")
    for dimension in statement.dimensions:
        if isinstance(dimension, ast.Call):
            raise RequestError("GROUP BY of a cardinality takes tags; there is no time in it")
    if statement.dimensions and isinstance(statement, show.ShowFieldKeyCardinality):
        raise RequestError(
            "SHOW FIELD KEY CARDINALITY has no GROUP BY: fields are known of measurements, not of series"
        )


def count_rows(name: str, tags: dict[str, str] | None, number: int, *, estimate: bool = False) -> Iterator[SeriesRows]:
    """The answer for one group; none for a group without anything, unless it is an estimate."""
    if number or estimate:
        title = "cardinality estimation" if estimate else "count"
        yield SeriesRows(name, tags, (title,), (Column.from_arrow(pa.array([number], pa.int64())),), None)


def grouped_counts(
    statement: Cardinality, sets: Mapping[str, SeriesSet], accepts: Callable[[str], bool]
) -> Iterator[SeriesRows]:
    """A row for each group of the statement's GROUP BY, sorted; ``accepts`` chooses the tag keys of TAG VALUES."""
    keys = _dimension_keys(statement.dimensions, {key for series in sets.values() for key in series.tags})
    names = [f"k{place}" for place in range(len(keys))]
    tables = []
    for name, series in sets.items():
        group, firsts = _groups(series, keys)
        counts = _counts(statement, series, group, len(firsts), accepts)
        values = [_value_texts(series, key, firsts) for key in keys]
        table = pa.table([*values, pa.array(counts)], names=[*names, "count"])
        if isinstance(statement, show.ShowMeasurementCardinality):
            tables.append(table)
        else:
            yield from _rows(name, keys, table)
    if tables:
        summed = pa.concat_tables(tables).group_by(names).aggregate([("count", "sum")])
        yield from _rows("", keys, summed.select([*names, "count_sum"]))


def _rows(name: str, keys: Sequence[str], table: Any) -> Iterator[SeriesRows]:
    """A table of the values of tags and a count, as rows in the order of the values."""
    if keys:
        order = pc.sort_indices(table, sort_keys=[(column, "ascending") for column in table.column_names[:-1]])
        table = table.take(order)
    for start in range(0, len(table), _PIECE):
        *values, counts = [column.to_pylist() for column in table.slice(start, _PIECE).columns]
        for place, number in enumerate(counts):
            tags = {key: texts[place] for key, texts in zip(keys, values, strict=True)} if keys else None
            yield from count_rows(name, tags, number)


def _dimension_keys(dimensions: Sequence[ast.Expr], known: set[str]) -> list[str]:
    """Tag keys of GROUP BY, sorted: those that are named, and of ``known`` those that ``*`` or a regex takes."""
    keys: set[str] = set()
    for dimension in dimensions:
        match dimension:
            case ast.VarRef(name):
                keys.add(name)
            case ast.RegexLiteral(pattern):
                compiled = re2.compile(pattern)
                keys |= {key for key in known if compiled.search(key)}
            case _:
                keys |= known
    return sorted(keys)


def _groups(series: SeriesSet, keys: Sequence[str]) -> tuple[Int64s, Int64s]:
    """The group of each series, int64[n], and one series of each group, int64[g]."""
    group: Int64s = np.zeros(len(series), dtype=np.int64)
    firsts: Int64s = np.zeros(min(len(series), 1), dtype=np.int64)
    for key in keys:
        column = series.tags.get(key)
        if column is not None:
            # Renumbered after each key: with many keys the product of their values has no room in 64 bits.
            joined = group * (len(column.values) + 1) + (column.codes.astype(np.int64) + 1)
            _, firsts, group = np.unique(joined, return_index=True, return_inverse=True)
    return group, firsts


def _value_texts(series: SeriesSet, key: str, rows: Int64s) -> Any:
    """The values of a tag of some series, "" where one has none."""
    column = series.tags.get(key)
    if column is None:
        return pa.array([""], pa.large_string()).take(pa.array(np.zeros(len(rows), dtype=np.int64)))
    return pc.fill_null(column.to_arrow().take(pa.array(rows)), "").cast(pa.large_string())


def _counts(
    statement: Cardinality, series: SeriesSet, group: Int64s, groups: int, accepts: Callable[[str], bool]
) -> Int64s:
    """What each group of one measurement has of what is counted."""
    if isinstance(statement, show.ShowSeriesCardinality):
        return np.bincount(group, minlength=groups)
    if isinstance(statement, show.ShowMeasurementCardinality):
        return np.ones(groups, dtype=np.int64)
    counts: Int64s = np.zeros(groups, dtype=np.int64)
    if isinstance(statement, show.ShowTagKeyCardinality):
        for column in series.tags.values():
            counts += np.bincount(group[column.codes >= 0], minlength=groups) > 0
        return counts
    # A value that several keys have counts once.
    pairs = []
    for key in filter(accepts, series.tags):
        column = series.tags[key]
        there = np.flatnonzero(column.codes >= 0)
        texts = column.to_arrow().take(pa.array(there))
        pairs.append(pa.table({"group": pa.array(group[there]), "text": texts.cast(pa.large_string())}))
    if pairs:
        distinct = pa.concat_tables(pairs).group_by(["group", "text"]).aggregate([])
        counts += np.bincount(distinct.column("group").to_numpy(), minlength=groups)
    return counts
