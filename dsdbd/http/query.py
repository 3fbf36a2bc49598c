"""``/query``: InfluxQL in, JSON or CSV out, in one document or in chunks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from aiohttp import web

from dsdbd.cluster.reads import Cancellation
from dsdbd.cluster.statements import BY_POST, Series, StatementContext, execute
from dsdbd.errors import DSDBError, NotFound, RequestError
from dsdbd.http.answers import NOT_EXECUTED, Answer, Begun, Ended, Event, is_chunked
from dsdbd.http.disconnect import cancel_when_gone
from dsdbd.http.middleware import STREAMING
from dsdbd.http.tracking import tracked
from dsdbd.influxql import parse
from dsdbd.influxql.format import to_text
from dsdbd.logs import redact
from dsdbd.query import AnswerPart, QueryCancelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.cluster.freshness import Freshness
    from dsdbd.cluster.membership import Membership
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.cluster.writes import WritePath
    from dsdbd.http.auth import Authenticator
    from dsdbd.influxql import ast

log = structlog.get_logger("query")
_INLINE_CHARS = 2000
"""Statements up to this length are parsed on the event loop, in a millisecond or two."""
_BARRIER_TIMEOUT_S = 5.0


class QueryHandler:
    """Serves ``GET`` and ``POST /query``."""

    def __init__(
        self,
        node: Node,
        reads: ReadPath,
        writes: WritePath,
        membership: Membership,
        auth: Authenticator,
        freshness: Freshness,
    ) -> None:
        self._node = node
        self._freshness = freshness
        self._reads = reads
        self._writes = writes
        self._membership = membership
        self._auth = auth

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Run the statements in order; the first error stops the rest, as in InfluxDB 1.x."""
        form = await _parameters(request)
        await self._freshness.catch_up()
        user = await self._auth.user_of(request, form)
        text = form.get("q", "").strip()
        if not text:
            raise RequestError('missing required parameter "q"')
        bound = _bound(form.get("params", ""))
        if len(text) <= _INLINE_CHARS:
            statements = parse(text, bound)
        else:
            statements = await asyncio.to_thread(parse, text, bound)
        if self._node.config.data.query_log_enabled:
            log.info("statement", text=redact(text), database=form.get("db", ""))
        for statement in statements:
            self._auth.authorize(user, statement, form.get("db", ""))
        if form.get("consistency") == "linearizable":
            await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
        cancelled = Cancellation()
        context = StatementContext(
            self._node,
            self._reads,
            self._writes,
            self._membership,
            form.get("db", ""),
            form.get("rp", ""),
            self._node.clock.now_ns(),
            cancelled,
            user,
        )
        reading = request.method == "GET"
        answer = Answer(request, form, self._reads, cancelled, len(statements))
        send = answer.send_chunks if is_chunked(form) else answer.send_document
        try:
            with (
                tracked(request, self._node, statements, text, context.database, cancelled),
                cancel_when_gone(request, cancelled),
            ):
                async with contextlib.aclosing(self._run(statements, context, reading=reading)) as events:
                    return await send(events)
        except QueryCancelled as error:
            if request.get(STREAMING):
                raise
            answer = Answer(request, form, self._reads, Cancellation(), 1)
            return await answer.send_document(_refused(error))

    async def _run(
        self, statements: tuple[ast.Statement, ...], context: StatementContext, *, reading: bool
    ) -> AsyncGenerator[Event, None]:
        """Each statement's answer in turn; ``reading`` warns of changes, which belong into a POST."""
        failed = False
        for number, statement in enumerate(statements):
            if failed:
                yield Begun(number)
                yield Ended(number, NOT_EXECUTED)
                continue
            begun, reason = False, None
            try:
                context.cancelled.check()
                series = await self._execute(statement, context)
                messages = (("warning", _deprecation(statement)),) if reading and isinstance(statement, BY_POST) else ()
                begun = True
                yield Begun(number, messages)
                if isinstance(series, AsyncGenerator):
                    async with contextlib.aclosing(series):
                        async for part in series:
                            yield part
                else:
                    yield AnswerPart(await _collected(series, self._reads, context.cancelled))
            except DSDBError as error:
                if len(statements) == 1 and error.http_status >= 500:
                    # Nothing else was asked: a load balancer or client sees the failure in the status, too.
                    raise
                failed = True
                reason = context.cancelled.reason if isinstance(error, QueryCancelled) else error.message
            if not begun:
                yield Begun(number)
            yield Ended(number, reason)

    async def _execute(self, statement: ast.Statement, context: StatementContext) -> Series:
        """Carry out a statement; what this node does not know it looks for once more in the newest metadata."""
        try:
            return await execute(statement, context)
        except NotFound:
            if not await self._freshness.newer():
                raise
        return await execute(statement, context)


def _deprecation(statement: ast.Statement) -> str:
    return f"deprecated use of '{to_text(statement)}' in a read only context, please use a POST request instead"


async def _collected(series: Iterator[Any], reads: ReadPath, cancelled: Cancellation) -> list[Any]:
    """All rows of a statement about metadata or series."""
    if hasattr(series, "__length_hint__"):
        return list(series)

    def collect() -> list[Any]:
        rows = []
        for one in series:
            cancelled.check()
            rows.append(one)
        return rows

    return await cancelled.guard(reads.work(collect))


async def _refused(error: QueryCancelled) -> AsyncGenerator[Event, None]:
    """The answer to a request that may not even begin."""
    yield Begun(0)
    yield Ended(0, error.message)


async def _parameters(request: web.Request) -> dict[str, str]:
    """Parameters of URL and form together; the form wins, as in Go's ``FormValue``."""
    found = dict(request.query)
    if request.method == "POST":
        content_type = request.content_type
        if content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
            try:
                posted = await request.post()
            except ValueError as error:
                raise RequestError(f"the form cannot be read: {error}") from error
            for key, value in posted.items():
                if isinstance(value, web.FileField):
                    found[key] = value.file.read().decode(errors="replace")
                else:
                    found[key] = value if isinstance(value, str) else bytes(value).decode(errors="replace")
    return found


def _bound(text: str) -> dict[str, object]:
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise RequestError(f"error parsing query parameters: {error}") from error
