"""When a continuous query is due and which times it then selects: functions of the query, its last run and the time.

The arithmetic is that of InfluxDB 1.x, with two additions. How far a query has come is kept in the metadata, so that
whoever leads next goes on there; and a run never begins later than where the one before ended, whatever EVERY and FOR
are: in 1.x some windows keep what an early run found when EVERY is no divisor or multiple of the interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from dsdbd.errors import RequestError
from dsdbd.influxql import ast, parse
from dsdbd.influxql.condition import split_condition
from dsdbd.influxql.reduce import join_conditions
from dsdbd.limits import MAX_CONTINUOUS_QUERY_WINDOWS
from dsdbd.query.plan_check import time_dimension
from dsdbd.query.zones import zone_offsets

Zone = Callable[[int], int]
"""What must be added to a time (ns) for the local one (ns)."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A continuous query's GROUP BY time and RESAMPLE in nanoseconds.

    ``every_ns`` and ``for_ns`` are 0 where not given; ``zone`` is the name given to ``tz()``, empty for UTC.
    """

    interval_ns: int
    offset_ns: int = 0
    every_ns: int = 0
    for_ns: int = 0
    zone: str = ""

    @property
    def pace_ns(self) -> int:
        """Time between two runs."""
        return self.every_ns or self.interval_ns

    @property
    def reach_ns(self) -> int:
        """How far back a run selects."""
        return self.for_ns or max(self.interval_ns, self.pace_ns)


class Run(NamedTuple):
    """A run that is due: the times ``start_ns`` <= t < ``end_ns``, and up to when the query has then been run.

    Where ``start_ns`` is not before ``end_ns`` there is nothing to select, and only ``last_run_ns`` is to be recorded.
    """

    start_ns: int
    end_ns: int
    last_run_ns: int


def due(schedule: Schedule, last_run_ns: int | None, now_ns: int) -> Run | None:
    """The run that is due; None while there is none.

    ``last_run_ns`` None means that the query never ran. One that was away for long catches up in steps of at most
    MAX_CONTINUOUS_QUERY_WINDOWS windows, each as if it were that time. A last run that lies more than a pace ahead was
    recorded by a clock that was wrong, and counts as none.
    """
    zone = _zone(schedule.zone)
    pace_ns, interval_ns, offset_ns = schedule.pace_ns, schedule.interval_ns, schedule.offset_ns
    if last_run_ns is not None and last_run_ns > now_ns + pace_ns:
        last_run_ns = None
    if last_run_ns is None:
        next_ns = now_ns
    else:
        next_ns = _following(last_run_ns, pace_ns, zone)
        if next_ns > now_ns:
            return None
        now_ns = min(now_ns, last_run_ns + max(pace_ns, interval_ns * MAX_CONTINUOUS_QUERY_WINDOWS))
        now_ns = max(now_ns, next_ns)
    start_ns = _window(next_ns + interval_ns - schedule.reach_ns - 1, interval_ns, offset_ns, zone)
    if last_run_ns is not None:
        start_ns = min(start_ns, _window(last_run_ns, interval_ns, offset_ns, zone))
    # With a pace below the interval the window that is not over yet is selected as well.
    end_ns = _window(now_ns + interval_ns - min(pace_ns, interval_ns), interval_ns, offset_ns, zone)
    return Run(start_ns, end_ns, _window(now_ns, pace_ns, offset_ns, zone))


def schedule_of(statement: ast.CreateContinuousQuery, now_ns: int) -> Schedule | None:
    """The schedule of a continuous query; None for one without GROUP BY time, which is never run.

    ``now_ns`` is what ``now()`` means as the offset of GROUP BY time. Raises RequestError.
    """
    select = statement.source
    interval_ns, offset_ns = time_dimension(select.dimensions, now_ns)
    if not interval_ns:
        return None
    return Schedule(
        interval_ns, offset_ns, statement.resample_every_ns, statement.resample_for_ns, select.timezone or ""
    )


def read_query(text: str) -> ast.CreateContinuousQuery:
    """The statement of a stored continuous query; raises RequestError for a text that is none."""
    statements = parse(text)
    if len(statements) != 1 or not isinstance(statements[0], ast.CreateContinuousQuery):
        raise RequestError(f"not a continuous query: {text}")
    return statements[0]


def within(select: ast.Select, run: Run, now_ns: int) -> ast.Select:
    """The SELECT for the times of a run, which replace those of its WHERE. Raises RequestError."""
    condition, _ = split_condition(select.condition, now_ns)
    time = ast.VarRef("time")
    times: ast.Expr = ast.BinaryExpr(
        "AND",
        ast.BinaryExpr(">=", time, ast.TimeLiteral(run.start_ns)),
        ast.BinaryExpr("<", time, ast.TimeLiteral(run.end_ns)),
    )
    if condition is not None:
        times = join_conditions("AND", ast.ParenExpr(condition), times)
    return replace(select, condition=times)


def _following(last_ns: int, pace_ns: int, zone: Zone) -> int:
    """When the next run is due, moved with the clock where it was changed in between."""
    next_ns = last_ns + pace_ns
    moved = zone(last_ns - 1) - zone(next_ns - 1)
    return next_ns + moved if abs(moved) < pace_ns else next_ns


def _window(time_ns: int, length_ns: int, offset_ns: int, zone: Zone) -> int:
    """The start of the window of a length that holds a time, by local clocks."""
    time_ns -= offset_ns
    here = zone(time_ns)
    start_ns = time_ns - (time_ns + here) % length_ns
    moved = here - zone(start_ns)
    if abs(moved) < length_ns:
        start_ns += moved
    return start_ns + offset_ns


def _zone(name: str) -> Zone:
    if not name:
        return lambda _: 0
    return lambda time_ns: int(zone_offsets(name, np.array([time_ns], dtype=np.int64))[0])
