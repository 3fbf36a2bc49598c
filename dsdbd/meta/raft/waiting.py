"""Callers on other loops: answers on their way to them, and those who wait until a log index is applied."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Any, Final

from dsdbd import limits

_order: Final = itertools.count()


def _settle(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)


class Answers:
    """Answers on their way to callers on other loops: one wake-up per loop for all of a tick.

    They leave after the tick, when what the node reports about itself (its applied index) agrees with them.
    """

    def __init__(self) -> None:
        self._ready: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}

    def put(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], value: object) -> None:
        """Have ``future`` of ``loop`` settled at the next ``flush``."""
        self._ready.setdefault(loop, []).append((future, value))

    def flush(self) -> None:
        """Send everything."""
        if not self._ready:
            return
        ready, self._ready = self._ready, {}
        for loop, answers in ready.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._settle_all, answers)

    @staticmethod
    def _settle_all(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
        for future, value in answers:
            if not future.done():
                future.set_result(value)


class AppliedWaiters:
    """Used on the Raft thread only; each future belongs to the loop given with it. True means applied."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, asyncio.AbstractEventLoop, asyncio.Future[bool]]] = []

    def add(self, index: int, loop: asyncio.AbstractEventLoop, future: asyncio.Future[bool], applied: int) -> None:
        """Settle ``future`` when ``index`` is applied; at once (False) when too many wait already."""
        if applied >= index or len(self._heap) >= limits.MAX_RAFT_PROPOSALS:
            self._tell(loop, future, applied >= index)
        else:
            heapq.heappush(self._heap, (index, next(_order), loop, future))

    def applied(self, index: int) -> None:
        """Settle everybody who waited for ``index`` or less."""
        while self._heap and self._heap[0][0] <= index:
            _, _, loop, future = heapq.heappop(self._heap)
            self._tell(loop, future, True)

    def discard(self, future: asyncio.Future[bool]) -> None:
        """Forget a caller who gave up."""
        self._heap = [waiter for waiter in self._heap if waiter[3] is not future]
        heapq.heapify(self._heap)

    def fail(self) -> None:
        """Settle everybody with False."""
        for _, _, loop, future in self._heap:
            self._tell(loop, future, False)
        self._heap = []

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[bool], value: bool) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, future, value)
