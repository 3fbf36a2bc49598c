"""The metadata of a node without a vote: it follows the meta nodes by long poll and proposes through them.

Every state it receives is kept on disk, so that the node starts, serves reads and accepts writes for existing shards
while no meta node answers. The copy is only a cache: a damaged one is dropped and fetched anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from typing import TYPE_CHECKING

import structlog

from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.errors import DSDBError, NodeRemoved, NoLeader, OutcomeUnknown, RemovedError, Unavailable
from dsdbd.fsio import write_atomic
from dsdbd.meta.state import MetaState, decode_state, encode_state
from dsdbd.meta.store import Metadata, NotProposed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dsdbd.cluster.peers import PeerClient

log = structlog.get_logger("follower")
LONG_POLL_S = 5.0
"""How long a meta node keeps a question open; also how old this node's belief about the leader may be."""
EXECUTE_TIMEOUT_S = 5.0
"""How long a meta node tries to get a command committed before it answers."""
_GRACE_S = 2.0
CACHE_NAME = "metadata.cache"
_PAUSE_S = 0.5
_SAVE_EVERY_S = 1.0


class FollowerBackend:
    """Follows the meta nodes named in the state it holds, or those it was given at first."""

    def __init__(
        self,
        *,
        metadata: Metadata,
        peers: PeerClient,
        meta_dir: Path,
        first_nodes: tuple[str, ...],
        on_fatal: Callable[[DSDBError], None],
    ) -> None:
        self._metadata = metadata
        self._peers = peers
        self._cache = meta_dir / CACHE_NAME
        self._first_nodes = first_nodes
        self._on_fatal = on_fatal
        self._leader = ""
        self._task: asyncio.Task[None] | None = None
        self._saved_index = 0
        self.last_contact_s: float | None = None

    async def start(self) -> None:
        """Publish the kept copy, if there is one, and begin to follow."""
        with contextlib.suppress(OSError, DSDBError, ValueError):
            raw = self._cache.read_bytes()
            if zlib.crc32(raw[4:]) == int.from_bytes(raw[:4], "little"):
                state = decode_state(raw[4:])
                self._saved_index = state.index
                self._metadata.publish(state)
        self._task = asyncio.create_task(self._follow(), name="follower")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A node that stopped following by a defect must not live on with old metadata."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("following the metadata failed by a defect of dsdbd", exc_info=error)
            self._on_fatal(Unavailable(f"following the metadata failed: {error!r}; restart the daemon"))

    async def stop(self) -> None:
        """Stop following; idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def leader(self) -> str:
        """Raft address of the leader as the last answering meta node knew it."""
        return self._leader

    async def propose(self, envelope: bytes, timeout_s: float) -> bytes:
        """Send the command to the meta nodes in turn until one gets it committed; raises NotProposed."""
        reasons: list[str] = []
        outcome_unknown = False
        for address in self._nodes():
            try:
                # Longer than the meta node tries: its reason is worth more than a time-out that leaves all open.
                patience_s = max(timeout_s, EXECUTE_TIMEOUT_S) + _GRACE_S
                return await self._peers.call(address, "POST", "/execute", envelope, timeout_s=patience_s)
            except (NoLeader, OutcomeUnknown) as error:
                raise NotProposed(error.message, outcome_unknown=isinstance(error, OutcomeUnknown)) from error
            except PeerUnreachable as error:
                outcome_unknown = outcome_unknown or error.sent
                reasons.append(error.message)
            except Unavailable as error:
                reasons.append(error.message)
        raise NotProposed("; ".join(reasons) or "no meta node is known", outcome_unknown=outcome_unknown)

    async def barrier(self, timeout_s: float) -> int:
        """An index that was committed after the call began; raises NotProposed."""
        reasons: list[str] = []
        for address in self._nodes():
            try:
                return int(await self._peers.call(address, "POST", "/cluster/barrier", timeout_s=timeout_s + 1.0))
            except (DSDBError, ValueError) as error:
                reasons.append(str(error))
        raise NotProposed("; ".join(reasons) or "no meta node is known", outcome_unknown=False)

    def _nodes(self) -> list[str]:
        known = [node.tcp_addr for node in self._metadata.state.meta_nodes]
        known.sort(key=lambda address: (self._peers.lately_away(address), address != self._leader))
        return known or list(self._first_nodes)

    async def _follow(self) -> None:
        said = ""
        while True:
            for address in self._nodes():
                try:
                    await self._poll(address)
                    said = ""
                    if self._leader:
                        break
                except NodeRemoved as error:
                    self._on_fatal(RemovedError(error.message))
                    return
                except DSDBError as error:
                    self._leader = ""
                    if said != error.message:
                        said = error.message
                        log.warning("waiting for the metadata", reason=said)
            else:
                # Nobody answers, or nobody who does knows a leader: a meta node cut off from the others is not it.
                await asyncio.sleep(_PAUSE_S)

    async def _poll(self, address: str) -> None:
        """Ask one meta node for a state newer than ours; returns after an answer, with or without a new state."""
        path = f"/?index={self._metadata.state.index}"
        raw = await self._peers.call(address, "GET", path, timeout_s=LONG_POLL_S + _GRACE_S)
        leader, _, blob = raw.partition(b"\n")
        self._leader = leader.decode(errors="replace")
        self.last_contact_s = asyncio.get_running_loop().time()
        if not blob:
            return
        state = await asyncio.to_thread(decode_state, blob)
        if state.index <= self._metadata.state.index:
            return
        self._metadata.publish(state)
        await asyncio.to_thread(self._save, state)

    def _save(self, state: MetaState) -> None:
        """Keep a copy for the next start; failing to is no reason to stop following."""
        blob = encode_state(state)
        try:
            write_atomic(self._cache, zlib.crc32(blob).to_bytes(4, "little") + blob, mode=0o600)
        except OSError as error:
            log.warning("cannot keep a copy of the metadata", path=str(self._cache), reason=error.strerror)
