"""Everything that another node holds of a shard, at a cost that does not grow with the writes that go on meanwhile.

A shard that is written to differs between any two nodes at any moment, by what is on its way; compared as it is, the
parts that are written to differ every time, and are sent whole. So it is taken in two steps, divided by a version a
moment ago: older rows by digests, as they hardly change any more, and then the rows of that version and newer ones
themselves, which are few. Every row belongs to one of the two, whatever the machines' clocks say: a clock that is wrong
makes more rows be sent, never fewer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd.cluster.lateness import late_ns
from dsdbd.cluster.repair_messages import Range
from dsdbd.cluster.repair_plan import KnownCells
from dsdbd.cluster.repair_progress import RepairProgress
from dsdbd.cluster.repair_pull import Puller
from dsdbd.errors import ShardUnavailable

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.transfer_plan import Rate
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.meta.views import ShardPlace

_ON_THEIR_WAY_NS = 2_000_000_000
"""Versions that are older than this reached every node that answers, but for few."""


class WholePull:
    """Pulls whole shards to one node; use it on the event loop. ``rate`` bounds the bytes of all of them."""

    def __init__(self, node: Node, clock: VersionClock, rate: Rate) -> None:
        self._node = node
        self._clock = clock
        self._rate = rate
        self._known = KnownCells()

    async def pull(self, place: ShardPlace, from_node: int) -> None:
        """Bring this node's copy all that another one held when it was asked.

        Raises ShardUnavailable and other DSDBError where that could not be done; what has come stays.
        """
        await self.catch_up(place, from_node, await self.settle(place, from_node))

    async def settle(self, place: ShardPlace, from_node: int) -> int:
        """Bring all rows of versions lower than the one that is returned. Raises as ``pull`` does."""
        # Versions follow the newest one seen, so that one clock ahead of the others takes all with it.
        bound = max(self._node.clock.now_ns(), self._clock.last) - _ON_THEIR_WAY_NS
        await self._pull(place, from_node, Range(below=bound))
        return bound

    async def catch_up(self, place: ShardPlace, from_node: int, since: int) -> None:
        """Bring all rows of that version and newer ones. Raises as ``pull`` does."""
        await self._pull(place, from_node, Range(since=since))

    async def _pull(self, place: ShardPlace, from_node: int, part: Range) -> None:
        node = self._node
        if node.repair is None:
            raise ShardUnavailable("this node cannot compare shards yet")
        now_ns = node.clock.now_ns()
        progress = RepairProgress.begin(place, from_node, node.data_id or 0, now_ns)
        puller = Puller(node, node.repair.source, self._clock, self._rate, self._known)
        await puller.pull(place, from_node, part, progress, now_ns - late_ns(node))
