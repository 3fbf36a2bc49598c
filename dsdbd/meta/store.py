"""The node's view of the replicated metadata: the newest state it has applied, and the way to change it.

``Metadata`` is what the rest of the daemon uses. Behind it stands a backend: a Raft member (``RaftBackend``) or, on a
node without a vote, a follower of the meta nodes (``dsdbd.cluster.follower``). A node that loses its vote changes
backends without a restart.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Protocol

from dsdbd import limits
from dsdbd.errors import MetaRefused, NoLeader, OutcomeUnknown, RequestError
from dsdbd.meta.apply import apply
from dsdbd.meta.commands import Command, Envelope, Result, decode_result, encode_envelope
from dsdbd.meta.raft import NotCommitted, RaftNode
from dsdbd.meta.state import MetaState, decode_state, encode_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsdbd.clock import Clock

_ATTEMPT_TIMEOUT_S = 2.0
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5
_CATCH_UP_S = 10.0
"""How long a change that was committed is waited for here. A node without a vote may just have asked a meta node for
news that is cut off from the others, and keeps the question open for half of it."""


class NotProposed(Exception):
    """A backend could not get a command committed; ``outcome_unknown`` when it may be, all the same."""

    def __init__(self, reason: str, *, outcome_unknown: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.outcome_unknown = outcome_unknown


class Backend(Protocol):
    """What gets commands committed and states delivered."""

    async def propose(self, envelope: bytes, timeout_s: float) -> bytes:
        """The encoded result of a committed command; raises NotProposed, or DSDBError where a peer refused."""
        ...

    async def barrier(self, timeout_s: float) -> int:
        """An index that was committed after the call began; raises NotProposed."""
        ...

    def leader(self) -> str:
        """Raft address of the leader as this node knows it; empty when it knows none."""
        ...

    async def stop(self) -> None:
        """End the backend; idempotent."""
        ...


class Metadata:
    """The newest applied state, waiting for states, and proposing changes. Use it on the event loop it was made on."""

    def __init__(self, clock: Clock) -> None:
        self.state = MetaState()
        self.backend: Backend | None = None
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._listeners: list[Callable[[MetaState], None]] = []
        self._published: MetaState | None = None
        self._stopping = False

    def on_change(self, listener: Callable[[MetaState], None]) -> None:
        """Call ``listener`` on the event loop after changes; several changes may come as one."""
        self._listeners.append(listener)

    def publish(self, state: MetaState) -> None:
        """Make ``state`` the newest one; safe from any thread, and cheap when called thousands of times a second."""
        wake = self._published is None
        self._published = state
        if wake:
            self._loop.call_soon_threadsafe(self._take_published)

    def _take_published(self) -> None:
        state, self._published = self._published, None
        if state is None:
            return
        self.state = state
        for waiter, index in list(self._waiters.items()):
            if state.index >= index and not waiter.done():
                waiter.set_result(None)
        for listener in self._listeners:
            listener(state)

    async def wait_index(self, index: int, timeout_s: float) -> bool:
        """Wait until ``state.index`` is at least ``index``; False when ``timeout_s`` passed first."""
        if self.state.index >= index:
            return True
        if self._stopping:
            return False
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters[waiter] = index
        try:
            await asyncio.wait_for(waiter, timeout_s)
        except TimeoutError:
            return False
        finally:
            del self._waiters[waiter]
        return self.state.index >= index

    def stop_waiting(self) -> None:
        """Let every waiter go: the daemon ends, and its listeners wait for the requests under way."""
        self._stopping = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def leader(self) -> str:
        """Raft address of the leader as this node knows it; empty when it knows none."""
        return "" if self.backend is None else self.backend.leader()

    async def propose(self, command: Command, *, timeout_s: float = 5.0) -> Result:
        """Commit a command and return its successful result; this node's ``state`` then includes it.

        Raises MetaRefused when the state machine refuses it, NoLeader when it certainly did not happen, and
        OutcomeUnknown when it may have, or has and this node does not hear of it: who goes on then would act on
        metadata without its own change. The same request id is used for every attempt, so it is applied once.
        """
        envelope = Envelope(request_id=uuid.uuid4().hex, now_ns=self._clock.now_ns(), command=command)
        encoded = encode_envelope(envelope)
        if len(encoded) > limits.MAX_COMMAND_BYTES:
            raise RequestError(
                f"the metadata change is {len(encoded)} bytes, more than {limits.MAX_COMMAND_BYTES}; split the request"
            )
        raw = await self.propose_encoded(encoded, timeout_s=timeout_s)
        result = decode_result(raw)
        is_here = await self.wait_index(result.index, _CATCH_UP_S)
        if result.error is not None:
            raise MetaRefused(result.error.message)
        if not is_here:
            raise OutcomeUnknown(
                f"the metadata change is committed (index {result.index}), but this node has not heard of it (it has "
                f"{self.state.index}): what it does next may rest on older metadata; try again when it has caught up"
            )
        return result

    async def propose_encoded(self, envelope: bytes, *, timeout_s: float) -> bytes:
        """Commit an encoded envelope and return the encoded result, whatever it says; raises as ``propose`` does."""
        deadline_s = self._loop.time() + timeout_s
        outcome_unknown = False
        pause_s = _PAUSE_S
        reason = "this node has not joined a cluster yet"
        while True:
            remaining_s = deadline_s - self._loop.time()
            if self.backend is not None and remaining_s > 0:
                try:
                    return await self.backend.propose(envelope, min(remaining_s, _ATTEMPT_TIMEOUT_S))
                except NotProposed as error:
                    outcome_unknown = outcome_unknown or error.outcome_unknown
                    reason = error.reason
            if self._loop.time() + pause_s >= deadline_s:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        if outcome_unknown:
            raise OutcomeUnknown(f"the metadata change was not confirmed within {timeout_s:g}s: {reason}")
        raise NoLeader(f"the metadata cannot change now: {reason}")

    async def barrier(self, timeout_s: float) -> None:
        """Wait until this node's state holds every change committed before the call. Raises NoLeader."""
        if self.backend is None:
            raise NoLeader("this node has not joined a cluster yet")
        try:
            index = await self.backend.barrier(timeout_s)
        except NotProposed as error:
            raise NoLeader(f"cannot read the newest metadata: {error.reason}") from error
        if not await self.wait_index(index, timeout_s):
            raise NoLeader(f"this node did not catch up with the metadata within {timeout_s:g}s")


class MetaMachine:
    """Joins the pure state machine to Raft: applies commands on the Raft thread and publishes each new state."""

    def __init__(self, publish: Callable[[MetaState], None]) -> None:
        self._publish = publish
        self.state = MetaState()

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply one committed command; never raises for what a command holds."""
        self.state, result = apply(self.state, index, command)
        self._publish(self.state)
        return result

    def dump(self) -> bytes:
        """The whole state, for a snapshot."""
        return encode_state(self.state)

    def load(self, blob: bytes) -> None:
        """Replace the state by that of a snapshot."""
        self.state = decode_state(blob)
        self._publish(self.state)


class RaftBackend:
    """A voting member: proposes through its own Raft node."""

    def __init__(self, node: RaftNode) -> None:
        self.node = node

    async def propose(self, envelope: bytes, timeout_s: float) -> bytes:
        """The encoded result of a committed command; raises NotProposed with who is missing."""
        try:
            return await self.node.propose(envelope, timeout_s)
        except NotCommitted as error:
            raise NotProposed(self._why(error), outcome_unknown=error.outcome_unknown) from error

    async def barrier(self, timeout_s: float) -> int:
        """Return when everything committed before the call is applied here; raises NotProposed.

        The empty entry that proves it never reaches the state machine, whose index therefore need not be waited for:
        each state was published to this loop before the entry was answered.
        """
        try:
            await self.node.barrier(timeout_s)
        except NotCommitted as error:
            raise NotProposed(self._why(error), outcome_unknown=False) from error
        return 0

    def leader(self) -> str:
        """Raft address of the leader; empty when none is known."""
        return self.node.status().leader or ""

    async def stop(self) -> None:
        """Stop the Raft node."""
        await self.node.stop()

    def _why(self, error: NotCommitted) -> str:
        status = self.node.status()
        missing = [peer.address for peer in status.peers if peer.address in status.voters and not peer.connected]
        have, needed = len(status.voters) - len(missing), len(status.voters) // 2 + 1
        if have < needed:
            return (
                f"{have} of {len(status.voters)} meta nodes answer, {needed} are needed; missing: {', '.join(missing)}"
            )
        return "no leader is elected" if not status.leader else f"not committed ({error.reason.lower()})"
