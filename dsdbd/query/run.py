"""Runs a plan's part near the data: scans shards, filters rows, folds them into partial tables; merges those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from dsdbd.errors import CorruptData, DSDBError, RequestError
from dsdbd.limits import MAX_QUERY_ROWS
from dsdbd.model.columns import Bools, Column, Int32s
from dsdbd.model.scan import Piece
from dsdbd.model.types import FieldType
from dsdbd.query import aggregates
from dsdbd.query.columns import cast_column, string_column
from dsdbd.query.evaluate import evaluate, to_mask
from dsdbd.query.plan_types import FieldLeaf, MeasurementPlan, Ref, SelectPlan, Slot, TagLeaf, predicate_from_wire
from dsdbd.query.schema import ShardReader
from dsdbd.query.table import (
    GroupKey,
    Table,
    concat_tables,
    decode_tables,
    encode_tables,
    run_lengths,
    run_starts,
    sort_table,
)


class QueryCancelled(DSDBError):
    """The query was killed or its client is gone."""

    http_status = 200
    code = "query_cancelled"


@dataclass(frozen=True, slots=True)
class Partial:
    """What some shards contribute: one table per call of the plan, or one of raw points; None where there is nothing.

    All tables are sorted by group, bucket, time, series.
    """

    tables: tuple[Table | None, ...]


def run_partial(
    plan: SelectPlan, source: tuple[str, str], readers: Sequence[ShardReader], cancelled: Callable[[], bool]
) -> Partial:
    """The part of a plan that these shards of one (database, policy) answer. Blocks; for a worker thread.

    Raises:
        QueryCancelled: ``cancelled`` returned True.
        RequestError: the query needs more rows in memory than the limit.

    """
    ranges = [plan.call_range(call) for call in plan.calls] or [(plan.min_ns, plan.max_ns)]
    lower, upper = min(low for low, _ in ranges), max(high for _, high in ranges)
    parts: list[list[Table]] = [[] for _ in ranges]
    rows = 0
    for measurement in _measurements(plan, source):
        for reader in readers:
            if cancelled():
                raise QueryCancelled("query interrupted")
            if reader.end_ns <= lower or reader.start_ns > upper:
                continue
            for scan in _Scan.read(plan, measurement, reader, lower, upper):
                for position, table in enumerate(scan.tables(plan)):
                    if len(table):
                        parts[position].append(table)
                        rows += len(table)
                _check_rows(rows)
                if cancelled():
                    raise QueryCancelled("query interrupted")
    return Partial(tuple(_fold(plan, position, tables) for position, tables in enumerate(parts)))


def merge(plan: SelectPlan, partials: Iterable[Partial]) -> Partial:
    """Partial results of any shards and nodes as one; the order of ``partials`` does not matter."""
    parts: list[list[Table]] = [[] for _ in range(max(len(plan.calls), 1))]
    for partial in partials:
        for position, table in enumerate(partial.tables):
            if table is not None:
                parts[position].append(table)
    _check_rows(sum(len(table) for tables in parts for table in tables))
    return Partial(tuple(_fold(plan, position, tables) for position, tables in enumerate(parts)))


def encode_partial(partial: Partial) -> bytes:
    """The bytes of a partial result: MessagePack around Arrow IPC streams."""
    present = [table is not None for table in partial.tables]
    return msgspec.msgpack.encode((present, encode_tables([table for table in partial.tables if table is not None])))


def decode_partial(plan: SelectPlan, data: bytes) -> Partial:
    """The partial result of ``encode_partial``; raises CorruptData for anything else, or one of another plan."""
    try:
        present, encoded = msgspec.msgpack.decode(data, type=tuple[list[bool], bytes])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"partial query result of {len(data)} bytes cannot be decoded: {error}") from error
    tables = decode_tables(encoded)
    if len(tables) != sum(present) or len(present) != max(len(plan.calls), 1):
        raise CorruptData("a partial query result does not belong to the plan it was asked for")
    remaining = iter(tables)
    return Partial(tuple(next(remaining) if there else None for there in present))


def _measurements(plan: SelectPlan, source: tuple[str, str]) -> list[MeasurementPlan]:
    return [m for s in plan.sources if (s.database, s.policy) == source for m in s.measurements]


def _check_rows(rows: int) -> None:
    if rows > MAX_QUERY_ROWS:
        raise RequestError(
            f"the query needs {rows} rows in memory, the limit is {MAX_QUERY_ROWS}; "
            "use a shorter time range, fewer series, LIMIT, or an aggregate with GROUP BY time"
        )


def _fold(plan: SelectPlan, position: int, tables: list[Table]) -> Table | None:
    if not tables:
        return None
    table = concat_tables(tables)
    if plan.calls:
        return aggregates.merge(plan.calls[position], table)
    return _first_rows(plan, sort_table(table))


def _first_rows(plan: SelectPlan, table: Table) -> Table:
    """Of every group the rows that LIMIT and OFFSET can let through, so that the rest need not travel."""
    if not plan.limit:
        return table
    keep = plan.limit + plan.offset
    starts = run_starts(table.group)
    lengths = run_lengths(starts, len(table))
    if int(lengths.max(initial=0)) <= keep:
        return table
    place = np.arange(len(table)) - np.repeat(starts, lengths)
    if not plan.ascending:
        place = np.repeat(lengths, lengths) - 1 - place
    return table.where(place < keep)


@dataclass(frozen=True, slots=True)
class _Scan:
    """Rows of one measurement in one shard that pass the filter; ``group`` and ``points`` have the same rows."""

    points: Piece
    series_index: Int32s
    groups: tuple[GroupKey, ...]
    group: Any
    mask: Bools | None

    @staticmethod
    def read(
        plan: SelectPlan, measurement: MeasurementPlan, reader: ShardReader, lower: int, upper: int
    ) -> Iterator[_Scan]:
        refs = [*plan.refs, *(call.ref for call in plan.calls)]
        wanted = {ref.name for ref in refs if ref.type not in ("tag", "unknown")} | set(measurement.filter_fields)
        pieces = reader.scan(
            measurement.name,
            predicate=predicate_from_wire(measurement.predicate),
            min_ns=lower,
            max_ns=upper,
            fields=sorted(wanted),
        )
        for points in pieces:
            series_index = points.spread(np.arange(len(points.series), dtype=np.int32))
            mask = None
            if measurement.filter is not None:
                mask = to_mask(evaluate(measurement.filter, _Leaves(points, series_index).lookup), len(points))
                if not bool(mask.any()):
                    continue
            groups: dict[GroupKey, int] = {}
            of_series = np.empty(len(points.series), dtype=np.int32)
            texts = [points.series.texts(name) for name in plan.dimensions]
            for position, values in enumerate(zip(*texts, strict=True) if texts else [()] * len(points.series)):
                of_series[position] = groups.setdefault(GroupKey(measurement.name, values), len(groups))
            yield _Scan(points, series_index, tuple(groups), of_series[series_index], mask)

    def tables(self, plan: SelectPlan) -> Iterable[Table]:
        """One table of states per call, or the one of raw points."""
        if not plan.calls:
            yield self._raw_table(plan)
            return
        for call in plan.calls:
            column = self._column(call.ref)
            low, high = plan.call_range(call)
            mask = (self.points.time_ns >= low) & (self.points.time_ns <= high)
            for other in (column.valid, self.mask):
                if other is not None:
                    mask = mask & other
            with_points = call.function not in ("count", "sum", "mean", "spread")
            columns = {"value": column}
            if plan.selector:
                columns |= {f"r{index}": self._column(ref) for index, ref in enumerate(plan.refs)}
            table = self._table(plan, columns, mask, with_points=with_points)
            if len(table):
                value = Column(column.type, table.columns["value"].values)
                series = self.series_index[mask]
                yield aggregates.partial(call, table.with_columns({**table.columns, "value": value}), series)
            else:
                yield table

    def _raw_table(self, plan: SelectPlan) -> Table:
        """Rows in which at least one field of the select list has a value."""
        columns = {f"r{index}": self._column(ref) for index, ref in enumerate(plan.refs)}
        mask = np.zeros(len(self.points), dtype=np.bool_)
        for index, ref in enumerate(plan.refs):
            if not ref.is_tag:
                valid = columns[f"r{index}"].valid
                mask = np.ones_like(mask) if valid is None else mask | valid
        if self.mask is not None:
            mask = mask & self.mask
        table = self._table(plan, columns, mask, with_points=True)
        # Groups are numbered in the order of their first series here, and sorted before the rows are.
        return _first_rows(plan, sort_table(concat_tables([table]))) if len(table) else table

    def _table(self, plan: SelectPlan, columns: dict[str, Column], mask: Bools, *, with_points: bool) -> Table:
        time = self.points.time_ns
        if plan.interval_ns:
            bucket = (time - plan.offset_ns) // plan.interval_ns * plan.interval_ns + plan.offset_ns
        else:
            bucket = np.zeros(len(time), dtype=np.int64)
        if with_points:
            members = tuple(key.decode() for key in self.points.series.series_keys())
            member = self.series_index
        else:
            members, member = ("",), np.zeros(len(time), dtype=np.int32)
        return Table(self.groups, members, self.group, bucket, time, member, columns).where(mask)

    def _column(self, ref: Ref) -> Column:
        rows = len(self.points)
        if ref.type == "unknown":
            return Column.missing(FieldType.FLOAT, rows)
        if not ref.is_tag:
            column = self.points.fields.get(ref.name)
            return Column.missing(ref.field_type, rows) if column is None else cast_column(column, ref.field_type)
        return string_column(self.points.series.texts(ref.name), self.series_index, blank_is_null=True)


@dataclass(frozen=True, slots=True)
class _Leaves:
    """Columns of the leaves of a row filter."""

    points: Piece
    series_index: Int32s

    def lookup(self, leaf: Slot | FieldLeaf | TagLeaf) -> Column | None:
        match leaf:
            case FieldLeaf(name):
                return self.points.fields.get(name)
            case TagLeaf(name):
                return string_column(self.points.series.texts(name), self.series_index, blank_is_null=False)
        return None
