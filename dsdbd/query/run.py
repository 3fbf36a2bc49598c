"""Runs a plan's part near the data: scans shards, filters rows, folds them into partial results; merges those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from dsdbd.errors import CorruptData, DSDBError, RequestError
from dsdbd.limits import MAX_QUERY_ROWS, MAX_SLICE_TEXT_BYTES
from dsdbd.model.columns import Column
from dsdbd.model.types import FieldType
from dsdbd.query import aggregates
from dsdbd.query.groups import group_series
from dsdbd.query.plan_derived import bounds
from dsdbd.query.plan_types import MeasurementPlan, SelectPlan, predicate_from_wire
from dsdbd.query.run_calls import call_parts
from dsdbd.query.run_raw import first_rows, raw_table
from dsdbd.query.run_scan import ScannedRows
from dsdbd.query.schema import ShardReader
from dsdbd.query.states import States, concat_states, fold_states, state_names
from dsdbd.query.table import Table, concat_tables, sort_table
from dsdbd.query.wire import decode_parts, encode_parts

_FOLD_ROWS = 1 << 20
"""States of pieces that may wait before they are folded into one another."""


class QueryCancelled(DSDBError):
    """The query was killed or its client is gone."""

    http_status = 200
    code = "query_cancelled"


class TooManyRows(Exception):
    """A part of an answer is larger than it was allowed to be: smaller ones must be asked for. No user sees it."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What some shards contribute.

    ``states``: of the calls that travel as such, sorted by group and bucket. ``tables``: one per call of the plan, or
    one of raw points, sorted by group, bucket, time and series. None where there is nothing.
    """

    states: States | None
    tables: tuple[Table | None, ...]


@dataclass(slots=True)
class Collected:
    """Parts of a result, and how many rows they hold together; ``most_rows`` is how many they may, 0 for any number."""

    plan: SelectPlan
    most_rows: int = 0
    states: list[States] = field(default_factory=list)
    tables: list[list[Table]] = field(default_factory=list)
    folded: int = 0
    rows: int = 0
    text_bytes: int = 0

    def __post_init__(self) -> None:
        self.tables = [[] for _ in range(max(len(self.plan.calls), 1))]

    def add(self, states: States | None, tables: Sequence[Table | None]) -> None:
        """Take one part; RequestError when all parts together are too big for a node, TooManyRows for this answer."""
        if states is not None and len(states):
            self.states.append(states)
            waiting = sum(map(len, self.states)) - self.folded
            if len(self.states) > 1 and waiting > max(_FOLD_ROWS, self.folded):
                self.states = [self._folded_states()]
                self.folded = len(self.states[0])
        for position, table in enumerate(tables):
            if table is not None and len(table):
                self.tables[position].append(table)
                self.rows += len(table)
                if self.most_rows:
                    self.text_bytes += table.text_bytes()
        rows = self.rows + sum(map(len, self.states))
        if self.most_rows and (rows > self.most_rows or self.text_bytes > MAX_SLICE_TEXT_BYTES):
            raise TooManyRows(f"a part of the answer has more than {self.most_rows} rows, or very long texts")
        _check_rows(rows)

    def _folded_states(self) -> States:
        return fold_states(self.plan.calls, concat_states(self.states), self.plan.grid_ns)

    def result(self) -> Partial:
        """All parts as one."""
        states = None
        if self.states:
            states = self.states[0] if len(self.states) == 1 else self._folded_states()
        return Partial(states, tuple(self._folded(position, tables) for position, tables in enumerate(self.tables)))

    def _folded(self, position: int, tables: list[Table]) -> Table | None:
        if not tables:
            return None
        table = concat_tables(tables)
        if self.plan.calls:
            return aggregates.merge(self.plan, self.plan.calls[position], table)
        return first_rows(self.plan, sort_table(table))


def never_cancelled() -> bool:
    """For what is too short to be cancelled."""
    return False


def run_partial(
    plan: SelectPlan,
    source: tuple[str, str],
    readers: Sequence[ShardReader],
    cancelled: Callable[[], bool],
    most_rows: int = 0,
) -> Partial:
    """The part of a plan that these shards of one (database, policy) answer. Blocks; for a worker thread.

    Raises:
        QueryCancelled: ``cancelled`` returned True.
        TooManyRows: it has more than ``most_rows``, where that is not 0, or very long texts.
        RequestError: the query needs more rows in memory than the limit.

    """
    collected = Collected(plan, most_rows)
    for measurement in _measurements(plan, source):
        asked = _from_window_start(plan) if measurement.windows else plan
        lower, upper = bounds(asked)
        for reader in readers:
            if cancelled():
                raise QueryCancelled("query interrupted")
            if reader.end_ns <= lower or reader.start_ns > upper:
                continue
            for rows in ScannedRows.read(plan, measurement, reader, lower, upper):
                if plan.calls:
                    collected.add(*call_parts(asked, rows, (lower, upper)))
                else:
                    collected.add(None, [raw_table(plan, rows, whole=measurement.derived)])
                if cancelled():
                    raise QueryCancelled("query interrupted")
    return collected.result()


def _from_window_start(plan: SelectPlan) -> SelectPlan:
    """The plan for rows of a subquery, which may have the time at which the first window begins."""
    if not plan.interval_ns or not plan.bounded_below:
        return plan
    return replace(plan, min_ns=plan.window_start(plan.min_ns))


def run_groups(
    plan: SelectPlan, source: tuple[str, str], readers: Sequence[ShardReader], cancelled: Callable[[], bool]
) -> Partial:
    """The groups of a plan's series in these shards, as states with the number of series of each.

    There may be groups among them that have no points in the plan's time range. Raises QueryCancelled.
    """
    collected = Collected(plan)
    for measurement in _measurements(plan, source):
        for reader in readers:
            if cancelled():
                raise QueryCancelled("query interrupted")
            if reader.end_ns <= plan.min_ns or reader.start_ns > plan.max_ns:
                continue
            series = reader.series(measurement.name, predicate_from_wire(measurement.predicate))
            if len(series):
                groups, group = group_series(series, plan.dimensions)
                counts = np.bincount(group, minlength=len(groups))
                numbers = np.arange(len(groups), dtype=np.int32)
                nothing = np.zeros(len(groups), dtype=np.int64)
                columns = {"n": Column(FieldType.INTEGER, counts)}
                collected.add(States(groups, numbers, nothing, columns), [])
    return collected.result()


def merge(plan: SelectPlan, partials: Iterable[Partial]) -> Partial:
    """Partial results of any shards and nodes as one; the order of ``partials`` does not matter."""
    found = list(partials)
    if len(found) == 1:
        return found[0]
    collected = Collected(plan)
    for partial in found:
        collected.add(partial.states, partial.tables)
    return collected.result()


def encode_partial(partial: Partial) -> bytes:
    """The bytes of a partial result: MessagePack around Arrow IPC streams."""
    return encode_parts(partial.states, partial.tables)


def decode_partial(plan: SelectPlan, data: bytes) -> Partial:
    """The partial result of ``encode_partial``; raises CorruptData for anything else, or one of another plan."""
    states, tables = decode_parts(data)
    if len(tables) != max(len(plan.calls), 1):
        raise CorruptData("a partial query result does not belong to the plan it was asked for")
    if states is not None and not state_names(plan.calls) <= set(states.columns):
        raise CorruptData("a partial query result lacks states that its plan needs")
    return Partial(states, tuple(tables))


def _measurements(plan: SelectPlan, source: tuple[str, str]) -> list[MeasurementPlan]:
    return [m for s in plan.sources if (s.database, s.policy) == source for m in s.measurements]


def _check_rows(rows: int) -> None:
    if rows > MAX_QUERY_ROWS:
        raise RequestError(
            f"the query needs {rows} rows in memory, the limit is {MAX_QUERY_ROWS}; "
            "use a shorter time range, fewer series, LIMIT, or an aggregate with GROUP BY time"
        )
