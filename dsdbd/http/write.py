"""``POST /write``: line protocol in, 204 out when enough owners have the points on stable storage."""

from __future__ import annotations

import asyncio
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import structlog

from dsdbd.cluster.acks import Consistency, late, outcome_of, parse_consistency
from dsdbd.cluster.budget import ByteBudget
from dsdbd.errors import DSDBError, NotFound, OutcomeUnknown, PartialWrite, RequestError, UnparsablePoints
from dsdbd.http.body import read_body
from dsdbd.http.counters import HttpCounters
from dsdbd.http.responses import no_content
from dsdbd.http.v2 import write_params
from dsdbd.limits import MAX_REPORTED_LINES, MAX_WRITE_BYTES_HELD
from dsdbd.logs import redact
from dsdbd.meta import views
from dsdbd.model.line_protocol import parse_lines
from dsdbd.model.times import PRECISION_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import web

    from dsdbd.cluster.freshness import Freshness
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.writes import Dropped, Stored, WritePath
    from dsdbd.http.auth import Authenticator
    from dsdbd.http.credentials import Credentials
    from dsdbd.model.line_protocol import LineError, Parsed

log = structlog.get_logger("http")
INLINE_BYTES = 4096
"""Bodies up to this size are parsed on the event loop: cheaper than handing them to a thread, and well under a
millisecond."""
_PARSE_THREADS = max(2, os.cpu_count() or 1)
"""Bodies that are parsed at the same time; more threads than cores would only take the interpreter from each other."""


class Target(NamedTuple):
    """What the address of a write request says."""

    database: str
    policy: str
    precision: str
    consistency: Consistency


def target_of(params: Mapping[str, str]) -> Target:
    """The target of a request with these parameters. Raises RequestError in the words of InfluxDB 1.x."""
    database = params.get("db", "")
    if not database:
        raise RequestError("database is required")
    precision = params.get("precision") or "ns"
    if precision not in PRECISION_NS:
        raise RequestError(f'invalid precision "{precision}" (use n, ns, u, us, ms, s, m or h)')
    return Target(database, params.get("rp", ""), precision, parse_consistency(params.get("consistency", "")))


class WriteHandler:
    """Serves ``/write``."""

    def __init__(self, node: Node, writes: WritePath, auth: Authenticator, freshness: Freshness) -> None:
        self._node = node
        self._freshness = freshness
        self._writes = writes
        self._auth = auth
        self.counters = HttpCounters()
        self._threads = ThreadPoolExecutor(_PARSE_THREADS, thread_name_prefix="dsdb-parse")
        self.bodies = ByteBudget(MAX_WRITE_BYTES_HELD, "points that are being written")

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Store the body's points; 204, or the errors of InfluxDB 1.x."""
        return await self._serve(request, lambda: request.query)

    async def v2(self, request: web.Request) -> web.StreamResponse:
        """The same for a request of a client of InfluxDB 2.x."""
        return await self._serve(request, lambda: write_params(request.query))

    async def _serve(self, request: web.Request, read: Callable[[], Mapping[str, str]]) -> web.StreamResponse:
        await self._freshness.catch_up()
        user = await self._auth.user_of(request, {})
        params = read()
        database = params.get("db", "")
        if not database:
            raise RequestError("database is required")
        databases = self._node.metadata.state.databases
        if database not in databases and not (
            await self._freshness.newer() and database in self._node.metadata.state.databases
        ):
            raise NotFound(f'database not found: "{database}"')
        self._auth.authorize_write(user, database)
        target = target_of(params)
        with self.bodies.held() as hold:
            body = await read_body(request, self._node.config.http.max_body_size_bytes, hold)
            try:
                await self.store(body, target)
            except Exception as error:
                if not isinstance(error, DSDBError):
                    log.exception("a request failed by a defect of dsdbd", method="POST", path=redact(request.path_qs))
                raise outcome_of(error) from error
        return no_content(request)

    def takes(self, target: Target, given: Credentials | None) -> bool:
        """Whether nothing but the body decides what comes of a request: known credentials, no newer metadata."""
        if not self._freshness.caught_up or target.database not in self._node.metadata.state.databases:
            return False
        if not self._auth.enabled:
            return True
        user = self._auth.known_user(given)
        return user is not None and self._auth.may_write(user, target.database)

    async def store(self, body: bytes, target: Target) -> None:
        """Parse and store a body; raises what the answer shall say."""
        now_ns = self._node.clock.now_ns()
        version = self._writes.version()
        if len(body) <= INLINE_BYTES:
            parsed, stored = self._parse_and_store(body, target, version, now_ns, in_thread=False)
        else:
            # One hop takes a body from its bytes into the queue of the log.
            work = functools.partial(self._parse_and_store, body, target, version, now_ns, in_thread=True)
            parsed, stored = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        dropped: list[Dropped] = []
        if stored is not None:
            await self._stored(stored, parsed.rows)
        elif parsed.rows:
            dropped = await self._writes.write(
                database=target.database, policy=target.policy, points=parsed.points, consistency=target.consistency
            )
        else:
            _raise_unparsable(parsed)
        _raise_partial(parsed, dropped)

    def parse(self, body: bytes, target: Target, now_ns: int) -> Parsed:
        """The points of a body; ``now_ns`` is the time of those without one. Any thread may call it."""
        # The types that hold already decide which rows of a body are in conflict, not the row that comes first.
        known_types = functools.partial(views.known_types, self._node.metadata.state, target.database, target.policy)
        return parse_lines(body, precision=target.precision, default_time_ns=now_ns, known_types=known_types)

    def store_here(
        self, parsed: Parsed, target: Target, version: int, now_ns: int, *, in_thread: bool
    ) -> Stored | None:
        """Hand parsed points to this node's log; None where only the general way can store them."""
        return self._writes.store_here(
            database=target.database,
            policy=target.policy,
            points=parsed.points,
            version=version,
            now_ns=now_ns,
            in_thread=in_thread,
        )

    def _parse_and_store(
        self, body: bytes, target: Target, version: int, now_ns: int, *, in_thread: bool
    ) -> tuple[Parsed, Stored | None]:
        if body[:64].lstrip()[:1] == b"{":
            raise RequestError("JSON write protocol has been deprecated")
        parsed = self.parse(body, target, now_ns)
        if not parsed.rows:
            return parsed, None
        return parsed, self.store_here(parsed, target, version, now_ns, in_thread=in_thread)

    async def _stored(self, stored: Stored, rows: int) -> None:
        """Wait until every batch is durable and visible; raises the error of those that are not."""
        timeout_s = self._node.config.cluster.write_timeout_s
        error: BaseException | None
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(asyncio.wrap_future(future) for _, future in stored), return_exceptions=True)
            error = self._writes.failure_of(stored)
        except TimeoutError:
            error = OutcomeUnknown(late(stored[0][0], timeout_s))
        self._writes.count_stored(1, rows, error)
        if error is not None:
            raise error


def _raise_partial(parsed: Parsed, dropped: list[Dropped]) -> None:
    """Raise for lines and rows that were not stored while the others were."""
    reasons = [error.message for error in parsed.errors] + _more(parsed.error_count, parsed.errors)
    count = parsed.conflict_count + sum(drop.count for drop in dropped)
    if count:
        conflicts = [conflict.reason for conflict in parsed.conflicts[:1]]
        reasons.append((conflicts + [drop.reason for drop in dropped])[0])
    if reasons:
        raise PartialWrite(f"partial write: {chr(10).join(reasons)} dropped={count}")


def _raise_unparsable(parsed: Parsed) -> None:
    """Raise for a body without a good line; a body of comments and blank lines is no error."""
    lines = [error.message for error in parsed.errors] + _more(parsed.error_count, parsed.errors)
    if parsed.conflicts:
        raise PartialWrite(f"partial write: {parsed.conflicts[0].reason} dropped={parsed.conflict_count}")
    if lines:
        raise UnparsablePoints("\n".join(lines))


def _more(count: int, shown: tuple[LineError, ...]) -> list[str]:
    left = count - len(shown)
    return [f"{left} more lines like these (the first {MAX_REPORTED_LINES} are named)"] if left > 0 else []
