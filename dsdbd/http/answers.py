"""The sending of query answers while they are made: one document, or chunks, at the pace of the client.

Nothing is sent before the first few hundred kilobytes are there, so that an error until then is a plain error. Later it
stands in the document, at the statement it belongs to; where a format has no place for it the connection is broken off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from dsdbd.errors import DSDBError
from dsdbd.http.chunks import WholeChunker
from dsdbd.http.events import NOT_EXECUTED, Begun, Chunking, Ended, Event
from dsdbd.http.middleware import STREAMING
from dsdbd.http.responses import CSV, JSON, MSGPACK, accepted
from dsdbd.limits import CLIENT_STALL_TIMEOUT_S, MAX_CHUNK_ROWS
from dsdbd.query import (
    AnswerPart,
    Chunker,
    CsvDocument,
    CsvWriter,
    Indenter,
    JsonDocument,
    MsgpackDocument,
    QueryCancelled,
    StatementResult,
    encode_results_json,
    encode_results_msgpack,
)

if TYPE_CHECKING:
    from dsdbd.cluster.budget import Hold
    from dsdbd.cluster.reads import Cancellation, ReadPath

log = structlog.get_logger("query")
_DEFAULT_CHUNK_ROWS = 10_000
_PIECE_BYTES = 1 << 18
_INLINE_ROWS = 500
"""So few rows are encoded on the event loop, where that takes less than handing them to a thread."""
PARTIAL_HEADER = "X-DSDB-Partial"
"""Header of an answer that lacks shards which could not be read."""
Document = JsonDocument | CsvDocument | MsgpackDocument


_DOCUMENTS: Mapping[str, type[Document]] = {JSON: JsonDocument, CSV: CsvDocument, MSGPACK: MsgpackDocument}


def is_chunked(form: Mapping[str, str]) -> bool:
    """``chunked=true``, or a positive ``chunk_size`` alone, as the DSDB guide has it."""
    return form.get("chunked") == "true" or _chunk_rows(form) > 0


def _chunk_rows(form: Mapping[str, str]) -> int:
    size = form.get("chunk_size", "")
    return int(size) if size.isdigit() else 0


class Answer:
    """One request's answer on its way. ``statements``: how many there are."""

    def __init__(
        self,
        request: web.Request,
        form: Mapping[str, str],
        reads: ReadPath,
        cancelled: Cancellation,
        statements: int,
        *,
        stall_timeout_s: float = CLIENT_STALL_TIMEOUT_S,
        hold: Hold | None = None,
    ) -> None:
        self._request = request
        self._form = form
        self._reads = reads
        self._cancelled = cancelled
        self._statements = statements
        self._stall_timeout_s = stall_timeout_s
        self._hold = hold
        self._content_type = accepted(request)
        self._pretty = self._content_type == JSON and form.get("pretty") == "true"
        self._epoch = form.get("epoch") or None
        self._csv = CsvWriter(self._epoch)
        self._is_partial = False
        self._response: web.StreamResponse | None = None
        self._waiting = bytearray()

    # --- one document

    async def send_document(self, events: AsyncIterator[Event]) -> web.StreamResponse:
        """Send all events as one document; raises DSDBError as long as nothing is sent."""
        document = _DOCUMENTS[self._content_type](epoch=self._epoch)
        layout = Indenter() if self._pretty else None
        statement_id = mark = 0
        partial = False
        try:
            async for event in events:
                match event:
                    case Begun(statement_id, messages, partial=partial):
                        self._is_partial |= partial
                        await self._add(_laid_out(layout, document.begin(statement_id, messages)))
                        mark = self._mark(document, layout)
                    case AnswerPart():
                        await self._add_part(_all_laid_out(layout, document.part(event)), len(event))
                        self._hold_kept(document)
                    case Ended(error=error):
                        if error is not None:
                            self._drop_rows(document, layout, mark, error)
                        await self._add(_laid_out(layout, document.end(error, partial=partial)))
        except DSDBError as error:
            if self._response is None or not document.can_tell_errors:
                raise
            reason = self._told(error)
            ends = [document.end(reason)]
            for later in range(statement_id + 1, self._statements):
                ends += [document.begin(later), document.end(NOT_EXECUTED)]
            await self._add(_laid_out(layout, b"".join(ends)))
        for piece in document.pieces():
            await self._add(_laid_out(layout, piece))
        return await self._finish()

    def _hold_kept(self, document: Document) -> None:
        """Count what a document keeps until it is complete. Raises Overloaded when others keep too much."""
        if isinstance(document, MsgpackDocument) and self._hold is not None:
            self._hold.grow(document.size_bytes - self._hold.size_bytes)

    async def _add_part(self, pieces: Iterator[bytes], rows: int) -> None:
        if rows <= _INLINE_ROWS:
            await self._add(b"".join(pieces))
            return
        while block := await self._reads.work(_take, pieces):
            if self._response is not None:
                self._cancelled.check()
            await self._add(block)

    def _mark(self, document: Document, layout: Indenter | None) -> int:
        """A place to which the document can go back as long as nothing behind it is sent."""
        document.mark()
        if layout is not None:
            layout.mark()
        return len(self._waiting) if self._response is None else -1

    def _drop_rows(self, document: Document, layout: Indenter | None, mark: int, error: str) -> None:
        """A statement has failed: its rows are taken back where they can be."""
        if self._response is None and mark >= 0:
            del self._waiting[mark:]
            document.back()
            if layout is not None:
                layout.back()
        elif not document.can_tell_errors:
            raise DSDBError(error)
        else:
            log.warning("an answer on its way ended with an error", error=error)

    def _told(self, error: DSDBError) -> str:
        """The text of an error that comes too late for the HTTP status."""
        reason = self._cancelled.reason if isinstance(error, QueryCancelled) else error.message
        log.warning("an answer on its way ended with an error", error=reason)
        return reason

    # --- chunks

    async def send_chunks(self, events: AsyncIterator[Event]) -> web.StreamResponse:
        """Send one document after another, each with some rows of one series; raises as ``send_document`` does."""
        rows = min(_chunk_rows(self._form) or _DEFAULT_CHUNK_ROWS, MAX_CHUNK_ROWS)
        chunker: Chunker | WholeChunker = WholeChunker(Begun(0))
        statement_id = 0
        try:
            async for event in events:
                match event:
                    case Begun(statement_id, messages, Chunking.ROWS, partial):
                        self._is_partial |= partial
                        chunker = Chunker(statement_id, messages, rows)
                    case Begun(statement_id, partial=partial):
                        self._is_partial |= partial
                        chunker = WholeChunker(event)
                    case AnswerPart():
                        await self._add_chunks(chunker.part(event), len(event))
                    case Ended(error=None):
                        await self._add_chunks(chunker.end(), 0)
                    case Ended(error=error):
                        await self._add_chunk(StatementResult(statement_id, error=error))
        except DSDBError as error:
            if self._response is None:
                raise
            # A document is sent whole, and the next one tells the client that the query was ended.
            await self._add_chunk(StatementResult(statement_id, error=self._told(error)))
        return await self._finish()

    async def _add_chunks(self, chunks: Iterator[StatementResult], rows: int) -> None:
        while True:
            chunk = next(chunks, None) if rows <= _INLINE_ROWS else await self._reads.work(next, chunks, None)
            if chunk is None:
                return
            if self._response is not None:
                self._cancelled.check()
            await self._add_chunk(chunk)

    async def _add_chunk(self, chunk: StatementResult) -> None:
        pieces = self._encode([chunk])
        if sum(map(len, chunk.series)) <= _INLINE_ROWS:
            await self._write(b"".join(pieces))
            return
        while block := await self._reads.work(_take, pieces):
            await self._write(block)

    def _encode(self, results: Iterable[StatementResult]) -> Iterator[bytes]:
        if self._content_type == CSV:
            return _of_all(self._csv.series(result.statement_id, result.series) for result in results)
        if self._content_type == MSGPACK:
            return encode_results_msgpack(results, epoch=self._epoch)
        return encode_results_json(results, pretty=self._pretty, epoch=self._epoch)

    # --- sending

    async def _add(self, text: bytes) -> None:
        """Send text, or keep it while there is little."""
        self._waiting += text
        if len(self._waiting) >= _PIECE_BYTES:
            block = bytes(self._waiting)
            self._waiting.clear()
            await self._write(block)

    async def _write(self, block: bytes) -> None:
        """Hand a block to the connection, and wait while the client takes nothing."""
        if self._response is None:
            self._response = web.StreamResponse()
            self._response.content_type = self._content_type
            self._response.enable_chunked_encoding()
            self._mark_partial(self._response)
            self._request[STREAMING] = True
            _compress(self._request, self._response)
            await self._response.prepare(self._request)
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await self._response.write(block)
        except TimeoutError:
            log.warning("a client takes nothing of its answer and is cut off", timeout_s=self._stall_timeout_s)
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the client takes nothing of its answer") from None

    def _mark_partial(self, response: web.StreamResponse) -> None:
        """Say it in a header as well, as far as it is known when the headers are sent."""
        if self._is_partial:
            response.headers[PARTIAL_HEADER] = "true"

    async def _finish(self) -> web.StreamResponse:
        if self._response is None:
            whole = web.Response(body=bytes(self._waiting), content_type=self._content_type)
            self._mark_partial(whole)
            _compress(self._request, whole)
            return whole
        if self._waiting:
            await self._write(bytes(self._waiting))
        await self._response.write_eof()
        return self._response


def _laid_out(layout: Indenter | None, text: bytes) -> bytes:
    return text if layout is None else layout.text(text)


def _all_laid_out(layout: Indenter | None, pieces: Iterator[bytes]) -> Iterator[bytes]:
    return pieces if layout is None else map(layout.text, pieces)


def _compress(request: web.Request, response: web.StreamResponse) -> None:
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)


def _of_all(parts: Iterable[Iterator[bytes]]) -> Iterator[bytes]:
    for part in parts:
        yield from part


def _take(pieces: Iterator[bytes]) -> bytes:
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= _PIECE_BYTES:
            break
    return bytes(block)
