"""``[http] max-connection-limit``: clients beyond it are closed, while other nodes of the cluster still come in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from dsdbd.cluster.signing import SIGNATURE_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SIGNED = f"\r\n{SIGNATURE_HEADER.lower()}:".encode()


def limited(make: Callable[[], Any], connections: Callable[[], Iterable[Any]], most: int) -> Callable[[], Any]:
    """``make``, which makes the protocol of a connection, but for clients beyond ``most``; 0 sets no limit."""
    if most == 0:
        return make
    door = _Door(make, connections, most)
    return lambda: _Gate(door)


class _Door:
    """Who is in: connections of nodes, which do not count, those of clients, and those that have said nothing yet."""

    def __init__(self, make: Callable[[], Any], connections: Callable[[], Iterable[Any]], most: int) -> None:
        self.make = make
        self.waiting: set[_Gate] = set()
        self._connections = connections
        self._most = most
        self._nodes: set[Any] = set()

    def has_room(self) -> bool:
        """Whether one more client may come in."""
        there = set(self._connections())
        self._nodes &= there
        return len(there) - len(self._nodes) + len(self.waiting) < self._most

    def let_in(self, *, node: bool) -> Any:
        """The protocol of a connection."""
        protocol = self.make()
        if node:
            self._nodes.add(protocol)
        return protocol


class _Gate(asyncio.Protocol):
    """A connection until its first bytes: one too many is closed, unless its first request is signed by a node.

    A signature is only looked for; the request is checked like every other.
    """

    def __init__(self, door: _Door) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._fits = door.has_room()
        if self._fits:
            door.waiting.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        """Make room."""
        self._door.waiting.discard(self)

    def data_received(self, data: bytes) -> None:
        """Hand the connection on, or close it."""
        assert self._transport is not None, "data come from it"
        self._door.waiting.discard(self)
        is_node = _SIGNED in data.lower()
        if not self._fits and not is_node:
            self._transport.close()
            return
        protocol = self._door.let_in(node=is_node)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)
