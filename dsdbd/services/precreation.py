"""Creates the shard group that follows the newest one before the first point needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from dsdbd.services import groups
from dsdbd.services.leading import LeaderJob

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node

log = structlog.get_logger("shard-precreation")


class Precreation(LeaderJob):
    """``[shard-precreation]``. Without it the first writes of a new group wait for its creation, all at once."""

    name = "shardPrecreation"
    _counters = ("groupsCreated",)

    def __init__(self, node: Node) -> None:
        super().__init__(node, node.config.shard_precreation.check_interval_s)
        self._advance_ns = int(node.config.shard_precreation.advance_period_s * 1e9)

    async def look(self) -> None:
        """Create every successor that is due."""
        now_ns = self._node.clock.now_ns()
        for command in groups.successors(self._node.metadata.state, now_ns, self._advance_ns, self._node.away()):
            if await self.propose(command):
                self.counters["groupsCreated"] += 1
                log.info("shard group created ahead of time", database=command.database, policy=command.policy)
