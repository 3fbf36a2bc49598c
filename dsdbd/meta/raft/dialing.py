"""Opening connections to peers: names are resolved at each attempt, and an attempt that fails is simply made again."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from dsdbd.meta.raft.connection import Connections
from dsdbd.meta.raft.library import monotonic_s
from dsdbd.meta.raft.membership import check_address

log = logging.getLogger(__name__)

RETRY_S: Final = 0.5
"""Pause between two attempts to reach the same peer; it bounds how late a returned node is back."""
DIAL_TIMEOUT_S: Final = 1.5
"""A kernel sends the first packet again after one second and then after two more; a new attempt is sooner than that."""
KEEP_ALIVE_S: Final = 1.0


class DialLoop:
    """Keeps the wanted links open; runs on the Raft thread's loop."""

    def __init__(self, connections: Connections, dead_after_s: float) -> None:
        self._connections = connections
        self._dead_after_s = dead_after_s
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reported: dict[str, str] = {}

    def start(self) -> None:
        """Begin; later calls look at once for newly wanted peers."""
        if self._timer is not None:
            self._timer.cancel()
        self._turn()

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(RETRY_S, self._turn)
        self._connections.keep_alive(monotonic_s(), KEEP_ALIVE_S, self._dead_after_s)
        wanted = self._connections.transport.wanted()
        for address in wanted:
            if address not in self._attempts:
                self._attempts[address] = loop.create_task(self._dial(address))

    async def _dial(self, address: str) -> None:
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                host, port = check_address(address)
                # A numeric address is not looked up; a name is, by the executor, every time.
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self._connections.dial(address), host, port)
            self._reported.pop(address, None)
        except (OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            if self._reported.get(address) != reason:
                self._reported[address] = reason
                log.info("cannot reach %s: %s; trying again", address, reason)
        finally:
            # The connection needs a moment for its handshake before the peer counts as missing again.
            asyncio.get_running_loop().call_later(RETRY_S, self._attempts.pop, address, None)

    async def stop(self) -> None:
        """Stop dialing."""
        if self._timer is not None:
            self._timer.cancel()
        attempts = list(self._attempts.values())
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
