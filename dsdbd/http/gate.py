"""``[http] max-connection-limit``: clients beyond it are closed, while other nodes of the cluster still come in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from dsdbd.cluster.signing import SIGNATURE_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

_SIGNED = f"\r\n{SIGNATURE_HEADER.lower()}:".encode()


def limited(make: Callable[[], Any], connections: Callable[[], Sized], most: int) -> Callable[[], Any]:
    """``make``, which makes the protocol of a connection, but for those beyond ``most``; 0 sets no limit."""
    if most == 0:
        return make

    def choose() -> Any:
        return make() if len(connections()) < most else Gate(make)

    return choose


class Gate(asyncio.Protocol):
    """One connection too many: it is closed, unless its first request is signed by a node.

    A signature is only looked for; the request is checked like every other.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand a node's connection on, close any other."""
        assert self._transport is not None, "data come from it"
        if _SIGNED not in data.lower():
            self._transport.close()
            return
        protocol = self._make()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)
