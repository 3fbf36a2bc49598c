"""One listening socket per address, shared by every service configured for it.

A connection is told apart by its first bytes, without consuming them: the Raft preamble goes to the Raft thread's own
event loop, everything else to the HTTP server's. So ``[meta] bind-address`` and ``[http] bind-address`` may be the
same. Accepting runs on a thread of its own, so a busy HTTP loop never holds up a Raft connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from dsdbd import limits
from dsdbd.errors import AddressError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

log = structlog.get_logger("listener")
_TLS_HANDSHAKE = b"\x16"
_ACCEPTS_PER_WAKEUP = 64


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where connections of one kind go: the loop that serves them and its protocol factory."""

    loop: asyncio.AbstractEventLoop
    factory: Callable[[], Any]
    tls: ssl.SSLContext | None = None


@dataclass
class ListenerCounts:
    """Connections seen, by what they turned out to be."""

    http: int = 0
    raft: int = 0
    rejected: int = 0


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``, ``:port`` or ``[v6]:port``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bind(address: str) -> socket.socket:
    """A listening, non-blocking socket; raises AddressError that says what to do."""
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise AddressError(
            f"cannot listen on {address}: the name {host!r} does not resolve ({error.strerror}). "
            "Add it to /etc/hosts or the name service, or configure an address of this machine."
        ) from error
    # An empty host means every interface: prefer the IPv4 wildcard, which every machine has.
    family, kind, protocol, _, where = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(512)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"cannot listen on {address}: the port is in use. Stop the program that has it "
                f"(ss -ltnp 'sport = :{port}' names it), or configure another port."
            ) from error
        raise AddressError(f"cannot listen on {address}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


@dataclass
class Listener:
    """Accepts on one bound socket and hands each connection to HTTP or Raft."""

    address: str
    sock: socket.socket
    http: Endpoint
    raft: Endpoint | None = None
    raft_preamble: bytes = b""
    counts: ListenerCounts = field(default_factory=ListenerCounts)
    _loop: asyncio.AbstractEventLoop | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Begin to accept on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.sock.fileno(), self._accept)

    async def stop(self) -> None:
        """Close the socket and every connection that has not been handed over; call it on the loop of ``start``."""
        if self._loop is not None:
            self._loop.remove_reader(self.sock.fileno())
        self.sock.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        assert self._loop is not None
        for _ in range(_ACCEPTS_PER_WAKEUP):
            try:
                connection, _ = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of file descriptors: pause instead of spinning; the backlog keeps the callers.
                log.error("cannot accept connections", address=self.address, reason=error.strerror)
                self._loop.remove_reader(self.sock.fileno())
                self._loop.call_later(1.0, self._resume)
                return
            if len(self._tasks) >= limits.MAX_CONNECTIONS:
                self.counts.rejected += 1
                connection.close()
                continue
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._sort(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _resume(self) -> None:
        if self._loop is not None and self.sock.fileno() >= 0:
            self._loop.add_reader(self.sock.fileno(), self._accept)

    async def _sort(self, connection: socket.socket) -> None:
        handed_over = False
        try:
            async with asyncio.timeout(limits.PREAMBLE_TIMEOUT_S):
                head = await self._first_bytes(connection)
            if self.raft_preamble and head == self.raft_preamble:
                if self.raft is None:
                    raise ConnectionError("Raft does not run yet")
                connection.recv(len(head))
                self.counts.raft += 1
                endpoint = self.raft
            else:
                self.counts.http += 1
                endpoint = self.http
            self._hand_over(endpoint, connection, head)
            handed_over = True
        except (OSError, TimeoutError):
            self.counts.rejected += 1
        finally:
            if not handed_over:
                connection.close()

    async def _first_bytes(self, connection: socket.socket) -> bytes:
        """The first bytes, left in the socket, as soon as they are the preamble or cannot become it any more."""
        while True:
            await _readable(connection)
            head = connection.recv(max(len(self.raft_preamble), 1), socket.MSG_PEEK)
            if not head:
                raise ConnectionError("closed before its first byte")
            if head == self.raft_preamble or not self.raft_preamble.startswith(head):
                return head
            # Only a part of the preamble is there; the socket stays readable, so wait a moment for the rest.
            await asyncio.sleep(0.01)

    @staticmethod
    def _hand_over(endpoint: Endpoint, connection: socket.socket, head: bytes) -> None:
        """Serve the connection on the endpoint's loop; on a TLS endpoint a plain connection stays plain.

        The services behind a TLS endpoint refuse plain requests that are not node-to-node.
        """
        tls = endpoint.tls if head[:1] == _TLS_HANDSHAKE else None

        async def adopt() -> None:
            try:
                loop = asyncio.get_running_loop()
                await loop.connect_accepted_socket(endpoint.factory, connection, ssl=tls)
            except OSError:
                connection.close()

        adoption = adopt()
        try:
            asyncio.run_coroutine_threadsafe(adoption, endpoint.loop)
        except RuntimeError as error:
            # The loop was closed since the endpoint was looked up: the node stops, or gave up its vote.
            adoption.close()
            raise ConnectionError("the service has ended") from error


class AcceptThread:
    """The thread and event loop on which listeners accept."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="dsdb-accept", daemon=True)
        self._listeners: list[Listener] = []

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def start(self, listeners: Sequence[Listener]) -> None:
        """Begin to accept."""
        self._thread.start()
        for listener in listeners:
            self._listeners.append(listener)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(listener.start(), self._loop))

    async def stop(self) -> None:
        """Close the listening sockets and end the thread; connections that were handed over live on."""
        if not self._thread.is_alive():
            return
        for listener in self._listeners:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(listener.stop(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join, 5.0)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection.fileno(), wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection.fileno())
