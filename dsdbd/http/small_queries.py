"""Ordinary queries that are answered at once, before the HTTP library; the others go the usual way."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

import structlog

from dsdbd.cluster.relayed_reads import document
from dsdbd.http.query_head import START, QueryHeaders, QueryLine, parse_headers, parse_line
from dsdbd.http.write_head import HEAD_END, MAX_HEAD_BYTES
from dsdbd.logs import redact

if TYPE_CHECKING:
    from dsdbd.cluster.freshness import Freshness
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.cluster.running import RunningQuery
    from dsdbd.http.auth import Authenticator

log = structlog.get_logger("query")
_MAX_HEADERS = 256
"""Headers of requests that are kept with their meaning: the clients of a daemon send few different ones."""
_MAX_ANSWER_BYTES = 1 << 18
"""Longer answers are sent in pieces, which is the library's work."""
_SLOW_S = 0.1
"""Far longer than an answer here takes: queries that count as slow before that are left to where they are watched."""
_GZIP = 16 + zlib.MAX_WBITS


class SmallQuery(NamedTuple):
    """An ordinary query request."""

    line: QueryLine
    headers: QueryHeaders


class SmallQueries:
    """Decides which requests are answered at once; use it on the event loop."""

    def __init__(self, node: Node, reads: ReadPath, auth: Authenticator, freshness: Freshness) -> None:
        self._node = node
        self._reads = reads.small
        self._relayed = reads.relayed
        self._auth = auth
        self._freshness = freshness
        settings = node.config.cluster
        self._most_rows = node.config.http.max_row_limit
        # Queries that are counted, or soon called slow, must be among the running ones while they run; limits of what
        # one SELECT may read are looked at in the usual way only.
        limits = settings.max_select_point or settings.max_select_series or settings.max_select_buckets
        slow_s = settings.log_queries_after_s
        self._watched = bool(settings.max_concurrent_queries or limits) or 0 < slow_s < _SLOW_S
        self._headers: dict[bytes, QueryHeaders | None] = {}

    def parsed(self, data: bytes) -> SmallQuery | None:
        """The meaning of a whole request; None where it is not one that may be answered here."""
        if not data.startswith(START) or len(data) > MAX_HEAD_BYTES or not data.endswith(HEAD_END):
            return None
        if self._watched or self._auth.enabled or not self._freshness.caught_up:
            return None
        first, _, rest = data[:-2].partition(b"\r\n")
        headers = self._known(rest)
        line = None if headers is None else parse_line(first)
        return None if headers is None or line is None else SmallQuery(line, headers)

    def answer(self, asked: SmallQuery) -> bytes | None:
        """The body of the answer, gzipped where the headers ask for it; None where this node has none at once."""
        line = asked.line
        started_s = self._node.clock.monotonic_s()
        blocks = self._reads.answer(line.text, line.database, line.policy, self._node.clock.now_ns())
        if blocks is None or 0 < self._most_rows <= sum(map(len, blocks)):
            return None
        body = document(blocks, line.epoch)
        if len(body) > _MAX_ANSWER_BYTES:
            return None
        self._log(line)
        self._end(self._begin(line, started_s))
        return _packed(asked, body)

    def owner_address(self, asked: SmallQuery) -> str | None:
        """Another node that may have an answer at once; None where none is to be asked."""
        line = asked.line
        return None if self._most_rows else self._relayed.owner_address(line.text, line.database, line.policy)

    async def answer_of(self, address: str, asked: SmallQuery) -> bytes | None:
        """As ``answer``, from another node."""
        line = asked.line
        running = self._begin(line, self._node.clock.monotonic_s())
        try:
            body = await self._relayed.ask(address, line.text, line.database, line.policy, line.epoch)
        finally:
            self._end(running)
        if body is None or len(body) > _MAX_ANSWER_BYTES:
            return None
        self._log(line)
        return _packed(asked, body)

    def _begin(self, line: QueryLine, started_s: float) -> RunningQuery:
        return self._node.queries.begin(lambda: line.text, line.database, started_s, lambda _: None)

    def _end(self, running: RunningQuery) -> None:
        self._node.queries.end(running, self._node.clock.monotonic_s())

    def _log(self, line: QueryLine) -> None:
        if self._node.config.data.query_log_enabled:
            log.info("statement", text=redact(line.text), database=line.database)

    def _known(self, lines: bytes) -> QueryHeaders | None:
        found = self._headers.get(lines)
        if found is None and lines not in self._headers:
            if len(self._headers) >= _MAX_HEADERS:
                self._headers.clear()
            found = self._headers[lines] = parse_headers(lines)
        return found


def _packed(asked: SmallQuery, body: bytes) -> bytes:
    if not asked.headers.packed:
        return body
    packer = zlib.compressobj(wbits=_GZIP)
    return packer.compress(body) + packer.flush()
