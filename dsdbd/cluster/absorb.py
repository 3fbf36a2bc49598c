"""The end of a move at the side that keeps the shard: take over what a former owner still holds, and say so.

A former owner removes its files only after an owner has confirmed this, because a coordinator with old metadata may
have written to it until it learned that it is no owner any more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from dsdbd.cluster.freshness import reach_index
from dsdbd.cluster.segment_messages import decode, encode
from dsdbd.cluster.transfer_plan import Rate
from dsdbd.cluster.whole_pull import WholePull
from dsdbd.errors import DSDBError, ShardUnavailable
from dsdbd.meta import views

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.meta.state import DataNode

log = structlog.get_logger("transfer")
ABSORB_PATH = "/internal/absorb"
_ANSWER_S = 2.0
"""The former owner asks again after this, so that no request is open for long; the work goes on meanwhile."""
_ASK_TIMEOUT_S = 10.0
_METADATA_TIMEOUT_S = 5.0


class AbsorbRequest(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``POST /internal/absorb``: data node ``from_node`` holds the shard and is no owner of it.

    ``index``: of the metadata by which it found that. It confirms no writes of the shard since; one that was on its way
    to its log may still come. ``changes`` (``Shard.changes`` of the process that began at ``started_ns``): the content
    that is asked about, so that what was found for an earlier one is no answer.
    """

    shard_id: int
    from_node: int
    index: int
    changes: int
    started_ns: int


class AbsorbAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Whether this owner holds all that the former owner does."""

    holds_all: bool


class Absorber:
    """What one node takes over from former owners. Use it on the event loop."""

    def __init__(self, node: Node, clock: VersionClock) -> None:
        """``clock`` is told of versions that come."""
        self._node = node
        self._whole = WholePull(node, clock, Rate(node.config.anti_entropy.max_throughput_bytes))
        self._pulls: dict[AbsorbRequest, asyncio.Task[None]] = {}

    async def receive(self, body: bytes) -> bytes:
        """Answer a former owner. Raises ShardUnavailable where this node is no owner, and what stops the comparison."""
        request = decode(body, AbsorbRequest)
        metadata = self._node.metadata
        await reach_index(self._node, request.index, _METADATA_TIMEOUT_S)
        place = views.find_shard(metadata.state, request.shard_id)
        if place is None or self._node.data_id not in place.shard.owners:
            raise ShardUnavailable(f"this node is no owner of shard {request.shard_id}")
        task = self._pulls.get(request)
        if task is None:
            for ended in [one for one, pull in self._pulls.items() if pull.done()]:
                # Nobody came for its answer, or it was a failure; asking again compares again.
                del self._pulls[ended]
            task = self._pulls[request] = asyncio.create_task(self._whole.pull(place, request.from_node))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({task}, timeout=_ANSWER_S)
        if not task.done():
            return encode(AbsorbAnswer(holds_all=False))
        self._pulls.pop(request, None)
        task.result()
        return encode(AbsorbAnswer(holds_all=True))


async def ask_to_absorb(node: Node, owner: DataNode, shard_id: int, index: int, changes: int) -> bool:
    """Whether an owner holds all that this node does of a shard. Raises DSDBError where it cannot tell."""
    assert node.data_id is not None
    body = encode(AbsorbRequest(shard_id, node.data_id, index, changes, node.started_ns))
    raw = await node.peers.call(owner.tcp_addr, "POST", ABSORB_PATH, body, timeout_s=_ASK_TIMEOUT_S)
    return decode(raw, AbsorbAnswer).holds_all


async def given_away(node: Node, shard_id: int, index: int, changes: int) -> bool:
    """Whether some owner of a shard, not this node's any more since ``index``, confirmed that it holds all of it.

    ``changes``: the shard's count of changes before the call. What came since is not confirmed.
    """
    place = views.find_shard(node.metadata.state, shard_id)
    if place is None or node.data_id is None or node.data_id in views.writers(place.shard):
        return False
    down = node.away()
    for owner in sorted(place.shard.owners, key=lambda owner: owner in down):
        peer = views.data_node(node.metadata.state, owner)
        if peer is None:
            continue
        try:
            if await ask_to_absorb(node, peer, shard_id, index, changes):
                return True
        except DSDBError as error:
            log.info("an owner did not take over a shard yet", shard=shard_id, owner=owner, reason=error.message)
    return False
