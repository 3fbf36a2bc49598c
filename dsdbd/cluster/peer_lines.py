"""The way to one peer for one kind of request: connections of its own, a bounded queue, and a circuit breaker.

Kinds do not share connections, so that neither bulk copies nor a slow disk of one peer hold up anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import time
from typing import TYPE_CHECKING

import aiohttp

from dsdbd import limits
from dsdbd.cluster.breaker import Breaker
from dsdbd.errors import ShardUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp import AddrInfoType


class Lane(enum.Enum):
    """Kinds of requests between nodes."""

    PULSE = "pulse"
    """Looking whether a node answers."""
    CONTROL = "control"
    """Membership, metadata, states: rare, never held back by what others make of the peer."""
    WRITE = "write"
    READ = "read"
    BULK = "bulk"
    """Repair and copies."""


_WITH_BREAKER = frozenset((Lane.WRITE, Lane.READ, Lane.BULK))
"""Looks and control requests are rare, and tell when a peer is back."""
_PREFIXES = (
    ("/internal/shards/", Lane.WRITE),
    ("/internal/delete", Lane.WRITE),
    ("/internal/read", Lane.READ),
    ("/internal/repair/complete", Lane.READ),
    ("/internal/queries", Lane.CONTROL),
    ("/internal/", Lane.BULK),
    ("/cluster/pulse", Lane.PULSE),
)


def lane_of(path_qs: str) -> Lane:
    """The lane of a request whose caller names none."""
    return next((lane for prefix, lane in _PREFIXES if path_qs.startswith(prefix)), Lane.CONTROL)


class PeerUnreachable(ShardUnavailable):
    """A peer did not accept the connection or broke it.

    ``sent`` tells whether it may have acted on the request, ``refused`` whether its machine says that nothing listens.
    """

    def __init__(self, message: str, *, sent: bool, refused: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.refused = refused


class Line:
    """The way to one peer in one lane; use it on one event loop."""

    def __init__(self, address: str, lane: Lane, connections: int) -> None:
        self.address = address
        self.lane = lane
        self.breaker = Breaker()
        self.busy = 0
        """Requests under way or in the queue."""
        self._connections = connections
        self._places = asyncio.Semaphore(connections)
        self._waiting = 0
        self._under_way: set[asyncio.Timeout] = set()
        self._sockets: list[socket.socket] = []
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections; made when they are first needed."""
        if self._session is None:
            # The places bound the connections; a stream has one of its own beside them.
            connector = aiohttp.TCPConnector(
                limit=self._connections, ttl_dns_cache=10, socket_factory=self._make_socket
            )
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session

    def _make_socket(self, address: AddrInfoType) -> socket.socket:
        made = socket.socket(*address[:3])
        self._sockets = [*self.sockets(), made]
        return made

    def sockets(self) -> list[socket.socket]:
        """The connections that are open."""
        return [one for one in self._sockets if one.fileno() >= 0]

    @contextlib.asynccontextmanager
    async def request(self, timeout_s: float) -> AsyncIterator[None]:
        """One request: waits for a place, at most ``timeout_s``, and is broken off when the peer is found down.

        What happens inside is to raise PeerUnreachable where the peer did not answer, which counts for the breaker;
        any other error and an end without one is an answer. Raises PeerUnreachable without asking where the peer is
        left alone, or too much waits for it.
        """
        if self.lane in _WITH_BREAKER and not self.breaker.allows(time.monotonic()):
            left_s = self.breaker.left_s(time.monotonic())
            raise PeerUnreachable(
                f"{self.address} is not asked: its last {self.breaker.failures} answers failed; "
                f"it is tried again in {left_s:.1f}s",
                sent=False,
            )
        self.busy += 1
        judged = False
        try:
            await self._take_place(timeout_s)
            try:
                async with self._broken_off_when_down():
                    try:
                        yield
                    except PeerUnreachable:
                        judged = True
                        self.breaker.failed(time.monotonic())
                        raise
                    except Exception:
                        judged = True
                        self.breaker.succeeded()
                        raise
                judged = True
                self.breaker.succeeded()
            finally:
                self._places.release()
        finally:
            self.busy -= 1
            if not judged:
                self.breaker.gave_up()

    async def _take_place(self, timeout_s: float) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        if self._waiting >= limits.MAX_PEER_REQUESTS_WAITING:
            raise PeerUnreachable(
                f"{self._waiting} requests wait for {self.address} already; it answers too slowly", sent=False
            )
        self._waiting += 1
        try:
            async with self._broken_off_when_down(sent=False), asyncio.timeout(timeout_s):
                await self._places.acquire()
        except TimeoutError:
            raise PeerUnreachable(
                f"{self.address} was too busy with earlier requests for {timeout_s:g}s", sent=False
            ) from None
        finally:
            self._waiting -= 1

    @contextlib.asynccontextmanager
    async def _broken_off_when_down(self, *, sent: bool = True) -> AsyncIterator[None]:
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._under_way.add(limit)
                try:
                    yield
                finally:
                    self._under_way.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            raise PeerUnreachable(f"{self.address} does not answer any more", sent=sent) from None

    def went_down(self, follow: Callable[[asyncio.Task[None]], None]) -> None:
        """Break off what is under way and forget the connections: they may lead nowhere when the peer is back."""
        now_s = asyncio.get_running_loop().time()
        for limit in list(self._under_way):
            if limit.when() is None:
                limit.reschedule(now_s)
        self.renew(follow)

    def renew(self, follow: Callable[[asyncio.Task[None]], None]) -> None:
        """Close the connections; the next request makes a new one."""
        session, self._session = self._session, None
        if session is not None:
            follow(asyncio.get_running_loop().create_task(session.close()))

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
