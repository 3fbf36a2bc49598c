"""The queries a node answers now: their numbers, how many there may be, and ending one. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsdbd.errors import RequestError
from dsdbd.meta.rows import duration_text
from dsdbd.query import QueryCancelled

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = "query interrupted"
TIMED_OUT = "query-timeout limit exceeded"
_RUNNING, _KILLED = "running", "killed"
_UNITS_NS = (10**9, 10**6, 10**3)

Row = tuple[int, str, str, str, str]
"""Of SHOW QUERIES: number, text, database, how long it runs, whether it runs or was killed."""
COLUMNS = ("qid", "query", "database", "duration", "status")


@dataclass(slots=True, eq=False)
class RunningQuery:
    """One request for statements. ``text`` makes its text without passwords, ``stop`` ends it for the given reason."""

    qid: int
    text: Callable[[], str]
    database: str
    started_s: float
    stop: Callable[[str], None]
    ended_by: str = ""
    """Why it was told to stop; empty while nobody did."""


class RunningQueries:
    """The queries of one node, numbered from 1 since its start; for its event loop."""

    def __init__(self) -> None:
        self._queries: dict[int, RunningQuery] = {}
        self._last = 0
        self._finished = self._killed = self._timed_out = self._refused = 0
        self._duration_s = 0.0

    def begin(
        self, text: Callable[[], str], database: str, now_s: float, stop: Callable[[str], None], *, most: int = 0
    ) -> RunningQuery:
        """Enter a query. ``most`` is how many there may be, this one included; 0 for any number.

        Raises QueryCancelled when there are as many already.
        """
        if 0 < most <= len(self._queries):
            self._refused += 1
            raise QueryCancelled(f"max-concurrent-queries limit exceeded({len(self._queries)}, {most})")
        self._last += 1
        query = RunningQuery(self._last, text, database, now_s, stop)
        self._queries[query.qid] = query
        return query

    def end(self, query: RunningQuery, now_s: float) -> None:
        """Forget a query, whose answer was sent or not."""
        if self._queries.pop(query.qid, None) is not None:
            self._finished += 1
            self._duration_s += max(now_s - query.started_s, 0.0)

    def kill(self, qid: int) -> None:
        """End a query; it stays listed until its request has ended. Raises RequestError for one that is not running."""
        query = self._queries.get(qid)
        if query is None:
            raise RequestError(f"no such query id: {qid}")
        if query.ended_by:
            raise RequestError("already killed")
        self._killed += 1
        self._stop(query, INTERRUPTED)

    def time_out(self, query: RunningQuery) -> None:
        """End a query that took longer than it may."""
        if query.qid in self._queries and not query.ended_by:
            self._timed_out += 1
            self._stop(query, TIMED_OUT)

    @staticmethod
    def _stop(query: RunningQuery, reason: str) -> None:
        query.ended_by = reason
        query.stop(reason)

    def rows(self, now_s: float) -> list[Row]:
        """What SHOW QUERIES prints, oldest first."""
        return [
            (
                query.qid,
                query.text(),
                query.database,
                _age_text(now_s - query.started_s),
                _KILLED if query.ended_by else _RUNNING,
            )
            for query in self._queries.values()
        ]

    def stats(self) -> dict[str, int]:
        """Counters since the start, with the names of InfluxDB 1.x where it has them."""
        return {
            "queriesActive": len(self._queries),
            "queriesExecuted": self._last,
            "queriesFinished": self._finished,
            "queriesKilled": self._killed,
            "queriesRefused": self._refused,
            "queriesTimedOut": self._timed_out,
            "queryDurationNs": round(self._duration_s * 1e9),
        }


def _age_text(age_s: float) -> str:
    """A duration cut to its greatest unit of s, ms, µs: ``1m5s``, ``305ms``, ``89µs``."""
    age_ns = max(int(age_s * 1e9), 0)
    unit_ns = next((unit for unit in _UNITS_NS if age_ns >= unit), 1)
    return duration_text(age_ns - age_ns % unit_ns)
