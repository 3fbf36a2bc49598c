"""Deletes the shard groups whose points are all older than their policy keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from dsdbd.meta.rows import time_text
from dsdbd.services import groups
from dsdbd.services.leading import LeaderJob

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node

log = structlog.get_logger("retention")


class Retention(LeaderJob):
    """``[retention]``. It changes the metadata only; each owner then removes the directories of its shards itself.

    A group is deleted at most one interval after it expired. Until then its points are answered.
    """

    name = "retention"
    _counters = ("groupsDeleted", "shardsDeleted")

    def __init__(self, node: Node) -> None:
        super().__init__(node, node.config.retention.check_interval_s)

    async def look(self) -> None:
        """Delete what expired, then forget what was deleted long ago."""
        state, now_ns = self._node.metadata.state, self._node.clock.now_ns()
        for group, command in groups.expired(state, now_ns):
            if await self.propose(command):
                self.counters["groupsDeleted"] += 1
                self.counters["shardsDeleted"] += len(group.shards)
                log.info(
                    "expired shard group deleted",
                    database=command.database,
                    policy=command.policy,
                    group=group.id,
                    shards=[shard.id for shard in group.shards],
                    ended=time_text(group.end_ns),
                )
        prune = groups.forgettable(self._node.metadata.state, now_ns)
        if prune is not None:
            await self.propose(prune)
