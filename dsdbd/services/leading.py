"""A job that one node of the cluster does at intervals: the one that leads the metadata.

Every meta node runs the timer, and the one that leads when it fires acts; so there is nothing to hand over when the
leader changes. Two nodes that both believe to lead do no harm: the barrier tells the older one that it does not, and
the commands may be repeated.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import structlog

from dsdbd.errors import DSDBError, MetaRefused

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.meta.commands import Command

log = structlog.get_logger("services")
_BARRIER_TIMEOUT_S = 5.0
_AGAIN_S = 10.0
"""Pause after a look that failed; shorter than most intervals, because the work is due."""


class LeaderJob:
    """A job's timer and counters; a subclass says what there is to do.

    The counters are those of this node since its start, shown by SHOW STATS and /metrics under ``name``.
    """

    name: ClassVar[str]
    _counters: ClassVar[tuple[str, ...]] = ()

    def __init__(self, node: Node, interval_s: float) -> None:
        self._node = node
        self._interval_s = interval_s
        self.counters = dict.fromkeys(("checks", "errors", *self._counters), 0)
        node.service_stats[self.name] = self.counters

    async def run(self) -> None:
        """Look every interval; runs until cancelled."""
        pause_s = self._interval_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self._interval_s if await self._try() else min(_AGAIN_S, self._interval_s)

    def has_work(self) -> bool:
        """Whether to look at all; a job that looks often answers from this node's metadata and spares a barrier."""
        return True

    async def look(self) -> None:
        """Do what is due, with metadata as new as any committed before the call; only called on the leader."""
        raise NotImplementedError

    async def propose(self, command: Command) -> bool:
        """Commit one command; False when the state machine refuses it, because its object has just gone."""
        try:
            await self._node.metadata.propose(command)
        except MetaRefused as error:
            self.counters["errors"] += 1
            log.warning(f"{self.name} was refused a change", reason=error.message)
            return False
        return True

    async def _try(self) -> bool:
        """One look; False when it failed and should be repeated soon."""
        raft = self._node.raft
        if raft is None or raft.status().role != "leader":
            return True
        if not self.has_work():
            return True
        self.counters["checks"] += 1
        try:
            await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
            await self.look()
        except DSDBError as error:
            # No leader, or an unknown outcome: whoever leads next finds the same work.
            self.counters["errors"] += 1
            log.warning(f"{self.name} is put off", reason=error.message)
            return False
        return True
