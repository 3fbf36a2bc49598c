"""Whether this node's copy of the metadata is new enough to answer from.

After a start the copy may lack what was committed while the node was away, and any copy may be a moment behind: neither
may make a node say that a database does not exist, or leave out shards that it has not heard of yet.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dsdbd.errors import NoLeader, ShardUnavailable, Unavailable

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node

_FIRST_TIMEOUT_S = 2.0
_CONFIRM_TIMEOUT_S = 5.0
_AGAIN_S = 5.0


async def reach_index(node: Node, index: int, timeout_s: float) -> None:
    """Wait until this node's metadata are no older than those of who asks, who saw ``index``.

    By older ones it might take itself for an owner, or a new shard for one that was dropped. Raises ShardUnavailable
    when ``timeout_s`` passed first: nothing was done, another owner or a later attempt may succeed. Take less than who
    asks waits, so that it learns this.
    """
    metadata = node.metadata
    if not await metadata.wait_index(index, timeout_s):
        raise ShardUnavailable(
            f"the metadata of data node {node.data_id} (index {metadata.state.index}) are older than those of who asks "
            f"(index {index}); try again when it has caught up"
        )


class Freshness:
    """One per node; use it on the event loop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._caught_up = False
        self._tried_s = float("-inf")

    @property
    def caught_up(self) -> bool:
        """Whether ``catch_up`` has nothing to do any more."""
        return self._caught_up

    async def catch_up(self) -> None:
        """Once after the start: wait for everything that was committed before.

        Without a leader the node serves from the copy it has, which is enough for the shards it knows of. Raises
        Unavailable while it has none.
        """
        if self._caught_up:
            return
        node = self._node
        if not node.is_member:
            raise Unavailable(f"this node is no member of a cluster yet: {node.progress.waiting or 'starting'}")
        now_s = asyncio.get_running_loop().time()
        if now_s - self._tried_s < _AGAIN_S and node.metadata.state.index and not node.metadata.leader():
            return
        try:
            await node.metadata.barrier(_FIRST_TIMEOUT_S)
            self._caught_up = True
        except NoLeader as error:
            self._tried_s = now_s
            if not node.metadata.state.index:
                raise Unavailable(f"this node has no metadata yet: {error.message}") from error

    async def newer(self) -> bool:
        """Take in every change committed so far; whether there were any. Raises NoLeader when nobody can tell."""
        before = self._node.metadata.state.index
        await self._node.metadata.barrier(_CONFIRM_TIMEOUT_S)
        return self._node.metadata.state.index > before
