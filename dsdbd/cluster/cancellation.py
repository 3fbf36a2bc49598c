"""The end of a query before its answer is complete: the client went away, its time is up, or it was killed.

It goes with a request to wherever its work is done, and so do the request's demands on the owners that are read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from dsdbd import query
from dsdbd.cluster.demand import Demand
from dsdbd.cluster.running import INTERRUPTED
from dsdbd.query.select_limits import PointBudget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dsdbd.meta.views import ShardPlace
    from dsdbd.query import Partial

    Watcher = Callable[[int, str, Sequence[ShardPlace], Awaitable[bytes | Partial]], Awaitable[bytes | Partial]]

_Result = TypeVar("_Result")


class Cancellation:
    """Tells the worker threads of a query to stop; set when the client went away or its time is up."""

    def __init__(self, demand: Demand | None = None) -> None:
        self.demand = Demand() if demand is None else demand
        self.reason = INTERRUPTED
        self.points = PointBudget()
        self.watcher: Watcher | None = None
        # A plain flag: threads only look at it, and a request without one costs less.
        self._set = False
        self._waiting: set[asyncio.Future[Any]] = set()

    def cancel(self, reason: str = INTERRUPTED) -> None:
        """Stop the query's work on this node and its requests to others; call it on the event loop."""
        if not self._set:
            self.reason = reason
            self._set = True
        for future in tuple(self._waiting):
            future.cancel()

    async def guard(self, future: asyncio.Future[_Result]) -> _Result:
        """The result of a future, which ``cancel`` ends. Raises QueryCancelled then."""
        if self._set:
            future.cancel()
        self._waiting.add(future)
        try:
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._set and (task is None or not task.cancelling()):
                raise query.QueryCancelled(self.reason) from None
            raise
        finally:
            self._waiting.discard(future)

    def check(self) -> None:
        """Raise QueryCancelled when the query shall stop."""
        if self._set:
            raise query.QueryCancelled(self.reason)

    def __call__(self) -> bool:
        """Whether the query shall stop."""
        return self._set

    def watched(
        self, owner: int, kind: str, places: Sequence[ShardPlace], asked: Awaitable[bytes | Partial]
    ) -> Awaitable[bytes | Partial]:
        """What is asked of an owner, for those who want to know of it; ``kind`` is that of the request."""
        return asked if self.watcher is None else self.watcher(owner, kind, places, asked)
