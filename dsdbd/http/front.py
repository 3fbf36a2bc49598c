"""What stands before the HTTP library on a public address: ordinary requests are answered here, all else there.

The library builds a request, a task and a response with their headers for each request, which takes several times as
long as storing a point, and about as long as a small query. A connection is handed to the library with the first
request that is neither an ordinary write nor a query that is answered at once, and taken back with the next such one,
when the library has answered everything.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiohttp.http import SERVER_SOFTWARE

from dsdbd.cluster.acks import outcome_of
from dsdbd.cluster.budget import Hold
from dsdbd.errors import DSDBError
from dsdbd.http.body import unpack
from dsdbd.http.metrics import REQUEST_SECONDS
from dsdbd.http.middleware import access_line
from dsdbd.http.query_head import START as QUERY_START
from dsdbd.http.responses import error_response, header_text, new_request_id
from dsdbd.http.write import INLINE_BYTES
from dsdbd.http.write_head import HEAD_END, MAX_HEAD_BYTES, START, WriteHead, body_bytes_after, parse_head
from dsdbd.logs import redact
from dsdbd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsdbd.http.query_head import QueryHeaders
    from dsdbd.http.small_queries import SmallQueries, SmallQuery
    from dsdbd.http.small_writes import SmallWrites
    from dsdbd.http.write import WriteHandler

log = structlog.get_logger("http")
_IDLE_S = 3630.0
"""A connection without a request for so long is closed, as by the library: longer than reverse proxies keep one."""
_MAX_HEADS = 256
"""Heads of requests that are kept with their meaning: the clients of a daemon send few different ones."""
_MAX_AHEAD_BYTES = 256 << 10
"""Bytes that a client sent before it was answered, at which reading stops."""


class Front:
    """Makes the connections of one address; ``server`` makes those of the library. Use it on the event loop."""

    def __init__(
        self,
        server: Callable[[], Any],
        handler: WriteHandler,
        small: SmallWrites,
        queries: SmallQueries,
        *,
        limit_bytes: int,
        log_enabled: bool,
    ) -> None:
        self.server = server
        self.queries = queries
        self.handler = handler
        self.small = small
        self.limit_bytes = limit_bytes
        self.log_enabled = log_enabled
        self.connections: set[FrontConnection] = set()
        self.stopping = False
        self._heads: dict[bytes, WriteHead | None] = {}
        self._made_s = -1
        self._common = self._stored = b""

    def __call__(self) -> FrontConnection:
        """The protocol of a new connection."""
        return FrontConnection(self)

    def head(self, data: bytes) -> tuple[WriteHead | None, int]:
        """The ordinary head at the begin of ``data`` and its length; None for anything else."""
        end = data.find(HEAD_END, 0, MAX_HEAD_BYTES)
        if end < 0 or not data.startswith(START):
            return None, 0
        end += len(HEAD_END)
        raw = data[:end]
        known = self._heads.get(raw)
        if known is None and raw not in self._heads:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            known = self._heads[raw] = parse_head(raw)
        if (
            known is None
            or known.size_bytes > self.limit_bytes
            or not self.handler.takes(known.target, known.credentials)
        ):
            return None, 0
        return known, end

    def answer(self, error: BaseException | None, request_id: str) -> bytes:
        """A whole answer: 204, or the error."""
        named = request_id.encode()
        self._common_now()
        if error is None:
            return self._stored % (named, named)
        response = error_response(outcome_of(error))
        body = cast("bytes", response.body)
        headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        start = f"HTTP/1.1 {response.status} {response.reason}\r\n{headers}".encode()
        if b"\r\nContent-Length:" not in start:
            start += b"Content-Length: %d\r\n" % len(body)
        return b"".join((start, self._common % (named, named), body))

    def _common_now(self) -> None:
        now_s = int(time.time())
        if now_s != self._made_s:
            self._made_s = now_s
            self._common = _common_headers(now_s)
            self._stored = b"HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\n" + self._common

    def rows(self, headers: QueryHeaders, body: bytes, request_id: str) -> bytes:
        """A whole answer to a query."""
        named = request_id.encode()
        self._common_now()
        packed = b"Content-Encoding: gzip\r\n" if headers.packed else b""
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n"
        return b"".join((start % (packed, len(body)), self._common % (named, named), body))

    async def stop(self, timeout_s: float) -> None:
        """Close idle connections, and the others when their request is answered or the time is over."""
        self.stopping = True
        for connection in list(self.connections):
            connection.end_when_idle()
        deadline_s = time.monotonic() + timeout_s
        # Looked at now and then: an event would cost every request something for the one stop.
        while any(one.busy for one in self.connections) and time.monotonic() < deadline_s:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.end()


def _common_headers(now_s: int) -> bytes:
    """The headers of every answer of this second, the end of the head included, with two places for the request id."""
    return (
        "Request-Id: %b\r\nX-Request-Id: %b\r\nX-Influxdb-Build: OSS\r\n"
        f"X-Influxdb-Version: {VERSION}\r\nX-DSDB-Version: {VERSION}\r\n"
        f"Date: {formatdate(now_s, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n"
    ).encode()


class FrontConnection(asyncio.Protocol):
    """One connection: reads a request, has it stored, answers, reads the next."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._transport: asyncio.Transport | None = None
        self._head: WriteHead | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        self._hold = Hold(front.handler.bodies)
        self._refusal: DSDBError | None = None
        self._ahead = b""
        self._paused = False
        self._task: asyncio.Task[None] | None = None
        self._relay: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._library: Any = None
        self._library_left: int | None = None
        self._active_s = self._started_s = 0.0
        self.busy = False

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._active_s = time.monotonic()
        self._watch_idle(_IDLE_S)
        self._front.connections.add(self)
        if self._front.stopping:
            self.end()

    def _watch_idle(self, left_s: float) -> None:
        def look() -> None:
            idle_s = time.monotonic() - self._active_s
            if self._library is None and not self.busy and idle_s >= _IDLE_S:
                self.end()
            else:
                self._watch_idle(max(_IDLE_S - idle_s, 1.0))

        self._timer = asyncio.get_running_loop().call_later(left_s, look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; a write under way goes on, its answer has no reader."""
        if self._timer is not None:
            self._timer.cancel()
        self._front.connections.discard(self)
        if self._relay is not None:
            self._relay.cancel()
        if not self.busy:
            self._release()
        self._transport = None
        if self._library is not None:
            self._library.connection_lost(exc)
            self._library = None

    def eof_received(self) -> None:
        """Let the transport close: who writes expects an answer."""
        if self._library is not None:
            self._library.eof_received()

    def pause_writing(self) -> None:
        """Read no further requests while answers pile up."""
        if self._library is not None:
            self._library.pause_writing()
        elif self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        if self._library is not None:
            self._library.resume_writing()
        elif self._transport is not None:
            self._transport.resume_reading()

    def end_when_idle(self) -> None:
        """Close the connection unless a request is under way; the library closes its own."""
        if not self.busy and self._library is None:
            self.end()

    def end(self) -> None:
        """Close the connection once what was written is sent."""
        if self._transport is not None and self._library is None:
            self._transport.close()

    # --- requests

    def data_received(self, data: bytes) -> None:
        """Take the next bytes, wherever they belong."""
        if data.startswith(QUERY_START) and self._answers_at_once(data):
            return
        if self._library is not None and not self._takes_back(data):
            self._pass_on(data)
        elif self.busy or self._ahead:
            # What came before and is not begun yet goes first.
            self._ahead += data
            if len(self._ahead) > _MAX_AHEAD_BYTES and self._transport is not None and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        elif self._head is not None:
            self._body(self._head, data)
        else:
            self._begin(data)

    def _begin(self, data: bytes) -> None:
        head, size = self._front.head(data)
        if head is None:
            self._hand_over(data)
            return
        self._head, self._missing = head, head.size_bytes
        self._active_s = self._started_s = time.monotonic()
        self._body(head, data[size:])

    def _body(self, head: WriteHead, part: bytes) -> None:
        if len(part) > self._missing:
            part, self._ahead = part[: self._missing], part[self._missing :]
        self._missing -= len(part)
        if self._refusal is None:
            try:
                self._hold.grow(len(part))
                self._parts.append(part)
            except DSDBError as error:
                # The rest is read and thrown away: an answer before its end would not reach every client.
                self._refusal = error
                self._release()
        if self._missing:
            return
        self.busy = True
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        if self._refusal is not None:
            self._done(self._refusal)
        elif not head.packed and len(body) <= INLINE_BYTES and self._front.small.takes(body):
            self._front.small.add(head.target, body, self._done)
        else:
            self._task = asyncio.get_running_loop().create_task(self._serve(head, body))

    async def _serve(self, head: WriteHead, body: bytes) -> None:
        error: BaseException | None = None
        try:
            if head.packed:
                body = await self._unpacked(body)
            await self._front.handler.store(body, head.target)
        except Exception as raised:  # whatever it is, the client gets an answer
            error = raised
        self._task = None
        self._done(error)

    async def _unpacked(self, packed: bytes) -> bytes:
        limit_bytes = self._front.limit_bytes
        if len(packed) <= INLINE_BYTES:
            body = unpack(packed, limit_bytes)
        else:
            body = await asyncio.to_thread(unpack, packed, limit_bytes)
        self._hold.grow(len(body))
        return body

    def _done(self, error: BaseException | None) -> None:
        """Answer the request and begin the next."""
        head, transport = self._head, self._transport
        assert head is not None, "a request is under way"
        if error is not None and not isinstance(error, DSDBError):
            log.error("a request failed by a defect of dsdbd", method="POST", path=head.path_qs, exc_info=error)
        request_id = header_text(head.request_id) if head.request_id else new_request_id()
        answer = self._front.answer(error, request_id)
        self._release()
        self._head = self._refusal = None
        self.busy = False
        self._active_s = time.monotonic()
        took_s = self._active_s - self._started_s
        REQUEST_SECONDS.observe("/write", took_s)
        self._count("/write", head.user, answer, took_s, head.size_bytes)
        if transport is not None and not transport.is_closing():
            transport.write(answer)
            if self._front.stopping:
                transport.close()
            elif self._ahead or self._paused:
                asyncio.get_running_loop().call_soon(self._resume)
        if self._front.log_enabled:
            request = f"POST {head.path_qs} HTTP/1.1"
            self._log(request, head.user, head.referer, head.agent, answer, request_id, took_s)

    def _count(self, path: str, user: str, answer: bytes, took_s: float, received: int) -> None:
        counters = self._front.handler.counters
        counters.count(path, int(answer[9:12]), took_s, received=received, sent=len(answer))
        if counters.profiling:
            counters.note(path, user, self._address())

    def _address(self) -> str:
        peer = None if self._transport is None else self._transport.get_extra_info("peername")
        return peer[0] if peer else "-"

    def _resume(self) -> None:
        """Read what came ahead of the last answer."""
        data, self._ahead = self._ahead, b""
        if self._transport is None or self._transport.is_closing():
            return
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if data:
            self.data_received(data)

    def _release(self) -> None:
        self._parts = []
        self._hold.release()

    def _log(
        self, request: str, user: str, referer: str, agent: str, answer: bytes, request_id: str, took_s: float
    ) -> None:
        line = access_line(
            remote=self._address(),
            user=user,
            request=request,
            status=int(answer[9:12]),
            size=len(answer) - answer.index(HEAD_END) - len(HEAD_END),
            referer=referer,
            agent=agent,
            request_id=request_id,
            took_s=took_s,
        )
        log.info(line)

    # --- the library's part

    def _hand_over(self, data: bytes) -> None:
        """Give the connection to the library, which gets this request and all that follows."""
        assert self._transport is not None, "data come from it"
        self._library = self._front.server()
        self._library.connection_made(self._transport)
        self._library_left = 0
        self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """Give bytes to the library, and follow where its request ends as long as that is plain to see."""
        if self._library_left == 0:
            self._library_left = body_bytes_after(data)
        elif self._library_left is not None:
            self._library_left -= len(data)
        if self._library_left is not None and self._library_left < 0:
            self._library_left = None
        self._library.data_received(data)

    def _answers_at_once(self, data: bytes) -> bool:
        """Answer a query here, where it is an ordinary one, nothing else is under way and the answer is at hand."""
        if self._library is None:
            if self.busy or self._head is not None or self._ahead:
                return False
        elif self._library_left != 0 or not is_waiting(self._library):
            return False
        queries, started_s = self._front.queries, time.monotonic()
        asked = queries.parsed(data)
        if asked is None:
            return False
        body = queries.answer(asked)
        address = queries.owner_address(asked) if body is None else None
        if body is None and address is None:
            return False
        if self._library is not None:
            self._take_back()
        if body is not None:
            self._send_rows(asked, body, started_s)
        elif address is not None:
            self.busy = True
            self._relay = asyncio.get_running_loop().create_task(self._pass_back(address, asked, data, started_s))
        return True

    async def _pass_back(self, address: str, asked: SmallQuery, data: bytes, started_s: float) -> None:
        """Answer with what another node answers, or let the library do it."""
        try:
            body = await self._front.queries.answer_of(address, asked)
        except Exception as error:  # whatever it is, the client gets an answer
            log.error("a query could not be passed on by a defect of dsdbd", node=address, exc_info=error)
            body = None
        self.busy, self._relay = False, None
        if self._transport is None:
            return
        if body is not None:
            self._send_rows(asked, body, started_s)
        else:
            self._hand_over(data)
        self._resume()

    def _send_rows(self, asked: SmallQuery, body: bytes, started_s: float) -> None:
        line, headers = asked
        request_id = header_text(headers.request_id) if headers.request_id else new_request_id()
        whole = self._front.rows(headers, body, request_id)
        self._active_s = time.monotonic()
        took_s = self._active_s - started_s
        REQUEST_SECONDS.observe("/query", took_s)
        self._count("/query", "-", whole, took_s, 0)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(whole)
            if self._front.stopping:
                self._transport.close()
        if self._front.log_enabled:
            request = f"GET {redact(line.path_qs)} HTTP/1.1"
            self._log(request, "-", headers.referer, headers.agent, whole, request_id, took_s)

    def _takes_back(self, data: bytes) -> bool:
        """Take the connection back when an ordinary write begins and the library waits for a request."""
        if self._library_left != 0 or not data.startswith(START) or not is_waiting(self._library):
            return False
        if self._front.head(data)[0] is None:
            return False
        self._take_back()
        return True

    def _take_back(self) -> None:
        # Without its transport the library has nothing to close.
        self._library.transport = None
        self._library.connection_lost(None)
        self._library = None


def is_waiting(library: Any) -> bool:
    """Whether a protocol of aiohttp has answered every request it has read and waits for the next one."""
    waiter = library._waiter
    return (
        waiter is not None
        and not waiter.done()
        and not library._messages
        and not library._close
        and not library._force_close
    )
