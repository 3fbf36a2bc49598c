"""A request's place in the list of running queries: entered, watched by timers, and left when its answer is sent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from dsdbd.influxql import ast, ast_show
from dsdbd.influxql.format import to_text
from dsdbd.limits import MAX_SHOWN_QUERY_CHARS
from dsdbd.logs import redact
from dsdbd.meta.rows import duration_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import Cancellation

log = structlog.get_logger("query")
_ALWAYS = (ast_show.ShowQueries, ast.KillQuery)
"""Statements that are never too many: they are how one finds and ends the others."""


@contextlib.contextmanager
def tracked(
    node: Node, statements: tuple[ast.Statement, ...], text: str, database: str, cancelled: Cancellation
) -> Iterator[None]:
    """Within the block the request is a running query, which KILL QUERY and ``[cluster] query-timeout`` can end.

    Raises QueryCancelled when ``[cluster] max-concurrent-queries`` run already.
    """
    settings, loop = node.config.cluster, asyncio.get_running_loop()
    most = 0 if all(isinstance(statement, _ALWAYS) for statement in statements) else settings.max_concurrent_queries
    running = node.queries.begin(
        lambda: _shown(statements, text), database, node.clock.monotonic_s(), cancelled.cancel, most=most
    )

    def slow() -> None:
        threshold = duration_text(int(settings.log_queries_after_s * 1e9))
        log.warning("slow query", text=running.text(), qid=running.qid, database=database, threshold=threshold)

    timers: list[asyncio.TimerHandle] = []
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
