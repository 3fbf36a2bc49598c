"""Gives every shard the copies it should have: after nodes joined, were lost for long, or began to drain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from dsdbd.cluster import segment_fetch
from dsdbd.errors import DSDBError
from dsdbd.meta import balance
from dsdbd.meta.commands import CancelMoves, RemoveShardOwner
from dsdbd.services import copies
from dsdbd.services.leading import LeaderJob

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.meta.state import DataNode

log = structlog.get_logger("replication")
_INTERVAL_S = 5.0
_LEAST_INTERVAL_S = 0.2
_DRAIN_GRACE_S = 30.0
"""A drain is ordered by whoever asked for it; what it left, because the cluster changed meanwhile, is ordered here."""


class Replication(LeaderJob):
    """``[cluster] restore-grace``. It orders copies in the metadata; the receiving nodes make them.

    What is under way is bounded, so that a cluster which changes again does not have to unmake old orders. After a
    change of the leader the grace of a node that is down begins anew.
    """

    name = "replication"
    _counters = ("replicationRaised", "copiesOrdered", "copiesGivenUp", "movesCancelled")

    def __init__(self, node: Node) -> None:
        self._grace_s = node.config.cluster.restore_grace_s
        # A short grace is asked for by who wants to see it end.
        interval_s = _INTERVAL_S if not self._grace_s else max(_LEAST_INTERVAL_S, min(_INTERVAL_S, self._grace_s / 4))
        super().__init__(node, interval_s)
        self._cap = node.config.meta.retention_autocreate_max_replicas
        self._drained_since_s: dict[int, float] = {}
        self._told: tuple[str, ...] = ()

    def has_work(self) -> bool:
        """Whether a number of copies is behind, or a shard lacks one."""
        self._watch_drains()
        state = self._node.metadata.state
        gone = self._gone()
        return (
            copies.raise_due(state, self._cap) is not None
            or (self._may_order() and copies.copies_missing(state, gone))
            or bool(copies.dead_receivers(state, gone))
        )

    async def look(self) -> None:
        """Raise numbers of copies, then order what is missing."""
        raised = copies.raise_due(self._node.metadata.state, self._cap)
        if raised is not None and await self.propose(raised):
            self.counters["replicationRaised"] += 1
            log.info("more copies are kept where their number was not stated", data_nodes=self._data_nodes())
        for node_id in copies.dead_receivers(self._node.metadata.state, self._gone()):
            if await self.propose(CancelMoves(node_id=node_id)):
                self.counters["movesCancelled"] += 1
                log.warning("copies that a node was taking are ordered anew: it is gone", data_node=node_id)
        if self._may_order() and copies.copies_missing(self._node.metadata.state, self._gone()):
            await self._order()

    async def _order(self) -> None:
        sizes = await self._sizes()
        state, down, gone = self._node.metadata.state, self._down(), self._gone()
        room = copies.room_for_moves(state, down)
        plan = await asyncio.to_thread(balance.plan_restore, state, sizes, down, gone)
        if plan.refusals and plan.refusals != self._told:
            log.error("shards cannot get their copies back", reason="; ".join(plan.refusals))
        self._told = plan.refusals
        ordered = plan.first(room)
        for command in ordered.commands():
            if await self.propose(command):
                self.counters["copiesOrdered"] += len(command.moves)
                log.info(
                    "copies of shards ordered",
                    copies=len(command.moves),
                    waiting=len(plan.moves) - len(ordered.moves),
                    size_bytes=ordered.size_bytes,
                )
        for shard_id, owner in plan.removals[:room]:
            if await self.propose(RemoveShardOwner(shard_id, owner)):
                self.counters["copiesGivenUp"] += 1

    async def _sizes(self) -> dict[int, int]:
        """Bytes of each shard, as the fullest copy has them; those of a node that does not answer are not counted."""
        down = self._down()
        asked = [node for node in self._node.metadata.state.data_nodes if node.id not in down]
        sizes: dict[int, int] = {}
        for answer in await asyncio.gather(*(self._sizes_at(node) for node in asked)):
            for shard_id, size_bytes in answer.items():
                sizes[shard_id] = max(size_bytes, sizes.get(shard_id, 0))
        return sizes

    async def _sizes_at(self, node: DataNode) -> dict[int, int]:
        try:
            return (await segment_fetch.sizes_at(self._node.peers, node.tcp_addr)).sizes
        except DSDBError:
            return {}

    def _down(self) -> set[int]:
        return {*self._node.away()}

    def _gone(self) -> frozenset[int]:
        """Data nodes that have been down for longer than the grace; none where there is no end to it."""
        detector = self._node.detector
        if detector is None or not self._grace_s:
            return frozenset()
        since = {node_id: detector.since_s(node_id) for node_id in detector.down()}
        return frozenset(node_id for node_id, age_s in since.items() if age_s is not None and age_s >= self._grace_s)

    def _watch_drains(self) -> None:
        now_s = asyncio.get_running_loop().time()
        draining = [node.id for node in self._node.metadata.state.data_nodes if node.draining]
        self._drained_since_s = {node_id: self._drained_since_s.get(node_id, now_s) for node_id in draining}

    def _may_order(self) -> bool:
        """Whether no drain has begun just now: who ordered it is ordering its moves, and two would meet."""
        now_s = asyncio.get_running_loop().time()
        return all(now_s - since_s >= _DRAIN_GRACE_S for since_s in self._drained_since_s.values())

    def _data_nodes(self) -> int:
        return len(self._node.metadata.state.data_nodes)
