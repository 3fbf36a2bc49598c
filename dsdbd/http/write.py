"""``POST /write``: line protocol in, 204 out when enough owners have the points on stable storage."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from aiohttp import web

from dsdbd.cluster.acks import parse_consistency
from dsdbd.cluster.budget import ByteBudget
from dsdbd.errors import NotFound, PartialWrite, RequestError, UnparsablePoints
from dsdbd.http.body import read_body
from dsdbd.http.responses import no_content
from dsdbd.limits import MAX_REPORTED_LINES, MAX_WRITE_BYTES_HELD
from dsdbd.meta import views
from dsdbd.model.line_protocol import parse_lines
from dsdbd.model.times import PRECISION_NS

if TYPE_CHECKING:
    from dsdbd.cluster.acks import Consistency
    from dsdbd.cluster.freshness import Freshness
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.writes import WritePath
    from dsdbd.http.auth import Authenticator
    from dsdbd.model.line_protocol import LineError, Parsed

_INLINE_BYTES = 4096
"""Bodies up to this size are parsed on the event loop: cheaper than handing them to a thread, and well under a
millisecond."""


class WriteHandler:
    """Serves ``/write``."""

    def __init__(self, node: Node, writes: WritePath, auth: Authenticator, freshness: Freshness) -> None:
        self._node = node
        self._freshness = freshness
        self._writes = writes
        self._auth = auth
        self._bodies = ByteBudget(MAX_WRITE_BYTES_HELD, "points that are being written")

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Store the body's points; 204, or the errors of InfluxDB 1.x."""
        params = request.query
        await self._freshness.catch_up()
        user = await self._auth.user_of(request, {})
        database = params.get("db", "")
        if not database:
            raise RequestError("database is required")
        databases = self._node.metadata.state.databases
        if database not in databases and not (
            await self._freshness.newer() and database in self._node.metadata.state.databases
        ):
            raise NotFound(f'database not found: "{database}"')
        self._auth.authorize_write(user, database)
        precision = params.get("precision") or "ns"
        if precision not in PRECISION_NS:
            raise RequestError(f'invalid precision "{precision}" (use n, ns, u, us, ms, s, m or h)')
        consistency = parse_consistency(params.get("consistency", ""))
        with self._bodies.held() as hold:
            body = await read_body(request, self._node.config.http.max_body_size_bytes, hold)
            await self._store(body, database, precision, consistency, params.get("rp", ""))
        return no_content()

    async def _store(self, body: bytes, database: str, precision: str, consistency: Consistency, policy: str) -> None:
        """Parse and store; raises what the answer shall say."""
        if body[:64].lstrip()[:1] == b"{":
            raise RequestError("JSON write protocol has been deprecated")
        now_ns = self._node.clock.now_ns()
        # The types that hold already decide which rows of a body are in conflict, not the row that comes first.
        known_types = functools.partial(views.known_types, self._node.metadata.state, database, policy)
        parse = functools.partial(
            parse_lines, body, precision=precision, default_time_ns=now_ns, known_types=known_types
        )
        parsed = parse() if len(body) <= _INLINE_BYTES else await asyncio.to_thread(parse)
        if not parsed.rows:
            _raise_unparsable(parsed)
            return
        dropped = await self._writes.write(
            database=database, policy=policy, points=parsed.points, consistency=consistency
        )
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
