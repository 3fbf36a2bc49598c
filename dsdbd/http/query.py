"""``/query``: InfluxQL in, JSON or CSV out, in one document or in chunks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from aiohttp import web

from dsdbd.cluster.reads import Cancellation
from dsdbd.cluster.statements import CHANGES, StatementContext, execute
from dsdbd.errors import DSDBError, NotFound, RequestError
from dsdbd.http.disconnect import cancel_when_gone
from dsdbd.http.middleware import STREAMING
from dsdbd.http.responses import CSV, JSON, wants_csv
from dsdbd.http.tracking import tracked
from dsdbd.influxql import parse
from dsdbd.influxql.format import to_text
from dsdbd.logs import redact
from dsdbd.query import QueryCancelled, StatementResult, chunk_results, encode_results_csv, encode_results_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    from dsdbd.cluster.freshness import Freshness
    from dsdbd.cluster.membership import Membership
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.cluster.writes import WritePath
    from dsdbd.http.auth import Authenticator
    from dsdbd.influxql import ast
    from dsdbd.query import SeriesBlock, SeriesRows

log = structlog.get_logger("query")
_DEFAULT_CHUNK_ROWS = 10_000
_PIECE_BYTES = 1 << 18
_INLINE_ROWS = 500
"""Answers up to this size are encoded on the event loop, where that takes less than handing them to a thread."""
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
        try:
            with (
                tracked(request, self._node, statements, text, context.database, cancelled),
                cancel_when_gone(request, cancelled),
            ):
                results = self._run(statements, context, reading=reading)
                if _is_chunked(form):
                    return await self._stream(request, form, results, cancelled)
                return await self._answer(request, form, [result async for result in results], cancelled)
        except QueryCancelled as error:
            if request.get(STREAMING):
                raise
            return await self._answer(request, form, [StatementResult(0, error=error.message)], Cancellation())

    async def _run(
        self, statements: tuple[ast.Statement, ...], context: StatementContext, *, reading: bool
    ) -> AsyncIterator[StatementResult]:
        """Each statement's result in turn; ``reading`` warns of changes, which belong into a POST."""
        failed = False
        for number, statement in enumerate(statements):
            if failed:
                yield StatementResult(number, error="not executed")
                continue
            try:
                context.cancelled.check()
                series = await self._execute(statement, context)
                rows = await _collected(series, self._reads, context.cancelled)
                messages = (("warning", _deprecation(statement)),) if reading and isinstance(statement, CHANGES) else ()
                yield StatementResult(number, series=rows, messages=messages)
            except DSDBError as error:
                if len(statements) == 1 and error.http_status >= 500:
                    # Nothing else was asked: a load balancer or client sees the failure in the status, too.
                    raise
                failed = True
                reason = context.cancelled.reason if isinstance(error, QueryCancelled) else error.message
                yield StatementResult(number, error=reason)

    async def _execute(self, statement: ast.Statement, context: StatementContext) -> Iterator[SeriesRows | SeriesBlock]:
        """Carry out a statement; what this node does not know it looks for once more in the newest metadata."""
        try:
            return await execute(statement, context)
        except NotFound:
            if not await self._freshness.newer():
                raise
        return await execute(statement, context)

    async def _answer(
        self,
        request: web.Request,
        form: Mapping[str, str],
        results: list[StatementResult],
        cancelled: Cancellation,
    ) -> web.StreamResponse:
        content_type, pieces = _encode(request, form, results)
        rows = sum(len(series) for result in results for series in result.series)
        if rows <= _INLINE_ROWS:
            small = web.Response(body=b"".join(pieces), content_type=content_type)
            _compress(request, small)
            return small
        response = _streamed(request, content_type)
        await response.prepare(request)
        await _send(response, pieces, self._reads, cancelled)
        await response.write_eof()
        return response

    async def _stream(
        self,
        request: web.Request,
        form: Mapping[str, str],
        results: AsyncIterator[StatementResult],
        cancelled: Cancellation,
    ) -> web.StreamResponse:
        size = form.get("chunk_size", "")
        rows = int(size) if size.isdigit() and int(size) > 0 else _DEFAULT_CHUNK_ROWS
        response: web.StreamResponse | None = None
        async for result in results:
            for chunk in chunk_results([result], rows):
                # A document is sent whole, and the next one tells the client that the query was ended.
                stopped = cancelled() and result.error is None
                shown = StatementResult(result.statement_id, error=cancelled.reason) if stopped else chunk
                content_type, pieces = _encode(request, form, [shown])
                if response is None:
                    response = _streamed(request, content_type)
                    await response.prepare(request)
                await _send(response, pieces, self._reads, Cancellation())
                if stopped:
                    break
            else:
                continue
            break
        assert response is not None
        await response.write_eof()
        return response


def _deprecation(statement: ast.Statement) -> str:
    return f"deprecated use of '{to_text(statement)}' in a read only context, please use a POST request instead"


async def _collected(series: Iterator[Any], reads: ReadPath, cancelled: Cancellation) -> list[Any]:
    """All rows, as columns: an error while they are made must come before the first byte of the answer."""
    if hasattr(series, "__length_hint__"):
        return list(series)

    def collect() -> list[Any]:
        rows = []
        for one in series:
            cancelled.check()
            rows.append(one)
        return rows

    return await cancelled.guard(reads.work(collect))


def _encode(
    request: web.Request, form: Mapping[str, str], results: Iterable[StatementResult]
) -> tuple[str, Iterator[bytes]]:
    epoch = form.get("epoch") or None
    if wants_csv(request):
        return CSV, encode_results_csv(results, epoch=epoch)
    return JSON, encode_results_json(results, pretty=form.get("pretty") == "true", epoch=epoch)


def _streamed(request: web.Request, content_type: str) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = content_type
    response.enable_chunked_encoding()
    request[STREAMING] = True
    _compress(request, response)
    return response


def _compress(request: web.Request, response: web.StreamResponse) -> None:
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)


async def _send(
    response: web.StreamResponse, pieces: Iterator[bytes], reads: ReadPath, cancelled: Cancellation
) -> None:
    """Encode in a worker thread and send, a few hundred kilobytes at a time. Raises QueryCancelled."""
    while block := await reads.work(_take, pieces):
        cancelled.check()
        await response.write(block)


def _take(pieces: Iterator[bytes]) -> bytes:
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= _PIECE_BYTES:
            break
    return bytes(block)


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


def _is_chunked(form: Mapping[str, str]) -> bool:
    """``chunked=true``, or a positive ``chunk_size`` alone, as the DSDB guide has it."""
    size = form.get("chunk_size", "")
    return form.get("chunked") == "true" or (size.isdigit() and int(size) > 0)
