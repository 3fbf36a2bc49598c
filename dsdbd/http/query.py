"""``/query``: InfluxQL in, JSON or CSV out, in one document or in chunks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from aiohttp import web

from dsdbd.cluster.budget import ByteBudget
from dsdbd.cluster.demand import Demand, parse_read_level
from dsdbd.cluster.reads import Cancellation
from dsdbd.cluster.statements import Series, StatementContext, by_post, execute
from dsdbd.decoding import json_decoder
from dsdbd.errors import DSDBError, NotFound, Overloaded, RequestError
from dsdbd.http.answers import Answer, is_chunked
from dsdbd.http.disconnect import cancel_when_gone
from dsdbd.http.events import NOT_EXECUTED, Begun, Chunking, Ended, Event
from dsdbd.http.middleware import STREAMING
from dsdbd.http.responses import no_content
from dsdbd.http.row_limit import limit_rows
from dsdbd.http.tracking import tracked
from dsdbd.influxql import ast, ast_show, parse
from dsdbd.influxql.format import to_text
from dsdbd.limits import MAX_ASYNC_QUERIES, MAX_MSGPACK_BYTES_HELD
from dsdbd.logs import redact
from dsdbd.query import AnswerPart, QueryCancelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.cluster.freshness import Freshness
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.cluster.statements import NodeParts
    from dsdbd.http.auth import Authenticator

_bound_decoder = json_decoder(dict[str, object] | None)
log = structlog.get_logger("query")
_INLINE_CHARS = 2000
"""Statements up to this length are parsed on the event loop, in a millisecond or two."""
_BARRIER_TIMEOUT_S = 5.0
_BY_ROWS = (
    ast.Select,
    ast_show.ShowSeries,
    ast_show.ShowFieldKeys,
    ast_show.ShowSeriesCardinality,
    ast_show.ShowMeasurementCardinality,
    ast_show.ShowTagKeyCardinality,
    ast_show.ShowFieldKeyCardinality,
    ast_show.ShowTagValuesCardinality,
)
_BY_SERIES = (ast_show.ShowTagKeys, ast_show.ShowTagValues)


class QueryHandler:
    """Serves ``GET`` and ``POST /query``."""

    def __init__(self, parts: NodeParts, auth: Authenticator, freshness: Freshness) -> None:
        self._parts = parts
        self._node = parts.node
        self._reads = parts.reads
        self._freshness = freshness
        self._auth = auth
        self._kept = ByteBudget(MAX_MSGPACK_BYTES_HELD, "answers in MessagePack")
        self._unwatched: set[asyncio.Task[None]] = set()

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
        level = parse_read_level(form.get("consistency", ""))
        if form.get("consistency") == "linearizable":
            await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
        context = StatementContext(
            *self._parts,
            form.get("db", ""),
            form.get("rp", ""),
            self._node.clock.now_ns(),
            Cancellation(Demand(level, allows_partial=form.get("partial") == "true")),
            user,
        )
        if form.get("async") == "true":
            return self._start(request, statements, text, context)
        return await self._answer(request, form, statements, text, context)

    async def _answer(
        self,
        request: web.Request,
        form: dict[str, str],
        statements: tuple[ast.Statement, ...],
        text: str,
        context: StatementContext,
    ) -> web.StreamResponse:
        """Carry the statements out and send what comes of them."""
        reading, cancelled = request.method == "GET", context.cancelled
        try:
            with (
                tracked(request, self._node, statements, text, context.database, cancelled),
                cancel_when_gone(request, cancelled),
                self._kept.held() as hold,
            ):
                answer = Answer(request, form, self._reads, cancelled, len(statements), hold=hold)
                async with contextlib.aclosing(self._run(statements, context, reading=reading)) as events:
                    if is_chunked(form):
                        return await answer.send_chunks(events)
                    most = self._node.config.http.max_row_limit
                    return await answer.send_document(limit_rows(events, most) if most else events)
        except QueryCancelled as error:
            if request.get(STREAMING):
                raise
            answer = Answer(request, form, self._reads, Cancellation(), 1)
            return await answer.send_document(_refused(error))

    def _start(
        self, request: web.Request, statements: tuple[ast.Statement, ...], text: str, context: StatementContext
    ) -> web.StreamResponse:
        """Answer at once and carry the statements out afterwards; what fails is logged. Raises Overloaded."""
        if len(self._unwatched) >= MAX_ASYNC_QUERIES:
            raise Overloaded(f"{MAX_ASYNC_QUERIES} requests with async=true are at work; repeat the request later")

        async def work() -> None:
            try:
                with tracked(request, self._node, statements, text, context.database, context.cancelled):
                    async for event in self._run(statements, context, reading=request.method == "GET"):
                        if isinstance(event, Ended) and event.error not in (None, NOT_EXECUTED):
                            log.warning("an async query failed", text=redact(text), error=event.error)
            except DSDBError as error:
                log.warning("an async query failed", text=redact(text), error=error.message)

        task = asyncio.get_running_loop().create_task(work())
        self._unwatched.add(task)
        task.add_done_callback(self._unwatched.discard)
        return no_content(request)

    async def _run(
        self, statements: tuple[ast.Statement, ...], context: StatementContext, *, reading: bool
    ) -> AsyncGenerator[Event, None]:
        """Each statement's answer in turn; ``reading`` warns of changes, which belong into a POST."""
        failed, demand = False, context.cancelled.demand
        for number, statement in enumerate(statements):
            if failed:
                yield Begun(number)
                yield Ended(number, NOT_EXECUTED)
                continue
            begun, reason = False, None
            demand.begin_statement()
            # What is written must not come from a part of the points.
            demand.told = isinstance(statement, ast.Select) and statement.target is not None
            try:
                context.cancelled.check()
                series = await self._execute(statement, context)
                told = by_post(statement, context) if reading else None
                texts = [demand.message(), "" if told is None else _deprecation(told)]
                begun = demand.told = True
                messages = tuple(("warning", text) for text in texts if text)
                yield Begun(number, messages, _chunking(statement), bool(demand.missing))
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


def _chunking(statement: ast.Statement) -> Chunking:
    if isinstance(statement, _BY_ROWS):
        return Chunking.ROWS
    return Chunking.SERIES if isinstance(statement, _BY_SERIES) else Chunking.WHOLE


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
        return _bound_decoder.decode(text) or {}
    except msgspec.MsgspecError as error:
        raise RequestError(f"error parsing query parameters: {error}") from error
