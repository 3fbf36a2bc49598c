"""``POST /write``: line protocol in, 204 out when enough owners have the points on stable storage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from dsdbd.cluster.acks import parse_consistency
from dsdbd.errors import BodyTooLarge, NotFound, PartialWrite, RequestError, UnparsablePoints
from dsdbd.limits import MAX_REPORTED_LINES
from dsdbd.model.line_protocol import PRECISIONS_NS, parse_lines

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.writes import WritePath
    from dsdbd.http.auth import Authenticator
    from dsdbd.model.line_protocol import LineError, Parsed

_INLINE_BYTES = 4096
"""Bodies up to this size are parsed on the event loop: cheaper than handing them to a thread, and well under a
millisecond."""


class WriteHandler:
    """Serves ``/write``."""

    def __init__(self, node: Node, writes: WritePath, auth: Authenticator) -> None:
        self._node = node
        self._writes = writes
        self._auth = auth

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Store the body's points; 204, or the errors of InfluxDB 1.x."""
        params = request.query
        user = await self._auth.user_of(request, {})
        database = params.get("db", "")
        if not database:
            raise RequestError("database is required")
        if database not in self._node.metadata.state.databases:
            raise NotFound(f'database not found: "{database}"')
        self._auth.authorize_write(user, database)
        precision = params.get("precision", "")
        if precision not in PRECISIONS_NS:
            raise RequestError(f'invalid precision "{precision}" (use n, ns, u, us, ms, s, m or h)')
        consistency = parse_consistency(params.get("consistency", ""))
        body = await read_body(request, self._node.config.http.max_body_size_bytes)
        if not body:
            return web.Response(status=200)
        if body.lstrip()[:1] == b"{":
            raise RequestError("JSON write protocol has been deprecated")
        now_ns = self._node.clock.now_ns()
        if len(body) <= _INLINE_BYTES:
            parsed = parse_lines(body, precision=precision, default_time_ns=now_ns)
        else:
            parsed = await asyncio.to_thread(parse_lines, body, precision=precision, default_time_ns=now_ns)
        if not parsed.rows:
            _raise_unparsable(parsed)
            return web.Response(status=204)
        dropped = await self._writes.write(
            database=database, policy=params.get("rp", ""), points=parsed.points, consistency=consistency
        )
        reasons = [error.message for error in parsed.errors] + _more(parsed.error_count, parsed.errors)
        count = parsed.conflict_count + sum(drop.count for drop in dropped)
        if count:
            conflicts = [conflict.reason for conflict in parsed.conflicts[:1]]
            reasons.append((conflicts + [drop.reason for drop in dropped])[0])
        if reasons:
            raise PartialWrite(f"partial write: {chr(10).join(reasons)} dropped={count}")
        return web.Response(status=204)


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


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """The body, unpacked when it came gzipped; raises BodyTooLarge before more than the limit is held."""
    if request.content_length is not None and request.content_length > limit_bytes:
        raise BodyTooLarge("Request Entity Too Large")
    parts: list[bytes] = []
    size_bytes = 0
    try:
        async for part in request.content.iter_any():
            parts.append(part)
            size_bytes += len(part)
            if size_bytes > limit_bytes:
                raise BodyTooLarge("Request Entity Too Large")
    except (aiohttp.ClientPayloadError, aiohttp.http_exceptions.PayloadEncodingError, web.RequestPayloadError) as error:
        raise RequestError(f"the request body cannot be unpacked: {error}") from error
    return b"".join(parts)
