"""Runs a plan's part near the data: scans shards, filters rows, folds them into partial tables; merges those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from dsdbd.errors import CorruptData, DSDBError, RequestError
from dsdbd.limits import MAX_QUERY_ROWS
from dsdbd.query import aggregates
from dsdbd.query.plan_types import MeasurementPlan, SelectPlan
from dsdbd.query.run_calls import call_tables
from dsdbd.query.run_raw import first_rows, raw_table
from dsdbd.query.run_scan import ScannedRows
from dsdbd.query.schema import ShardReader
from dsdbd.query.table import (
    Table,
    concat_tables,
    decode_tables,
    encode_tables,
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
            for scan in ScannedRows.read(plan, measurement, reader, lower, upper):
                for position, table in enumerate(call_tables(plan, scan) if plan.calls else [raw_table(plan, scan)]):
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
    return first_rows(plan, sort_table(table))
