"""A bound on bytes that are held for requests in flight: what does not fit is refused at once, never queued."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dsdbd.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator


class ByteBudget:
    """Counts bytes against a limit; ``what`` names them in the refusal. Use it on one event loop."""

    def __init__(self, limit_bytes: int, what: str) -> None:
        self._limit_bytes = limit_bytes
        self._what = what
        self.held_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Hold bytes until ``give_back``. Raises Overloaded when they do not fit beside the others.

        A single request fits whatever its size, which has a limit of its own.
        """
        if self.held_bytes and self.held_bytes + size_bytes > self._limit_bytes:
            raise Overloaded(
                f"this node holds {self.held_bytes >> 20} MB of {self._what}, as much as it may; "
                "repeat the request in a moment, from fewer connections"
            )
        self.held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """End the hold of bytes that were taken."""
        self.held_bytes -= size_bytes

    @contextlib.contextmanager
    def held(self) -> Iterator[Hold]:
        """A hold that grows with ``Hold.grow`` and ends with the block."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            hold.release()


class Hold:
    """The bytes one request holds so far."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.size_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """Hold more; raises Overloaded."""
        self._budget.take(size_bytes)
        self.size_bytes += size_bytes

    def release(self) -> None:
        """Hold nothing any more."""
        self._budget.give_back(self.size_bytes)
        self.size_bytes = 0
