"""Calls to other nodes: signed HTTP requests with time-outs, and errors that keep their class on the way back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
import time
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from dsdbd import errors, limits
from dsdbd.cluster import signing, tcp_info
from dsdbd.cluster.peer_lines import Lane as Lane
from dsdbd.cluster.peer_lines import Line, lane_of
from dsdbd.cluster.peer_lines import PeerUnreachable as PeerUnreachable
from dsdbd.decoding import decode_json
from dsdbd.errors import DSDBError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dsdbd.cluster.way import Reading


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """Body of every error answer between nodes and of the public API: a sentence and a stable code."""

    error: str
    code: str = ""
    node_id: int | None = None
    seen: int = 0
    """Of VersionBehind."""


def _classes(root: type[DSDBError]) -> list[type[DSDBError]]:
    return [root] + [found for child in root.__subclasses__() for found in _classes(child)]


@functools.cache
def _by_code() -> dict[str, type[DSDBError]]:
    """The classes of errors by code; asked for when a peer answers, when all modules that have some are there."""
    return {
        found.code: found
        for found in _classes(DSDBError)
        # One that only shares the code of its parent may need more than a sentence, as those of the tools do.
        if "code" in vars(found) and not issubclass(found, errors.StartError) and _is_of_the_daemon(found)
    }


def _is_of_the_daemon(found: type[DSDBError]) -> bool:
    return found.__module__.startswith("dsdbd.") and not found.__module__.startswith("dsdbd.backup.")


def error_from_body(status: int, body: bytes, peer: str) -> DSDBError:
    """The error a peer answered with, as the class of its code; an answer that is no error of ours is Unavailable."""
    try:
        decoded = decode_json(body, ErrorBody)
    except msgspec.MsgspecError:
        return Unavailable(f"{peer} answered status {status} without a reason; is it a DSDB node?")
    found = _by_code().get(decoded.code, Unavailable)
    if issubclass(found, errors.VersionBehind):
        return found(decoded.error, decoded.seen)
    return found(decoded.error)


KEPT_ALIVE = "application/x-dsdb-kept-alive"
"""Content type of an answer that took long: zero bytes while it was made, then a tag byte and the body."""
TAG_ALIVE, TAG_ANSWER, TAG_ERROR = b"\0", b"\1", b"\2"
_HELD_BACK = frozenset((Lane.WRITE, Lane.BULK))
"""What is not even tried while a peer is down."""
_LAST_RESORT_S = 1.0
"""How long a read waits for a peer that is down; it asks one only where no other is left."""
_AWAY_S = 2.0
"""How long a peer counts as away after a connection to it failed."""


class PeerClient:
    """Asks other nodes, over connections of their own for each peer and kind of request; use it on one event loop."""

    def __init__(
        self,
        secret: bytes,
        sender: Callable[[], tuple[str, str]],
        *,
        write_connections: int = limits.MAX_PEER_CONNECTIONS,
    ) -> None:
        """``sender`` gives the cluster id (empty before the node belongs to one) and the node's uuid.

        ``write_connections``: to each peer, for the lane that carries writes.
        """
        self._secret = secret
        self._sender = sender
        self._write_connections = write_connections
        self._lines: dict[tuple[str, Lane], Line] = {}
        self._away_since_s: dict[str, float] = {}
        self._down: dict[str, str] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.answered_s: dict[str, float] = {}
        """When each peer last answered anything, by the monotonic clock."""

    def lately_away(self, address: str) -> bool:
        """Whether another owner is better asked than ``address``: it is down, left alone, or failed a moment ago."""
        if address in self._down:
            return True
        since_s = self._away_since_s.get(address)
        if since_s is not None and time.monotonic() - since_s < _AWAY_S:
            return True
        line = self._lines.get((address, Lane.READ))
        # One that may be tried counts as there: if it were asked last, nobody would ever find that it answers.
        return line is not None and line.breaker.refuses(time.monotonic())

    def set_down(self, address: str, reason: str) -> None:
        """The peer is known to be down: what is under way to it is broken off, writes and copies are not tried.

        Control requests are, and reads where nobody else can be asked.
        """
        self._down[address] = reason
        for (other, lane), line in self._lines.items():
            if other == address and lane is not Lane.PULSE:
                line.went_down(self._follow)

    def set_up(self, address: str) -> None:
        """The peer answers again: requests may try it at once."""
        self._down.pop(address, None)
        self._away_since_s.pop(address, None)
        for (other, _), line in self._lines.items():
            if other == address:
                line.breaker.healed(time.monotonic())

    def forget(self, address: str) -> None:
        """The peer is no member any more: close its connections."""
        self._down.pop(address, None)
        self._away_since_s.pop(address, None)
        self.answered_s.pop(address, None)
        for key in [key for key in self._lines if key[0] == address]:
            self._follow(asyncio.get_running_loop().create_task(self._lines.pop(key).close()))

    def open_breakers(self) -> list[tuple[str, str]]:
        """Peers that are left alone because they failed, each with the lane."""
        return [(address, lane.value) for (address, lane), line in self._lines.items() if not line.breaker.is_closed]

    def breaker_counts(self, address: str) -> tuple[int, int]:
        """Lanes in which a peer is left alone now, and how often that has begun."""
        found = [line.breaker for (other, _), line in self._lines.items() if other == address]
        return sum(not breaker.is_closed for breaker in found), sum(breaker.openings for breaker in found)

    def readings(self, address: str, *lanes: Lane) -> list[Reading]:
        """The kernel's figures of the connections to a peer in some lanes."""
        lines = [line for lane in lanes if (line := self._lines.get((address, lane))) is not None]
        found = [tcp_info.read(sock) for line in lines for sock in line.sockets()]
        return [reading for reading in found if reading is not None]

    def renew(self, address: str, lane: Lane) -> None:
        """Have the next request in a lane make a new connection; none may be under way."""
        line = self._lines.get((address, lane))
        if line is not None:
            line.renew(self._follow)

    async def start(self) -> None:
        """Begin; connections are made when they are needed."""

    async def close(self) -> None:
        """Close every connection."""
        lines, self._lines = list(self._lines.values()), {}
        await asyncio.gather(*(line.close() for line in lines), *self._closing, return_exceptions=True)

    def _follow(self, task: asyncio.Task[None]) -> None:
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _line(self, address: str, lane: Lane) -> Line:
        line = self._lines.get((address, lane))
        if line is None:
            if len(self._lines) >= limits.MAX_PEER_LINES:
                for key, idle in list(self._lines.items()):
                    if not idle.busy:
                        self._follow(asyncio.get_running_loop().create_task(self._lines.pop(key).close()))
            connections = self._write_connections if lane is Lane.WRITE else limits.MAX_PEER_CONNECTIONS
            line = self._lines[address, lane] = Line(address, lane, connections)
        return line

    async def call(
        self,
        address: str,
        method: str,
        path_qs: str,
        body: bytes = b"",
        *,
        timeout_s: float,
        cluster_id: str | None = None,
        lane: Lane | None = None,
    ) -> bytes:
        """The body of a 2xx answer of ``http://address path_qs``.

        ``timeout_s`` bounds the wait for a connection and the connection's silence, not the whole call. ``lane``: that
        of the path, when it is not given. Raises PeerUnreachable, also at once where the peer is known to be down, or
        the error the peer answered with.
        """
        lane = lane_of(path_qs) if lane is None else lane
        if address in self._down:
            if lane in _HELD_BACK:
                raise PeerUnreachable(f"{address} is down: {self._down[address]}", sent=False)
            if lane is Lane.READ:
                timeout_s = min(timeout_s, _LAST_RESORT_S)
        own_cluster, uuid = self._sender()
        cluster = own_cluster if cluster_id is None else cluster_id
        headers = self._signed(method, path_qs, cluster, uuid, body)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.PEER_CONNECT_TIMEOUT_S, sock_read=timeout_s)
        line = self._line(address, lane)
        async with line.request(timeout_s), self._explained(address, OSError):
            async with line.session.request(
                method, f"http://{address}{path_qs}", data=body or None, headers=headers, timeout=timeout
            ) as response:
                answer = await self._read(response, address)
            self._away_since_s.pop(address, None)
            self.answered_s[address] = time.monotonic()
            if response.status >= 300:
                raise error_from_body(response.status, answer, address)
            if response.content_type == KEPT_ALIVE:
                return _late_answer(answer, address)
            return answer

    @contextlib.asynccontextmanager
    async def _explained(self, address: str, *further: type[OSError]) -> AsyncIterator[None]:
        """Turn the failures of a connection, and those of ``further`` classes, into PeerUnreachable."""
        failures: tuple[type[Exception], ...] = (TimeoutError, aiohttp.ClientError, *further)
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if len(self._away_since_s) >= limits.MAX_PEER_LINES:
                self._away_since_s.clear()
            self._away_since_s[address] = time.monotonic()
            refused = getattr(error, "errno", None) == errno.ECONNREFUSED
            raise PeerUnreachable(f"cannot reach {address}: {_reason(error)}", sent=False, refused=refused) from error
        except failures as error:
            raise PeerUnreachable(f"no answer from {address}: {_reason(error)}", sent=True) from error

    @contextlib.asynccontextmanager
    async def stream(
        self, address: str, method: str, path_qs: str, body: bytes = b"", *, timeout_s: float, piece_bytes: int
    ) -> AsyncIterator[Pieces]:
        """The body of a 2xx answer in pieces, as they come; about ``piece_bytes`` are read before they are taken.

        It has a connection of its own, so that it holds up no other request. ``timeout_s`` bounds the silence. Raises
        as ``call`` does, also while pieces are taken; an answer that ends early counts as no answer.
        """
        if address in self._down:
            raise PeerUnreachable(f"{address} is down: {self._down[address]}", sent=False)
        cluster, uuid = self._sender()
        headers = self._signed(method, path_qs, cluster, uuid, body)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.PEER_CONNECT_TIMEOUT_S, sock_read=timeout_s)
        connector = aiohttp.TCPConnector(limit=1, force_close=True)
        async with (
            self._line(address, Lane.BULK).request(timeout_s),
            self._explained(address),
            aiohttp.ClientSession(connector=connector, auto_decompress=False, read_bufsize=piece_bytes) as session,
            session.request(
                method, f"http://{address}{path_qs}", data=body or None, headers=headers, timeout=timeout
            ) as response,
        ):
            if response.status >= 300:
                raise error_from_body(response.status, await self._read(response, address), address)
            yield Pieces(response)

    def _signed(self, method: str, path_qs: str, cluster: str, uuid: str, body: bytes) -> dict[str, str]:
        return {
            signing.CLUSTER_HEADER: cluster,
            signing.SENDER_HEADER: uuid,
            signing.SIGNATURE_HEADER: signing.sign(
                self._secret, method=method, path_qs=path_qs, cluster_id=cluster, sender=uuid, body=body
            ),
        }

    @staticmethod
    async def _read(response: aiohttp.ClientResponse, address: str) -> bytes:
        parts: list[bytes] = []
        size_bytes = 0
        async for chunk in response.content.iter_chunked(1 << 20):
            parts.append(chunk)
            size_bytes += len(chunk)
            if size_bytes > limits.MAX_INTERNAL_BODY_BYTES:
                raise Unavailable(
                    f"the answer of {address} is larger than {limits.MAX_INTERNAL_BODY_BYTES} bytes; "
                    "ask for a shorter time range or fewer series"
                )
        return b"".join(parts)


class Pieces:
    """The pieces of a body as they came: whoever makes them longer copies every byte once more."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content

    def take_over(self) -> tuple[bytes, socket.socket | None]:
        """What has come of the body, and the connection to read the rest of it from, in a thread; None where all came.

        For bodies of a known length only. The loop reads nothing more of it: what it did for every byte of a long body
        writes would have to wait for. Whoever takes the socket closes it.
        """
        came = self._content.read_nowait()
        connection = self._response.connection
        if connection is None or connection.transport is None or connection.protocol is None:
            return came, None
        connection.protocol.pause_reading()
        # A descriptor of its own: the transport may close its one at any time.
        taken = socket.socket(fileno=os.dup(connection.transport.get_extra_info("socket").fileno()))
        return came, taken

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            piece, ends_chunk = await self._content.readchunk()
            if piece:
                return piece
            if not ends_chunk:
                raise StopAsyncIteration


def _late_answer(answer: bytes, address: str) -> bytes:
    tagged = answer.lstrip(TAG_ALIVE)
    if tagged[:1] == TAG_ANSWER:
        return tagged[1:]
    raise error_from_body(500, tagged[1:], address)


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.errno).lower() if error.errno else str(error.os_error)
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__
