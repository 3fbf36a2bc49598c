"""The moment in which a node becomes an owner of a shard that it took a copy of.

A coordinator that has not heard of it sends writes to the owners of before, which confirm them until they hear of it
themselves. What they confirmed after this node had compared itself with them for the last time, they alone hold. So
the new owner looks at them once more, by the metadata that made it an owner: who has reached these confirms nothing as
a former owner. Until then it answers nothing about the shard, so that no answer is short.

A crash in this moment leaves the rows to their former owner, which keeps its copy until owners have taken it over.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import structlog

from dsdbd.cluster.transfer_plan import may_answer
from dsdbd.errors import DSDBError, ShardUnavailable
from dsdbd.meta import views

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.whole_pull import WholePull
    from dsdbd.meta.state import MetaState, Shard
    from dsdbd.meta.views import ShardPlace

log = structlog.get_logger("transfer")
_Result = TypeVar("_Result")
_LONGEST_S = 10.0
"""An owner that fails for so long just now is not waited for: what it alone holds comes when it is back. For what a
majority confirmed there is no such bound."""
_AGAIN_S = 0.1
_LATE_AGAIN_S = 1.0


@dataclass(slots=True)
class _Switch:
    """A shard with its owners of before; ``since``: the versions from which on each of them is to be looked at.

    ``brought``: those that were, by the metadata that made this node an owner. ``late``: some fail for long.
    """

    shard: Shard
    replaces: int
    since: Mapping[int, int]
    brought: set[int] = field(default_factory=set)
    late: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Switching:
    """The shards that one node is becoming an owner of. Use it on the event loop, unless it is said otherwise."""

    def __init__(self, node: Node, pulls: WholePull) -> None:
        self._node = node
        self._pulls = pulls
        self._open: dict[int, _Switch] = {}
        node.metadata.on_change(self._look)

    def prepare(self, shard: Shard, replaces: int, since: Mapping[int, int]) -> None:
        """Be ready for metadata that make this node an owner; call it before they are asked for.

        ``since``: for each owner a version below which this node holds what that one does.
        """
        switch = self._open.setdefault(shard.id, _Switch(shard, replaces, since))
        if switch.task is None:
            # An earlier attempt was not committed; the owners may be others by now.
            switch.shard, switch.replaces, switch.since = shard, replaces, since

    def is_under_way(self, shard_id: int) -> bool:
        """Whether this node, where it is an owner, may lack what was confirmed. Any thread may call it."""
        return shard_id in self._open

    def late(self) -> list[int]:
        """Shards about which this node has answered nothing for long. Any thread may call it."""
        return sorted(shard_id for shard_id, switch in tuple(self._open.items()) if switch.late)

    async def over(self, places: Iterable[ShardPlace], timeout_s: float) -> None:
        """Wait until this node may answer for all of these shards. Raises ShardUnavailable."""
        waiting = {place.shard.id: self._open[place.shard.id] for place in places if place.shard.id in self._open}
        try:
            async with asyncio.timeout(timeout_s):
                for switch in waiting.values():
                    await switch.over.wait()
        except TimeoutError:
            raise ShardUnavailable(
                f"data node {self._node.data_id} has just become an owner of shard {min(waiting)}, and does not hold "
                "yet all that its former owners confirmed; try again"
            ) from None

    async def close(self) -> None:
        """End what is under way."""
        tasks = [switch.task for switch in self._open.values() if switch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shard_id in list(self._open):
            self._end(shard_id)

    def _look(self, state: MetaState) -> None:
        own = self._node.data_id
        for shard_id, switch in list(self._open.items()):
            place = views.find_shard(state, shard_id)
            if place is None or own not in views.writers(place.shard):
                self._end(shard_id)
            elif own in place.shard.owners and switch.task is None:
                switch.task = asyncio.create_task(self._finish(shard_id, switch))

    def _end(self, shard_id: int) -> None:
        switch = self._open.pop(shard_id, None)
        if switch is not None:
            switch.over.set()

    async def _finish(self, shard_id: int, switch: _Switch) -> None:
        try:
            try:
                async with asyncio.timeout(_LONGEST_S):
                    await self._until_brought(shard_id, switch)
            except TimeoutError:
                switch.late = True
                log.warning("a former owner does not give what it may have confirmed last", shard=shard_id)
                while True:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LONGEST_S):
                            await self._until_brought(shard_id, switch)
                            return
        except Exception:
            log.exception("looking at former owners failed by a defect of dsdbd", shard=shard_id)
        finally:
            self._end(shard_id)

    async def _until_brought(self, shard_id: int, switch: _Switch) -> None:
        while not self._is_brought(shard_id, switch):
            await self._bring_more(shard_id, switch)
            if self._is_brought(shard_id, switch):
                return
            await asyncio.sleep(_LATE_AGAIN_S if switch.late else _AGAIN_S)

    def _is_brought(self, shard_id: int, switch: _Switch) -> bool:
        """Whether this node now holds what the owners of before had confirmed, or needs it no more."""
        state, detector = self._node.metadata.state, self._node.detector
        place = views.find_shard(state, shard_id)
        if place is None or self._node.data_id not in place.shard.owners:
            return True
        left = {one for one in switch.shard.owners if views.data_node(state, one) is None}
        away = left if detector is None else left | detector.down()
        return may_answer(switch.shard, switch.replaces, switch.brought, away, left, late=switch.late)

    async def _bring_more(self, shard_id: int, switch: _Switch) -> None:
        """Look at the owners of before that are there and were not looked at yet."""
        state, detector = self._node.metadata.state, self._node.detector
        place = views.find_shard(state, shard_id)
        down = () if detector is None else detector.down()
        asked = [
            owner
            for owner in switch.shard.owners
            if owner not in switch.brought and owner not in down and views.data_node(state, owner) is not None
        ]
        if place is None:
            return
        _, failure = await of_each({owner: self._bring(place, owner, switch) for owner in asked})
        if failure is not None:
            log.info("a former owner could not be looked at", shard=shard_id, reason=failure.message)

    async def _bring(self, place: ShardPlace, owner: int, switch: _Switch) -> None:
        if owner in switch.since:
            await self._pulls.catch_up(place, owner, switch.since[owner])
        else:
            await self._pulls.pull(place, owner)
        switch.brought.add(owner)


async def of_each(asked: Mapping[int, Awaitable[_Result]]) -> tuple[dict[int, _Result], DSDBError | None]:
    """What comes of asking each owner, side by side, and the error of one that failed."""
    results = await asyncio.gather(*asked.values(), return_exceptions=True)
    found: dict[int, _Result] = {}
    failure: DSDBError | None = None
    for owner, result in zip(asked, results, strict=True):
        if isinstance(result, DSDBError):
            failure = result
        elif isinstance(result, BaseException):
            raise result
        else:
            found[owner] = result
    return found, failure
