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
_LONGEST_PAUSE_S = 4.0
"""It bounds how long an owner is known to lack points after a way that merely lost packets was mended."""
_SHARDS_AT_ONCE = 128
_BARRIER_TIMEOUT_S = 5.0


class Attempts:
    """When to try again what failed for an owner: each failure doubles the pause, up to a bound. Pure."""

    def __init__(self, longest_pause_s: float) -> None:
        self._longest_pause_s = longest_pause_s
        self._failures: dict[int, int] = {}
        self._again_s: dict[int, float] = {}

    def is_due(self, owner: int, now_s: float) -> bool:
        """Whether it may be tried."""
        return now_s >= self._again_s.get(owner, float("-inf"))

    def failed(self, owner: int, now_s: float) -> None:
        """It was tried in vain."""
        failures = self._failures[owner] = self._failures.get(owner, 0) + 1
        self._again_s[owner] = now_s + min(self._longest_pause_s, _LOOK_S * 2.0 ** min(failures, 10))

    def succeeded(self, owner: int) -> None:
        """It is done."""
        self._failures.pop(owner, None)
        self._again_s.pop(owner, None)

    def begin_anew(self) -> None:
        """There is reason to believe that it goes well now, for any of them."""
        self._failures.clear()
        self._again_s.clear()


class LostShards:
    """Works off what one node's handoff has noted as lost; use it on the event loop."""

    def __init__(self, node: Node, repair: Repair) -> None:
        self._node = node
        self._repair = repair
        self._attempts = Attempts(min(_LONGEST_PAUSE_S, node.config.anti_entropy.check_interval_s))
        if node.detector is not None:
            # It takes all owners: any of them may have been the one that was missing.
            node.detector.on_serving(lambda _: self._attempts.begin_anew())

    async def run(self) -> None:
        """Look every second; runs until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            handoff = self._node.handoff
            if handoff is None:
                continue
            for owner, keys in handoff.lost().items():
                if not self._attempts.is_due(owner, self._now_s()) or self._is_down(owner):
                    continue
                if await self._try(owner, {key.shard_id for key in keys}):
                    handoff.found_again(owner, keys)

    def _is_down(self, owner: int) -> bool:
        detector = self._node.detector
        return detector is not None and detector.is_down(owner)

    async def _try(self, owner: int, shards: set[int]) -> bool:
        """Whether an owner holds all of these shards now; each failure doubles the pause before the next attempt."""
        try:
            await self._mend(owner, shards)
        except Exception as error:
            self._attempts.failed(owner, self._now_s())
            if isinstance(error, DSDBError):
                log.info("an owner is not repaired yet", owner=owner, reason=error.message)
            else:
                log.exception("repairing an owner failed by a defect of dsdbd", owner=owner)
            return False
        self._attempts.succeeded(owner)
        return True

    async def _mend(self, owner: int, shards: set[int]) -> None:
        """Have an owner compare itself with every other; shards it does not own any more need nothing."""
        await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
        if views.data_node(self._node.metadata.state, owner) is None:
            return
        places = self._repair.source.places.all()
        owned = sorted(one for one in shards if one in places and owner in places[one].shard.owners)
        for some in in_groups(owned, _SHARDS_AT_ONCE):
            await self._repair.completion.all_at(owner, [places[one] for one in some])

    def _now_s(self) -> float:
        return self._node.clock.monotonic_s()
