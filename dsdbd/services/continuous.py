"""Runs the continuous queries that are due, once per cluster: on the node that leads the metadata."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import structlog

from dsdbd.cluster.acks import Consistency
from dsdbd.cluster.cancellation import Cancellation
from dsdbd.cluster.into import Into
from dsdbd.errors import DSDBError, RequestError
from dsdbd.meta.commands import (
    ContinuousQueryRun,
    CreateDatabase,
    CreateRetentionPolicy,
    PolicySpec,
    RecordContinuousQueryRuns,
)
from dsdbd.meta.rows import time_text
from dsdbd.model.columns import Column, Points
from dsdbd.model.series import Series
from dsdbd.model.types import FieldType
from dsdbd.services.leading import LeaderJob
from dsdbd.services.resampling import due, read_query, schedule_of, within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.cluster.writes import WritePath
    from dsdbd.influxql import ast
    from dsdbd.meta.state import ContinuousQuery
    from dsdbd.services.resampling import Run

log = structlog.get_logger("continuous-queries")
_HOUR_NS = 3600 * 10**9
_STATS_POLICY = PolicySpec("monitor", 7 * 24 * _HOUR_NS, 1, 24 * _HOUR_NS)
"""Policy of the database of figures, with the name and the terms it has in InfluxDB 1.x."""
_RECORD_AFTER_S = 1.0
_RECORDED_AT_ONCE = 200
"""Runs in one metadata command, so that it stays small."""
_LONGEST_PAUSE_S = 60.0


class DueQuery(NamedTuple):
    """A continuous query with the run that is due."""

    database: str
    name: str
    text: str
    statement: ast.CreateContinuousQuery
    run: Run


class _Failures(NamedTuple):
    times: int
    not_before_s: float


class ContinuousQueries(LeaderJob):
    """``[continuous_queries]``. One after the other, database by database in order of creation.

    So a query that reads what one before it writes finds the new points. Up to when a query has been run is stored in
    the metadata after the run: a crash in between repeats the run, which writes the same points again. Where nodes are
    out of reach a run is repeated too; any other failure is logged, counted, and the query goes on with its next run.
    """

    name = "cq"
    _counters = ("queryFail", "queryOk")

    def __init__(self, node: Node, reads: ReadPath, writes: WritePath) -> None:
        super().__init__(node, node.config.continuous_queries.run_interval_s)
        self._writes = writes
        self._into = Into(node, reads, writes)
        self._failures: dict[tuple[str, str], _Failures] = {}

    def has_work(self) -> bool:
        """Whether a query is due, by the metadata and the clock of this node."""
        return next(self._due(), None) is not None

    async def look(self) -> None:
        """Run what is due, and record it now and then, at the latest at the end."""
        done: list[ContinuousQueryRun] = []
        clock = self._node.clock
        recorded_s = clock.monotonic_s()
        found = list(self._due())
        try:
            for one in found:
                if await self._carry_out(one):
                    done.append(ContinuousQueryRun(one.database, one.name, one.run.last_run_ns))
                if len(done) >= _RECORDED_AT_ONCE or clock.monotonic_s() > recorded_s + _RECORD_AFTER_S:
                    await self._record(done)
                    recorded_s = clock.monotonic_s()
        finally:
            if done:
                await self._record(done)
        existing = {(database, query.name) for database, query in self._queries()}
        self._failures = {key: failure for key, failure in self._failures.items() if key in existing}

    async def _record(self, done: list[ContinuousQueryRun]) -> None:
        if done:
            runs = tuple(done)
            done.clear()
            await self.propose(RecordContinuousQueryRuns(runs))

    def _queries(self) -> Iterator[tuple[str, ContinuousQuery]]:
        for database in self._node.metadata.state.databases.values():
            for query in database.continuous_queries.values():
                yield database.name, query

    def _due(self) -> Iterator[DueQuery]:
        """The queries that are due, without those that wait after a failure."""
        now_ns, now_s = self._node.clock.now_ns(), self._node.clock.monotonic_s()
        for database, query in self._queries():
            statement = _statement(query.query)
            failure = self._failures.get((database, query.name))
            if statement is None or (failure is not None and now_s < failure.not_before_s):
                continue
            schedule = schedule_of(statement, now_ns)
            run = None if schedule is None else due(schedule, query.last_run_ns, now_ns)
            if run is not None:
                yield DueQuery(database, query.name, query.query, statement, run)

    async def _carry_out(self, one: DueQuery) -> bool:
        """Run one query; False when it is to be run again for the same times."""
        if one.run.start_ns >= one.run.end_ns:
            return True
        key, clock = (one.database, one.name), self._node.clock
        begun_s = clock.monotonic_s()
        try:
            written = await self._select_into(one)
        except DSDBError as error:
            return self._failed(one, error.message, again=error.http_status >= 500)
        except Exception as error:  # one query must neither end the daemon nor stop the others
            log.exception("a continuous query failed by a defect of dsdbd", **_told(one))
            return self._failed(one, type(error).__name__, again=False)
        took_s = clock.monotonic_s() - begun_s
        self._failures.pop(key, None)
        self.counters["queryOk"] += 1
        if self._node.config.continuous_queries.log_enabled:
            log.info("continuous query executed", **_told(one), written=written, duration_s=round(took_s, 6))
        if self._node.config.continuous_queries.query_stats_enabled:
            await self._write_stats(one, written, took_s)
        return True

    def _failed(self, one: DueQuery, reason: str, *, again: bool) -> bool:
        """Count and log a failure; True when the query goes on with its next run."""
        key = (one.database, one.name)
        self.counters["queryFail"] += 1
        log.warning("continuous query failed", **_told(one), reason=reason, again=again)
        if again:
            times = self._failures.get(key, _Failures(0, 0.0)).times
            pause_s = min(2.0**times, _LONGEST_PAUSE_S)
            self._failures[key] = _Failures(times + 1, self._node.clock.monotonic_s() + pause_s)
        else:
            self._failures.pop(key, None)
        return not again

    async def _select_into(self, one: DueQuery) -> int:
        """The number of points that a run wrote. Raises DSDBError."""
        node, cancelled = self._node, Cancellation()
        now_ns = node.clock.now_ns()
        select = within(one.statement.source, one.run, now_ns)
        running = node.queries.begin(lambda: one.text, one.database, node.clock.monotonic_s(), cancelled.cancel)
        timeout_s = node.config.cluster.query_timeout_s
        timer = asyncio.get_running_loop().call_later(timeout_s, node.queries.time_out, running) if timeout_s else None
        try:
            return await self._into.run(select, database=one.database, now_ns=now_ns, cancelled=cancelled)
        finally:
            if timer is not None:
                timer.cancel()
            node.queries.end(running, node.clock.monotonic_s())

    async def _write_stats(self, one: DueQuery, written: int, took_s: float) -> None:
        """Write a point about a run; that it cannot be written is no failure of the query."""
        database = self._node.config.monitor.store_database
        values = {
            "durationNs": round(took_s * 1e9),
            "pointsWrittenOK": written,
            "startTime": one.run.start_ns,
            "endTime": one.run.end_ns,
        }
        point = Points(
            "cq_query",
            [Series("cq_query", (("cq", one.name), ("db", one.database))).key()],
            np.zeros(1, dtype=np.int32),
            np.array([self._node.clock.now_ns()], dtype=np.int64),
            {key: Column(FieldType.INTEGER, np.array([value], dtype=np.int64)) for key, value in values.items()},
        )
        try:
            await self._provide_stats_policy(database)
            await self._writes.write(
                database=database, policy=_STATS_POLICY.name or "", points=[point], consistency=Consistency.ONE
            )
        except DSDBError as error:
            log.warning("figures of a continuous query are not written", database=database, reason=error.message)

    async def _provide_stats_policy(self, database: str) -> None:
        known = self._node.metadata.state.databases.get(database)
        terms = _STATS_POLICY
        assert terms.name is not None
        if known is None:
            await self._node.metadata.propose(CreateDatabase(database, terms))
        elif terms.name not in known.policies:
            duration_ns, shard_ns = terms.duration_ns or 0, terms.shard_group_duration_ns or 0
            command = CreateRetentionPolicy(database, terms.name, duration_ns, terms.replica_n or 1, shard_ns)
            await self._node.metadata.propose(command)


@lru_cache(maxsize=1024)
def _statement(text: str) -> ast.CreateContinuousQuery | None:
    """The statement of a stored text; None, and a line in the log, for one that this version cannot run."""
    try:
        found = read_query(text)
        schedule_of(found, 0)
    except RequestError as error:
        log.warning("a continuous query cannot be run", query=text, reason=error.message)
        return None
    return found


def _told(one: DueQuery) -> dict[str, object]:
    """What the log says of a run."""
    start, end = time_text(one.run.start_ns), time_text(one.run.end_ns)
    return {"database": one.database, "name": one.name, "start": start, "end": end}
