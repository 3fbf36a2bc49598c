"""A request's place in the list of running queries: entered, watched by timers, and left when its answer is sent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from dsdbd.http.middleware import STREAMING
from dsdbd.influxql import ast, ast_show
from dsdbd.influxql.format import to_text
from dsdbd.limits import MAX_SHOWN_QUERY_CHARS
from dsdbd.logs import redact
from dsdbd.meta.rows import duration_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import Cancellation

log = structlog.get_logger("query")
_GRACE_S = 1.0
"""How long the rest of an answer may take after its query was ended."""
_ALWAYS = (ast_show.ShowQueries, ast.KillQuery)
"""Statements that are never too many: they are how one finds and ends the others."""


@contextlib.contextmanager
def tracked(
    request: web.Request,
    node: Node,
    statements: tuple[ast.Statement, ...],
    text: str,
    database: str,
    cancelled: Cancellation,
) -> Iterator[None]:
    """Within the block the request is a running query, which KILL QUERY and ``[cluster] query-timeout`` can end.

    Ending cancels its work at once. When its answer is not out soon after, because the client takes nothing of it, the
    connection is broken off. Raises QueryCancelled when ``[cluster] max-concurrent-queries`` run already.
    """
    settings, loop = node.config.cluster, asyncio.get_running_loop()
    most = 0 if all(isinstance(statement, _ALWAYS) for statement in statements) else settings.max_concurrent_queries
    timers: list[asyncio.TimerHandle] = []

    def break_off() -> None:
        if request.get(STREAMING) and request.transport is not None:
            request.transport.abort()

    def stop(reason: str) -> None:
        cancelled.cancel(reason)
        timers.append(loop.call_later(_GRACE_S, break_off))

    running = node.queries.begin(lambda: _shown(statements, text), database, node.clock.monotonic_s(), stop, most=most)

    def slow() -> None:
        threshold = duration_text(int(settings.log_queries_after_s * 1e9))
        log.warning("slow query", text=running.text(), qid=running.qid, database=database, threshold=threshold)

    if settings.query_timeout_s:
        timers.append(loop.call_later(settings.query_timeout_s, node.queries.time_out, running))
    if settings.log_queries_after_s:
        timers.append(loop.call_later(settings.log_queries_after_s, slow))
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        node.queries.end(running, node.clock.monotonic_s())


def _shown(statements: tuple[ast.Statement, ...], text: str) -> str:
    """The statements in normal form, one a line; of a long text its beginning, as it was given. No passwords."""
    if len(text) <= MAX_SHOWN_QUERY_CHARS:
        return ";\n".join(to_text(statement) for statement in statements)
    return redact(text[:MAX_SHOWN_QUERY_CHARS]) + "…"
