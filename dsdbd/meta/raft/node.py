"""One Raft node: its own thread and event loop around the core, and coroutines for every other loop."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from dsdbd import limits
from dsdbd.errors import BodyTooLarge, CorruptData, DSDBError, MetaRefused
from dsdbd.meta.raft.api import NotCommitted, PeerStatus, RaftStatus, RaftTimings, StateMachine
from dsdbd.meta.raft.connection import Connections
from dsdbd.meta.raft.core import RaftCore
from dsdbd.meta.raft.dialing import DialLoop
from dsdbd.meta.raft.faults import DISK_FULL, ApplyFailed, storage_error
from dsdbd.meta.raft.handshake import Identity, derive_key
from dsdbd.meta.raft.journal import Journal
from dsdbd.meta.raft.library import FAIL_REASON, TCPNode, fail_reason_name, monotonic_s
from dsdbd.meta.raft.loopthread import DirectoryLock, LoopThread, RefusalLimiter
from dsdbd.meta.raft.membership import Change, check_address
from dsdbd.meta.raft.peers import PeerTransport
from dsdbd.meta.raft.ticker import Ticker
from dsdbd.meta.raft.waiting import Answers, AppliedWaiters

_T = TypeVar("_T")

CAUGHT_UP_ENTRIES: Final = 16
"""A learner this close to the leader's log may vote: it cannot hold up commits for long."""
_POLL_S: Final = 0.02
_CERTAIN: Final = frozenset(
    (
        FAIL_REASON.QUEUE_FULL,
        FAIL_REASON.MISSING_LEADER,
        FAIL_REASON.NOT_LEADER,
        FAIL_REASON.REQUEST_DENIED,
        FAIL_REASON.DISCARDED,
        DISK_FULL,
    )
)
"""Failures after which a command certainly never commits."""


class RaftNode:
    """A voter or learner of one cluster.

    ``bootstrap`` names the voters at the very first start: this node alone founds a cluster, the voters of a cluster
    without this node join it as a learner. Later starts take what is on disk. The state machine and the callbacks run
    on the Raft thread; every coroutine may be awaited on any loop of any thread.

    ``on_fatal`` is called once, when the node stopped by itself and the daemon should stop with the given error.
    ``on_refused(peer, sentence)`` tells the operator about a peer of another cluster, secret, address or membership;
    the same sentence at most once a minute.
    """

    def __init__(
        self,
        *,
        self_address: str,
        data_dir: Path,
        bootstrap: Sequence[str],
        machine: StateMachine,
        secret: bytes,
        cluster_id: str,
        timings: RaftTimings | None = None,
        on_fatal: Callable[[DSDBError], None],
        on_change: Callable[[RaftStatus], None] | None = None,
        on_refused: Callable[[str, str], None] | None = None,
    ) -> None:
        self.timings = timings or RaftTimings()
        self.timings.validate()
        for address in (self_address, *bootstrap):
            check_address(address)
        if not bootstrap:
            raise ValueError("bootstrap names no voter; give this node's own address to found a cluster")
        self.self_address = self_address
        self._data_dir = data_dir
        self._bootstrap = tuple(bootstrap)
        self._machine = machine
        self._identity_parts = (secret, cluster_id)
        self._on_fatal = on_fatal
        self._on_change = on_change
        self._on_refused = on_refused
        self._refusals = RefusalLimiter()
        self._lock = DirectoryLock(data_dir / "raft.lock")
        self._thread = LoopThread("raft")
        self._transport = PeerTransport(self_address)
        self._waiters = AppliedWaiters()
        self._answers = Answers()
        self._pending: dict[object, Callable[[Any, int], None]] = {}
        self._published: object = None
        self._running = False
        self._core: Any = None
        self._connections: Connections
        self._dialing: DialLoop
        self._ticker: Ticker

    # --- life

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The Raft thread's loop; valid from ``start`` to ``stop``."""
        return self._thread.loop

    def protocol_factory(self) -> asyncio.Protocol:
        """Make the protocol of an accepted Raft stream, on ``loop``; the listener has consumed ``PREAMBLE``."""
        return self._connections.accept()

    async def start(self) -> None:
        """Load what is on disk and apply it, then let peers in.

        Raises StorageCorrupt or StorageFull when journal or snapshot cannot be used, IdentityError when another process
        uses the directory.
        """
        self._lock.acquire()
        try:
            await self._thread.start()
            await self._on_raft_thread(self._load)
        except BaseException:
            await self._thread.stop()
            self._lock.release()
            raise

    def _load(self) -> None:
        secret, cluster_id = self._identity_parts
        try:
            journal = Journal(self._data_dir / "raft.journal", first_members=self._first_members())
            try:
                self._core = RaftCore(
                    self.self_address,
                    self._data_dir,
                    self._machine,
                    self._transport,
                    journal=journal,
                    timings=self.timings,
                    has_room=self._has_room,
                )
                self._core.doTick(0)
            except BaseException:
                journal.abandon()
                raise
        except Exception as error:
            fatal = self._core.fatal if self._core is not None else None
            if fatal is None and not isinstance(error, OSError | CorruptData):
                raise
            raise fatal or storage_error("Raft cannot start", error) from None
        identity = Identity(self.self_address, cluster_id, derive_key(secret, cluster_id))
        self._connections = Connections(identity, self._transport, self._report_refusal)
        self._dialing = DialLoop(self._connections, self.timings.dead_after_s)
        self._ticker = Ticker(self._core, self._after_tick, self._fail)
        self._transport.on_activity = self._ticker.kick
        self._transport.on_wanted = self._dialing.start
        self._transport.on_not_a_member = self._report_not_a_member
        self._transport.open_for_messages = True
        self._running = True
        self._ticker.start()
        self._dialing.start()

    def _first_members(self) -> tuple[str, ...]:
        """Voters of a new journal; a snapshot without its journal means that votes were forgotten."""
        snapshot = self._data_dir / "raft.snap"
        if snapshot.exists() and not (self._data_dir / "raft.journal").exists():
            raise CorruptData(f"{snapshot} is there but the Raft journal beside it is gone")
        return self._bootstrap

    async def stop(self) -> None:
        """Close links, files and thread; idempotent. Waiting callers get NotCommitted."""
        if not self._thread.running:
            return
        await self._on_raft_thread_async(self._shut_down)
        await self._thread.stop()
        self._lock.release()

    async def _shut_down(self) -> None:
        if self._core is None:
            return
        self._running = False
        self._ticker.stop()
        await self._dialing.stop()
        self._connections.close_all()
        self._fail_pending()
        self._core.store.wait()
        self._close_journal()

    def _close_journal(self) -> None:
        try:
            self._core.journal.close()
        except OSError as error:
            # Nothing is promised any more: what was acknowledged had been synced before.
            self._core.storage_failed(error)

    def _fail(self) -> None:
        """End service after a fatal fault; the daemon decides what follows."""
        self._running = False
        self._transport.open_for_messages = False
        self._connections.close_all()
        self._fail_pending()
        self._on_fatal(self._core.fatal)

    def _has_room(self) -> bool:
        try:
            return shutil.disk_usage(self._data_dir).free >= limits.MIN_RAFT_FREE_BYTES
        except OSError:
            return False

    # --- crossing threads

    async def _on_raft_thread(self, function: Callable[[], _T]) -> _T:
        async def call() -> _T:
            return function()

        return await self._on_raft_thread_async(call)

    async def _on_raft_thread_async(self, function: Callable[[], Awaitable[_T]]) -> _T:
        async def call() -> _T:
            return await function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._thread.loop))

    async def _commit(self, submit: Callable[[Callable[[Any, int], None]], None], timeout_s: float) -> Any:
        """Run ``submit`` on the Raft thread and wait for its callback; raises NotCommitted."""
        if not self._running:
            raise NotCommitted("STOPPED", outcome_unknown=False)
        here = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Any, int]] = here.create_future()
        key = object()

        def callback(result: Any, reason: int) -> None:
            if self._pending.pop(key, None) is not None:
                self._answers.put(here, answer, (result, reason))

        def go() -> None:
            self._pending[key] = callback
            if not self._running or len(self._pending) > limits.MAX_RAFT_PROPOSALS:
                callback(None, FAIL_REASON.QUEUE_FULL)
                self._answers.flush()
                return
            submit(callback)
            self._ticker.kick()

        def give_up() -> None:
            if self._pending.pop(key, None) is not None:
                self._core.forget(callback)

        self._thread.call_soon(go)
        try:
            async with asyncio.timeout(timeout_s):
                result, reason = await answer
        except TimeoutError:
            raise NotCommitted("TIMEOUT", outcome_unknown=True) from None
        finally:
            if not answer.done() or answer.cancelled():
                self._thread.call_soon(give_up)
        if reason != FAIL_REASON.SUCCESS:
            name = "DISK_FULL" if reason == DISK_FULL else fail_reason_name(reason)
            raise NotCommitted(name, outcome_unknown=reason not in _CERTAIN)
        return result

    def _fail_pending(self) -> None:
        for callback in list(self._pending.values()):
            callback(None, FAIL_REASON.UNKNOWN_OUTCOME)
        self._answers.flush()
        self._waiters.fail()

    # --- commands

    async def propose(self, command: bytes, timeout_s: float) -> bytes:
        """Commit ``command``, here or through the leader, and return the state machine's answer.

        When it returns, this node's own state machine has applied the command. Raises NotCommitted, BodyTooLarge,
        ValueError for the empty command, or MetaRefused when the state machine raised.
        """
        if not command:
            raise ValueError("the empty command is the barrier's")
        if len(command) > limits.MAX_COMMAND_BYTES:
            raise BodyTooLarge(
                f"a metadata command of {len(command)} bytes is over the limit of {limits.MAX_COMMAND_BYTES}; divide it"
            )
        answer = await self._commit(lambda done: self._core.submit(command, done), timeout_s)
        if isinstance(answer, ApplyFailed):
            raise MetaRefused(f"the metadata refused the command at index {answer.index}: {answer.error}")
        return bytes(answer)

    async def barrier(self, timeout_s: float) -> int:
        """Commit an empty entry, which the state machine never sees, and return its log index.

        Whatever was acknowledged anywhere before the call is applied here when it returns. Raises NotCommitted.
        """
        answer = await self._commit(lambda done: self._core.submit(b"", done), timeout_s)
        return int.from_bytes(answer, "little")

    async def wait_applied(self, index: int, timeout_s: float) -> None:
        """Wait until this node has applied log ``index``; raises NotCommitted, TIMEOUT or STOPPED."""
        if self._core is not None and self._core.raftLastApplied >= index:
            return
        if not self._running:
            raise NotCommitted("STOPPED", outcome_unknown=True)
        here = asyncio.get_running_loop()
        future: asyncio.Future[bool] = here.create_future()
        self._thread.call_soon(lambda: self._waiters.add(index, here, future, self._core.raftLastApplied))
        try:
            async with asyncio.timeout(timeout_s):
                applied = await future
        except TimeoutError:
            raise NotCommitted("TIMEOUT", outcome_unknown=True) from None
        finally:
            if not future.done() or future.cancelled():
                self._thread.call_soon(lambda: self._waiters.discard(future))
        if not applied:
            raise NotCommitted("STOPPED", outcome_unknown=True)

    # --- members

    async def add_voter(self, address: str, timeout_s: float) -> None:
        """Give ``address`` a vote, once it is connected and caught up; only the leader can. Idempotent.

        Raises NotCommitted; its reason is LEARNER_BEHIND when the learner was not there in time.
        """
        check_address(address)
        deadline_s = monotonic_s() + timeout_s
        while address not in self._core.voters:
            self._require_leader()
            lag = self.learner_lag(address)
            if lag is not None and lag <= CAUGHT_UP_ENTRIES:
                await self._change(Change("add", address), deadline_s - monotonic_s())
                return
            if monotonic_s() >= deadline_s:
                raise NotCommitted("LEARNER_BEHIND", outcome_unknown=False)
            await asyncio.sleep(_POLL_S)

    async def remove_voter(self, address: str, timeout_s: float) -> None:
        """Take the vote from ``address``; only the leader can, and not from itself (transfer first). Idempotent.

        Raises NotCommitted.
        """
        check_address(address)
        if address in self._core.voters:
            self._require_leader()
            if address == self.self_address:
                raise NotCommitted("TRANSFER_FIRST", outcome_unknown=False)
            await self._change(Change("rem", address), timeout_s)

    async def _change(self, change: Change, timeout_s: float) -> None:
        await self._commit(lambda done: self._core.change_members(change, done), max(timeout_s, 0.0))

    def _require_leader(self) -> None:
        if not self._running or not self._core.is_leader:
            raise NotCommitted("NOT_LEADER", outcome_unknown=False)

    async def transfer_leadership(self, timeout_s: float) -> None:
        """Hand the lead to the voter with the longest log and wait until another node leads.

        Raises NotCommitted when this node does not lead, or still leads after ``timeout_s``.
        """
        self._require_leader()
        deadline_s = monotonic_s() + timeout_s
        next_try_s = 0.0
        while self._core.is_leader or self._core.leader in (None, self.self_address):
            now_s = monotonic_s()
            if now_s >= deadline_s:
                raise NotCommitted("TIMEOUT", outcome_unknown=True)
            if self._core.is_leader and now_s >= next_try_s:
                # Refused while the best follower is still behind by the newest entry.
                self._thread.call_soon(lambda: self._core.transferLeadership(None, None))
                next_try_s = now_s + self.timings.append_period_s
            await asyncio.sleep(_POLL_S)

    def learner_lag(self, address: str) -> int | None:
        """Entries the learner ``address`` is behind; None when it is not connected here or this node does not lead."""
        core, learner = self._core, self._transport.learners.get(address)
        if core is None or learner is None:
            return None
        held = core.match_index(learner)
        return None if held is None else max(0, core.journal.last.log_index - held)

    # --- what is seen from outside

    def status(self) -> RaftStatus:
        """Return this node's view; it reads fields that the Raft thread replaces whole, and never waits for it."""
        core = self._core
        if core is None:
            raise RuntimeError("the Raft node has not been started")
        leads, now_s = core.is_leader, monotonic_s()
        peers = tuple(self._peer_status(voter, now_s) for voter in core.voters if voter != self.self_address)
        return RaftStatus(
            self_address=self.self_address,
            role=core.role,
            leader=self.self_address if leads else core.leader,
            term=core.raftCurrentTerm,
            commit_index=core.raftCommitIndex,
            applied_index=core.raftLastApplied,
            last_index=core.journal.last.log_index,
            voters=core.voters,
            is_voter=core.is_voter,
            has_quorum=self._running and core.has_quorum,
            removed=core.removed,
            peers=peers,
            journal_bytes=core.journal.size_bytes,
            fsyncs=core.journal.fsyncs,
            tick_lag_max_s=self._ticker.lag_max_s,
            snapshot_index=core.store.index,
        )

    def _peer_status(self, address: str, now_s: float) -> PeerStatus:
        node = TCPNode(address)
        contact_s = self._transport.last_contact_s.get(address)
        return PeerStatus(
            address=address,
            connected=node in self._transport.links,
            last_contact_s=None if contact_s is None else max(0.0, now_s - contact_s),
            match_index=self._core.match_index(node),
        )

    def _after_tick(self) -> None:
        core = self._core
        self._answers.flush()
        self._waiters.applied(core.raftLastApplied)
        if self._on_change is None:
            return
        view = core.role, core.leader, core.raftCurrentTerm, core.voters, core.removed, core.has_quorum
        if view != self._published:
            self._published = view
            self._on_change(self.status())

    def _report_refusal(self, peer: str, sentence: str) -> None:
        if self._on_refused is not None and self._refusals.allow((peer, sentence), monotonic_s()):
            self._on_refused(peer, sentence)

    def _report_not_a_member(self, peer: str) -> None:
        cluster_id = self._identity_parts[1]
        self._report_refusal(
            peer,
            f"{peer} leads cluster {cluster_id!r} and says that this node ({self.self_address}) is not a member of it; "
            "empty its directory and join again, or switch it off",
        )
