"""Ordinary queries that are answered at once, before the HTTP library; the others go the usual way."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

import structlog

from dsdbd.http.query_head import START, QueryHeaders, QueryLine, parse_headers, parse_line
from dsdbd.http.write_head import HEAD_END, MAX_HEAD_BYTES
from dsdbd.logs import redact
from dsdbd.query import AnswerPart, JsonDocument

if TYPE_CHECKING:
    from dsdbd.cluster.freshness import Freshness
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.small_reads import SmallReads
    from dsdbd.http.auth import Authenticator
    from dsdbd.query import SeriesBlock

log = structlog.get_logger("query")
_MAX_HEADERS = 256
"""Headers of requests that are kept with their meaning: the clients of a daemon send few different ones."""
_MAX_ANSWER_BYTES = 1 << 18
"""Longer answers are sent in pieces, which is the library's work."""
_SLOW_S = 0.1
"""Far longer than an answer here takes: queries that count as slow before that are left to where they are watched."""
_GZIP = 16 + zlib.MAX_WBITS


class SmallAnswer(NamedTuple):
    """An answered query. ``body`` is gzipped where the headers ask for it."""

    line: QueryLine
    headers: QueryHeaders
    body: bytes


class SmallQueries:
    """Decides which requests are answered at once; use it on the event loop."""

    def __init__(self, node: Node, reads: SmallReads, auth: Authenticator, freshness: Freshness) -> None:
        self._node = node
        self._reads = reads
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

    def answer(self, data: bytes) -> SmallAnswer | None:
        """The answer to a whole request; None where it is not one that is answered here."""
        if not data.startswith(START) or len(data) > MAX_HEAD_BYTES or not data.endswith(HEAD_END):
            return None
        if self._watched or self._auth.enabled or not self._freshness.caught_up:
            return None
        first, _, rest = data[:-2].partition(b"\r\n")
        headers = self._known(rest)
        line = None if headers is None else parse_line(first)
        if headers is None or line is None:
            return None
        blocks = self._rows(line)
        if blocks is None:
            return None
        body = _document(blocks, line.epoch)
        if len(body) > _MAX_ANSWER_BYTES:
            return None
        return SmallAnswer(line, headers, _gzipped(body) if headers.packed else body)

    def _known(self, lines: bytes) -> QueryHeaders | None:
        found = self._headers.get(lines)
        if found is None and lines not in self._headers:
            if len(self._headers) >= _MAX_HEADERS:
                self._headers.clear()
            found = self._headers[lines] = parse_headers(lines)
        return found

    def _rows(self, line: QueryLine) -> list[SeriesBlock] | None:
        node = self._node
        started_s = node.clock.monotonic_s()
        blocks = self._reads.answer(line.text, line.database, line.policy)
        if blocks is None or 0 < self._most_rows <= sum(map(len, blocks)):
            return None
        if node.config.data.query_log_enabled:
            log.info("statement", text=redact(line.text), database=line.database)
        running = node.queries.begin(lambda: line.text, line.database, started_s, lambda _: None)
        node.queries.end(running, node.clock.monotonic_s())
        return blocks


def _document(blocks: list[SeriesBlock], epoch: str | None) -> bytes:
    document = JsonDocument(epoch=epoch)
    return b"".join((document.begin(0), *document.part(AnswerPart(blocks)), document.end(), document.close()))


def _gzipped(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=_GZIP)
    return packer.compress(body) + packer.flush()
