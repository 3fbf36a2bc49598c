"""A tiny in-memory shard reader, and a query run through plan, partial results, wire and merge as a cluster would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dsdbd.errors import DSDBError, QueryParseError
from dsdbd.influxql.ast import Select, Statement
from dsdbd.influxql.parser import parse
from dsdbd.model.columns import Column, Int64s
from dsdbd.model.predicate import TagPredicate, matches
from dsdbd.model.scan import Extent, Piece, ScanRequest, SeriesSet
from dsdbd.model.series import Series
from dsdbd.model.types import FieldType
from dsdbd.query import (
    SeriesRows,
    ShardReader,
    StatementResult,
    decode_partial,
    decode_plan,
    decode_schema,
    encode_partial,
    encode_plan,
    encode_results_json,
    encode_schema,
    finish,
    has_subqueries,
    merge,
    merge_schemas,
    normalise,
    plan_select,
    run_partial,
    shard_schema,
    show_finish,
    show_partial,
)
from tests.query.nested_engine import run_nested

Value = float | int | str | bool
DTYPES = {FieldType.FLOAT: np.float64, FieldType.INTEGER: np.int64, FieldType.BOOLEAN: np.bool_}


@dataclass(frozen=True)
class Row:
    measurement: str
    tags: tuple[tuple[str, str], ...]
    time_ns: int
    fields: tuple[tuple[str, Value], ...]


def type_of(value: Value) -> FieldType:
    if isinstance(value, bool):
        return FieldType.BOOLEAN
    if isinstance(value, int):
        return FieldType.INTEGER
    return FieldType.FLOAT if isinstance(value, float) else FieldType.STRING


def column_of(values: list[Value | None], kind: FieldType) -> Column:
    valid = np.array([value is not None for value in values], dtype=np.bool_)
    if kind is FieldType.STRING:
        return Column(kind, pa.array(values, pa.string()), None if valid.all() else valid)
    zero = DTYPES[kind](0)
    array = np.array([zero if value is None else value for value in values], dtype=DTYPES[kind])
    return Column(kind, array, None if valid.all() else valid)


class MemoryShard:
    """Rows in a dict; a scan sorts them by series key and time, and deals them to pieces by ``deal``."""

    def __init__(
        self,
        rows: Sequence[Row],
        shard_id: int = 1,
        start_ns: int = -(2**63),
        end_ns: int = 2**63 - 1,
        deal: Sequence[int] | None = None,
    ):
        self.deal = deal
        self.shard_id, self.start_ns, self.end_ns = shard_id, start_ns, end_ns
        self.points: dict[tuple[Series, int], dict[str, Value]] = {}
        for row in rows:
            series = Series(row.measurement, tuple(sorted(row.tags)))
            self.points.setdefault((series, row.time_ns), {}).update(row.fields)

    def measurements(self) -> list[str]:
        return sorted({series.measurement for series, _ in self.points})

    def tag_keys(self, measurement: str) -> frozenset[str]:
        return frozenset(k for series, _ in self.points if series.measurement == measurement for k, _ in series.tags)

    def field_types(self, measurement: str) -> dict[str, FieldType]:
        found: dict[str, FieldType] = {}
        for (series, _), fields in self.points.items():
            if series.measurement == measurement:
                found.update({name: type_of(value) for name, value in fields.items()})
        return found

    def matching(self, measurement: str, predicate: TagPredicate) -> list[Series]:
        found = {s for s, _ in self.points if s.measurement == measurement and matches(predicate, s)}
        return sorted(found, key=Series.key)

    def series(self, measurement: str, predicate: TagPredicate) -> SeriesSet:
        return SeriesSet.of(measurement, self.matching(measurement, predicate))

    def extent(self, measurement: str) -> Extent | None:
        times = [time for series, time in self.points if series.measurement == measurement]
        return Extent(len(times), min(times), max(times)) if times else None

    def scan(self, request: ScanRequest) -> Iterator[Piece]:
        measurement, min_ns, max_ns = request.measurement, request.min_ns, request.max_ns
        series = tuple(self.matching(measurement, request.predicate))
        place = {one: position for position, one in enumerate(series)}
        keys = sorted(
            (key for key in self.points if key[0] in place and min_ns <= key[1] <= max_ns),
            key=lambda key: (place[key[0]], key[1]),
        )
        if not keys:
            return
        types = self.field_types(measurement)
        columns = {
            name: column_of([self.points[key].get(name) for key in keys], types[name])
            for name in request.fields
            if name in types
        }
        index = np.array([place[one] for one, _ in keys], dtype=np.int32)
        times = np.array([time for _, time in keys], dtype=np.int64)
        shared = SeriesSet.of(measurement, series)
        for rows in self.pieces(len(keys)):
            starts = np.flatnonzero(np.diff(index[rows], prepend=-1))
            some = {name: column.take(rows) for name, column in columns.items()}
            yield Piece(shared, index[rows][starts], starts, times[rows], some)

    def pieces(self, size: int) -> list[Int64s]:
        """The rows of each piece, in order; none without rows."""
        if self.deal is None:
            return [np.arange(size)]
        piece = np.array([self.deal[row % len(self.deal)] for row in range(size)])
        return [np.flatnonzero(piece == number) for number in sorted(set(self.deal)) if number in piece]


def parse_one(text: str) -> Statement:
    (statement,) = parse(text)
    return statement


def run_query(text: str, nodes: Sequence[Sequence[ShardReader]], now_ns: int) -> list[SeriesRows]:
    """The answer over shards on several nodes; everything crosses the wire."""
    return run_statement(parse_one(text), nodes, now_ns)


def run_statement(statement: Statement, nodes: Sequence[Sequence[ShardReader]], now_ns: int) -> list[SeriesRows]:
    if not isinstance(statement, Select):
        return list(show_finish(statement, [show_partial(statement, node, now_ns, lambda: False) for node in nodes]))
    select = normalise(statement, "d", lambda _: "autogen")
    schema = merge_schemas([decode_schema(encode_schema(shard_schema(shards))) for shards in nodes])
    schemas = {("d", "autogen"): schema}
    if has_subqueries(select):
        return [rows for block in run_nested(select, schemas, nodes, now_ns) for rows in block]
    plan = decode_plan(encode_plan(plan_select(select, schemas, now_ns)))
    parts = [run_partial(plan, ("d", "autogen"), shards, lambda: False) for shards in nodes]
    parts = [decode_partial(plan, encode_partial(part)) for part in parts]
    return [rows for block in finish(plan, merge(plan, parts)) for rows in block]


def json_answer(text: str, nodes: Sequence[Sequence[ShardReader]], now_ns: int) -> str:
    """The body that a request with this statement gets."""
    try:
        result = StatementResult(0, run_query(text, nodes, now_ns))
    except QueryParseError as error:
        return json.dumps({"error": error.message}) + "\n"
    except DSDBError as error:
        result = StatementResult(0, error=error.message)
    return b"".join(encode_results_json([result])).decode()
