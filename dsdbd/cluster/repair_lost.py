"""What handoff could not keep: the owners concerned pull from all others, until they hold what those do.

A crash leaves the list of handoff, from which the next start goes on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from dsdbd.cluster.pieces import in_groups
from dsdbd.errors import DSDBError
from dsdbd.meta import views

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.repair import Repair

log = structlog.get_logger("repair")
_LOOK_S = 1.0
_SHARDS_AT_ONCE = 128
_BARRIER_TIMEOUT_S = 5.0


class LostShards:
    """Works off what one node's handoff has noted as lost; use it on the event loop."""

    def __init__(self, node: Node, repair: Repair) -> None:
        self._node = node
        self._repair = repair
        self._failures: dict[int, int] = {}
        self._again_s: dict[int, float] = {}

    async def run(self) -> None:
        """Look every second; runs until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            handoff = self._node.handoff
            if handoff is None:
                continue
            for owner, keys in handoff.lost().items():
                if self._now_s() >= self._again_s.get(owner, 0.0) and await self._try(
                    owner, {key.shard_id for key in keys}
                ):
                    handoff.found_again(owner, keys)

    async def _try(self, owner: int, shards: set[int]) -> bool:
        """Whether an owner holds all of these shards now; each failure doubles the pause before the next attempt."""
        try:
            await self._mend(owner, shards)
        except Exception as error:
            failures = self._failures[owner] = self._failures.get(owner, 0) + 1
            interval_s = self._node.config.anti_entropy.check_interval_s
            self._again_s[owner] = self._now_s() + min(interval_s, _LOOK_S * 2.0 ** min(failures, 10))
            if isinstance(error, DSDBError):
                log.info("an owner is not repaired yet", owner=owner, reason=error.message)
            else:
                log.exception("repairing an owner failed by a defect of dsdbd", owner=owner)
            return False
        self._failures.pop(owner, None)
        return True

    async def _mend(self, owner: int, shards: set[int]) -> None:
        """Have an owner compare itself with every other; shards it does not own any more need nothing."""
        await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
        if views.data_node(self._node.metadata.state, owner) is None:
            return
        places = self._repair.source.places.all()
        owned = sorted(one for one in shards if one in places and owner in places[one].shard.owners)
        for some in in_groups(owned, _SHARDS_AT_ONCE):
            await self._repair.complete_all_at(owner, [places[one] for one in some])

    def _now_s(self) -> float:
        return self._node.clock.monotonic_s()
