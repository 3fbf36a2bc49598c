"""Virtual time and a seeded event queue. One simulation at a time per process: it replaces the library's clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pysyncobj.syncobj as _syncobj


class Crashed(BaseException):
    """The process died between two writes of one event."""


class Simulator:
    """Events in order of virtual time; equal times in order of scheduling."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        random.seed(seed)  # the library draws its election timeouts from the module
        self.now_s = 1000.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        _syncobj.monotonicTime = self._clock

    def _clock(self) -> float:
        # Time also passes inside an event, so that no loop of the library can spin for ever.
        self.now_s += 2e-6
        return self.now_s

    def next_number(self) -> int:
        self._order += 1
        return self._order

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time_s, self.next_number(), event))

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        self.at(self.now_s + delay_s, event)

    def run_until(self, end_s: float) -> None:
        while self._queue and self.now_s < end_s:
            time_s, _, event = heapq.heappop(self._queue)
            self.now_s = max(self.now_s, time_s)
            event()
