"""Having owners of shards hold what others do before somebody goes on: a quorum read, or who knows what they lack."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dsdbd.cluster.freshness import reach_index
from dsdbd.cluster.owners import not_owner
from dsdbd.cluster.pieces import in_groups
from dsdbd.cluster.repair_messages import COMPLETE_PATH, CompleteRequest, Range, decode_request, encode
from dsdbd.cluster.repair_plan import enough
from dsdbd.errors import DSDBError, ShardUnavailable
from dsdbd.meta import views
from dsdbd.storage.selection import MAX_NS, MIN_NS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.repair_pull import Pulled
    from dsdbd.cluster.shard_places import ShardPlaces
    from dsdbd.meta.views import ShardPlace

    Pull = Callable[[ShardPlace, int, Range], Awaitable[Pulled]]

_TIMEOUT_S = 10.0
"""Silence of the other side; it shows signs of life while it works."""
_METADATA_TIMEOUT_S = 5.0
_AT_ONCE = 4
"""Shards of one request that are completed side by side."""


class Completion:
    """Completes copies for one node; use it on the event loop.

    ``pull`` brings this node's copy what another one holds of a part of it, as fast as it can, as a client waits;
    ``pull_rated`` keeps the rate of repair. ``counters``: ``completed`` grows with each copy.
    """

    def __init__(self, node: Node, places: ShardPlaces, counters: dict[str, int], pull: Pull, pull_rated: Pull) -> None:
        self._node = node
        self._places = places
        self._pull = pull
        self._pull_rated = pull_rated
        self._counters = counters

    async def at(
        self,
        owner: int,
        places: Sequence[ShardPlace],
        measurements: Collection[str] | None,
        min_ns: int,
        max_ns: int,
    ) -> None:
        """Have an owner of shards hold what a majority of their owners holds of some measurements.

        ``measurements``: None for all; times are inclusive. Then a read of that owner sees all that a majority had
        acknowledged before. Raises ShardUnavailable where no majority answers.
        """
        if owner == self._node.data_id:
            await self._complete(places, Range(measurements=measurements, min_ns=min_ns, max_ns=max_ns))
            return
        wanted = None if measurements is None else sorted(measurements)
        shards = [place.shard.id for place in places]
        await self._ask(owner, shards, wanted, min_ns, max_ns, everyone=False)

    async def all_at(self, owner: int, places: Sequence[ShardPlace]) -> None:
        """Have an owner of shards hold what all their other owners hold. Raises ShardUnavailable where one is away."""
        if owner == self._node.data_id:
            await self._complete(places, Range(), everyone=True)
        else:
            shards = [place.shard.id for place in places]
            await self._ask(owner, shards, None, MIN_NS, MAX_NS, everyone=True)

    async def answer(self, body: bytes) -> bytes:
        """Answer a CompleteRequest. Raises NotOwner, ShardUnavailable."""
        request = decode_request(body, CompleteRequest)
        await reach_index(self._node, request.metadata_index, _METADATA_TIMEOUT_S)
        places = []
        for shard_id in request.shards:
            place = self._places.get(shard_id)
            if place is None:
                continue  # dropped
            if self._node.data_id not in place.shard.owners:
                raise not_owner(self._node, shard_id)
            places.append(place)
        part = Range(measurements=request.measurements, min_ns=request.min_ns, max_ns=request.max_ns)
        await self._complete(places, part, everyone=request.everyone)
        return b""

    async def _complete(self, places: Sequence[ShardPlace], part: Range, *, everyone: bool = False) -> None:
        for some in in_groups(places, _AT_ONCE):
            results = await asyncio.gather(
                *(self._complete_one(place, part, everyone=everyone) for place in some), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _complete_one(self, place: ShardPlace, part: Range, *, everyone: bool) -> None:
        """Pull from other owners until enough of them have given what they have."""
        owners = place.shard.owners
        others = [owner for owner in owners if owner != self._node.data_id]
        needed = len(others) if everyone else enough(owners)
        pull = self._pull_rated if everyone else self._pull
        pulls = {asyncio.ensure_future(pull(place, other, part)) for other in others}
        reasons: list[str] = []
        done_count = 0
        try:
            waiting = pulls
            while waiting and done_count < needed:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    error = one.exception()
                    if error is None:
                        done_count += 1
                    elif isinstance(error, DSDBError):
                        reasons.append(error.message)
                    else:
                        raise error
        finally:
            for one in pulls:
                one.cancel()
            await asyncio.gather(*pulls, return_exceptions=True)
        if done_count < needed:
            raise ShardUnavailable(
                f"{done_count + 1} of {len(owners)} owners of shard {place.shard.id} answer, {needed + 1} are needed: "
                + "; ".join(reasons)
            )
        self._counters["completed"] += 1

    async def _ask(
        self, owner: int, shards: list[int], measurements: list[str] | None, min_ns: int, max_ns: int, *, everyone: bool
    ) -> None:
        peer = views.data_node(self._node.metadata.state, owner)
        if peer is None:
            raise ShardUnavailable(f"data node {owner} is not registered")
        index = self._node.metadata.state.index
        request = CompleteRequest(index, shards, measurements, min_ns, max_ns, everyone)
        await self._node.peers.call(peer.tcp_addr, "POST", COMPLETE_PATH, encode(request), timeout_s=_TIMEOUT_S)
