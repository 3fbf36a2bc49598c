"""Storing one batch at every owner of its shard: count the answers, and keep for the others what they missed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from dsdbd import limits
from dsdbd.cluster.acks import AckCount, Consistency, Verdict, late, lone_failure, required_acks
from dsdbd.cluster.budget import ByteBudget
from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.errors import DSDBError, NotOwner, OutcomeUnknown, RequestError, ShardUnavailable, Unavailable, VersionBehind
from dsdbd.meta import views
from dsdbd.model.columns import encode_batch

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.meta.state import MetaState, Shard
    from dsdbd.model.columns import Batch
    from dsdbd.storage import ShardKey

log = structlog.get_logger("write")
_MOST_TURNS = 3
"""Owners that a batch is offered to one after another, while the shard moves on from each."""
_REFRESH_TIMEOUT_S = 2.0


@dataclass
class WriteStats:
    """Counters of this node as a coordinator, named as SHOW STATS names them."""

    req: int = 0
    point_req: int = 0
    point_req_local: int = 0
    point_req_remote: int = 0
    write_ok: int = 0
    write_error: int = 0
    write_timeout: int = 0
    write_partial: int = 0


@dataclass
class _Copies:
    """One batch on its way to the owners of its shard.

    ``asked``: every owner it was or will be sent to. ``missed`` are those that may lack it, ``refused`` those that will
    not take it; ``missed_arriving``: nodes that are taking a copy and may lack it.

    ``renew`` gives it another version, ``turn`` counts them. ``holders`` confirmed the present one. ``compared``: those
    that have compared a version of it with the newest they had seen; what they saw after that was confirmed, if at all,
    while this write was under way, so they need not do so again. ``waited_for``: the client waits for the outcome.
    """

    key: ShardKey
    batch: Batch
    encoded: bytes
    count: AckCount
    decided: asyncio.Future[None]
    asked: set[int]
    is_new: bool
    missed: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    missed_arriving: list[int] = field(default_factory=list)
    turn: int = 0
    holders: list[int] = field(default_factory=list)
    compared: set[int] = field(default_factory=set)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    waited_for: bool = True
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def confirm(self, owner: int) -> None:
        """An owner has the batch with its present version."""
        self.holders.append(owner)
        self.count.confirm()

    def may_renew(self) -> bool:
        """Whether nobody was told anything of this write: what began later may count on its version from then on."""
        return self.waited_for and not self.decided.done()

    def renew(self, batch: Batch, encoded: bytes) -> list[int]:
        """Replace the batch by the same with a higher version; returns the owners that need it once more."""
        self.batch, self.encoded = batch, encoded
        self.turn += 1
        self.count.renew()
        again, self.holders = self.holders, []
        return again

    def decide(self) -> None:
        """Answer the client, if enough is known."""
        if self.count.verdict() is not Verdict.PENDING and not self.decided.done():
            self.decided.set_result(None)


class Owners:
    """Stores batches at the owners of shards; one per node, used on the event loop."""

    def __init__(self, node: Node, stats: WriteStats, clock: VersionClock) -> None:
        self._node = node
        self._stats = stats
        self._clock = clock
        self._background: set[asyncio.Task[None]] = set()
        self._on_their_way = ByteBudget(limits.MAX_REPLICATION_BYTES_HELD, "points on their way to other owners")
        self.opened: set[int] = set()
        """Shards of this node whose first batch was taken."""
        self._elsewhere: set[int] = set()
        self._elsewhere_of: MetaState | None = None

    async def store(
        self, key: ShardKey, shard: Shard, batch: Batch, encoded: bytes, consistency: Consistency, *, is_new: bool
    ) -> None:
        """Store one batch at every owner; returns as soon as enough of them have confirmed.

        ``is_new``: its version was given for it just now; it gets another one where an owner has seen far newer ones.
        An owner that fails while another one has the batch gets it later, from its handoff queue. Nodes that are taking
        a copy of the shard get the batch as soon as it is decided, and are not counted. Raises Unavailable or
        RequestError (nothing stored), OutcomeUnknown.
        """
        if self._node.data_id is not None and shard.owners == (self._node.data_id,) and not shard.incoming:
            try:
                await self._store_alone(key, batch, encoded)
            except NotOwner:
                # The shard moved on while the batch was on its way to the log.
                place = views.find_shard(self._node.metadata.state, key.shard_id)
                if place is None:
                    raise
                shard = place.shard
            else:
                return
        if not shard.owners:
            raise ShardUnavailable(f"shard {key.shard_id} has no owner; add a data node")
        # Who is about to leave the cluster promises nothing that is on its own disk only.
        keeps = consistency is Consistency.ANY and self._node.handoff is not None and not self._is_leaving()
        count = AckCount(len(shard.owners), required_acks(consistency, len(shard.owners)), keeps=keeps)
        writers = views.writers(shard)
        decided = asyncio.get_running_loop().create_future()
        copies = _Copies(key, batch, encoded, count, decided, set(shard.owners), is_new)
        copies.tasks += [asyncio.create_task(self._store_counted(owner, copies)) for owner in shard.owners]
        arriving = [asyncio.create_task(self._store_arriving(node, copies)) for node in writers[len(shard.owners) :]]
        self._follow(asyncio.create_task(self._keep_missed(copies, arriving)))
        timeout_s = self._node.config.cluster.write_timeout_s
        try:
            await asyncio.wait_for(asyncio.shield(copies.decided), timeout_s)
        except TimeoutError:
            # The last answer may have come while this task waited for its turn.
            if count.verdict() is Verdict.PENDING:
                raise OutcomeUnknown(late(key.shard_id, timeout_s, count.confirmed, count.required)) from None
        finally:
            copies.waited_for = False
        if count.verdict() is not Verdict.STORED:
            raise count.failure(key.shard_id)

    def _is_leaving(self) -> bool:
        own = self._node.data_id
        return any(node.draining and node.id == own for node in self._node.metadata.state.data_nodes)

    async def submit(self, key: ShardKey, batch: Batch, encoded: bytes) -> None:
        """Store in this node's own store. The first batch of a shard may read its files, so it goes by a thread.

        Raises NotOwner where this node ceased to be an owner meanwhile: what a former owner stores may be removed
        before an owner has taken it over, so that it confirms nothing.
        """
        store = self._node.store
        assert store is not None
        self._refuse_former(key.shard_id)
        if self._node.repair is not None:
            self._node.repair.gone.took(key.shard_id)
        try:
            if key.shard_id in self.opened:
                stored = store.submit(key, batch, encoded)
            else:
                stored = await asyncio.to_thread(store.submit, key, batch, encoded)
                self.opened.add(key.shard_id)
            await asyncio.wrap_future(stored)
        except Exception:
            # Other owners may have it, and nobody but the coordinator knows that this one lacks it.
            if self._node.repair is not None:
                self._node.repair.refused(key.shard_id)
            raise
        self._refuse_former(key.shard_id)

    def _refuse_former(self, shard_id: int) -> None:
        if self.is_former(shard_id):
            raise not_owner(self._node, shard_id)

    def is_former(self, shard_id: int) -> bool:
        """Whether a live shard has its places on other nodes only, by the newest metadata."""
        own, state = self._node.data_id, self._node.metadata.state
        if len(state.data_nodes) == 1 and state.data_nodes[0].id == own:
            return False
        if self._elsewhere_of is not state:
            self._elsewhere = {
                place.shard.id for place in views.all_shards(state) if own not in views.writers(place.shard)
            }
            self._elsewhere_of = state
        return shard_id in self._elsewhere

    async def finish(self) -> None:
        """Wait for owners that were still storing when their request had been answered."""
        if self._background:
            await asyncio.wait(self._background, timeout=self._node.config.cluster.write_timeout_s)

    def _follow(self, task: asyncio.Task[None]) -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _store_alone(self, key: ShardKey, batch: Batch, encoded: bytes) -> None:
        """Store at the only owner, this node; nothing has to be counted."""
        if self._node.store is None:
            raise lone_failure(Unavailable("this node's storage is still opening"), key.shard_id)
        self._stats.point_req_local += len(batch)
        timeout_s = self._node.config.cluster.write_timeout_s
        try:
            await asyncio.wait_for(self.submit(key, batch, encoded), timeout_s)
        except TimeoutError:
            raise OutcomeUnknown(late(key.shard_id, timeout_s)) from None
        except NotOwner:
            raise
        except DSDBError as error:
            raise lone_failure(error, key.shard_id) from None

    async def _store_counted(self, owner: int, copies: _Copies) -> None:
        """Store at one owner, or at the one that took its place, and count what became of it; raises nothing."""
        count = copies.count
        try:
            copies.confirm(await self._store_at_owner(owner, copies))
        except RequestError as error:
            # It would refuse the batch again and again: nothing is kept for it.
            copies.refused.append(owner)
            count.refuse(error)
        except NotOwner as error:
            # It may have stored the batch before it learned that it is no owner, and an owner may take that over.
            copies.missed.append(owner)
            count.lose(OutcomeUnknown(error.message))
        except PeerUnreachable as error:
            copies.missed.append(owner)
            if error.sent:
                count.lose(OutcomeUnknown(error.message))
            else:
                count.refuse(ShardUnavailable(error.message))
        except OutcomeUnknown as error:
            copies.missed.append(owner)
            count.lose(error)
        except DSDBError as error:
            copies.missed.append(owner)
            count.refuse(error)
        except Exception as error:
            copies.missed.append(owner)
            log.exception("storing at an owner failed by a defect of dsdbd", owner=owner, shard=copies.key.shard_id)
            count.lose(OutcomeUnknown(f"owner {owner} failed: {type(error).__name__}; its log has the details"))
        copies.decide()

    async def _store_at_owner(self, owner: int, copies: _Copies) -> int:
        """Store at an owner, or at the one that took its place meanwhile; returns which. Raises what that one answers.

        An owner knows of a move no later than the metadata it was done in, so that newer metadata name another one.
        One that refuses the version, or takes it while others refuse it, gets the batch with the next one.
        """
        moves = 0
        while True:
            turn, compares = copies.turn, copies.is_new and owner not in copies.compared
            try:
                await self._store_at(owner, copies, compares=compares)
            except VersionBehind as error:
                if not compares:
                    raise
                copies.compared.add(owner)
                await self._renew(copies, error.seen)
            except NotOwner:
                moves += 1
                successor = await self._successor(copies) if moves < _MOST_TURNS else None
                if successor is None:
                    raise
                owner = successor
            else:
                copies.compared.add(owner)
                if turn == copies.turn:
                    return owner
                copies.count.begun = True

    async def _renew(self, copies: _Copies, seen: int) -> None:
        """Have a batch that an owner refused be newer than what that one has seen, and stored so at all owners.

        Once the client has its answer the batch keeps its version: what was written after that must stay newer. Then
        enough owners have taken it, or none could confirm it. Raises Unavailable where this node may give no version.
        """
        async with copies.renewing:
            if not copies.may_renew() or copies.batch.version > seen:
                return
            self._clock.observe(seen)
            batch = replace(copies.batch, version=await self._clock.next_reserved())
            encoded = await asyncio.to_thread(encode_batch, batch)
            if copies.may_renew():
                ahead_s = (batch.version - copies.batch.version) / 1e9
                log.info("a write gets a newer version, for an owner has seen newer ones", ahead_s=ahead_s)
                again = copies.renew(batch, encoded)
                copies.tasks += [asyncio.create_task(self._store_counted(owner, copies)) for owner in again]

    async def _successor(self, copies: _Copies) -> int | None:
        """An owner in the newest metadata that the batch was not sent to yet; None where there is no other."""
        await self._node.metadata.barrier(_REFRESH_TIMEOUT_S)
        place = views.find_shard(self._node.metadata.state, copies.key.shard_id)
        if place is None:
            return None
        found = next((one for one in place.shard.owners if one not in copies.asked), None)
        if found is not None:
            copies.asked.add(found)
        return found

    async def _store_arriving(self, node_id: int, copies: _Copies) -> None:
        """Store at a node that is taking a copy, when some owner has or may have the batch; raises nothing.

        What it misses is found when it compares its copy with that of an owner.
        """
        await asyncio.wait({copies.decided})
        if not copies.count.confirmed and not copies.count.unknown and not copies.count.begun:
            return
        try:
            await self._store_at(node_id, copies, compares=False)
        except NotOwner:
            return
        except DSDBError:
            copies.missed_arriving.append(node_id)

    async def _store_at(self, owner: int, copies: _Copies, *, compares: bool) -> None:
        """``compares``: another node is to refuse a version that is far below what it has seen (VersionBehind)."""
        node = self._node
        rows = len(copies.batch) if owner not in copies.compared else 0
        if owner == node.data_id:
            if node.store is None:
                raise Unavailable("this node's storage is still opening")
            self._stats.point_req_local += rows
            await self.submit(copies.key, copies.batch, copies.encoded)
            return
        peer = views.data_node(node.metadata.state, owner)
        if peer is None:
            raise Unavailable(f"data node {owner} is not registered")
        self._stats.point_req_remote += rows
        path = f"/internal/shards/{copies.key.shard_id}?index={node.metadata.state.index}"
        with self._on_their_way.held() as hold:
            hold.grow(len(copies.encoded))
            await node.peers.call(
                peer.tcp_addr,
                "POST",
                path + "&new=1" if compares else path,
                copies.encoded,
                timeout_s=node.config.cluster.shard_writer_timeout_s,
            )
        if self._node.handoff is not None:
            self._node.handoff.wake(owner)

    async def _keep_missed(self, copies: _Copies, arriving: list[asyncio.Task[None]]) -> None:
        """When every owner has answered or failed, keep the batch for those that may lack it; then for arriving ones.

        Where no owner has it, and none may have it, nothing is kept: the client was told that nothing is stored. A
        crash before the end of this leaves owners that differ. The arriving nodes wait for the decision, which may
        wait for what is kept for the owners.
        """
        count, handoff = copies.count, self._node.handoff
        try:
            asked = 0
            while asked < len(copies.tasks):
                asked = len(copies.tasks)
                await asyncio.wait(copies.tasks)
            for owner in copies.missed:
                if await self._keep(owner, copies):
                    count.kept += 1
                copies.decide()
            if handoff is not None and count.confirmed:
                for owner in copies.refused:
                    # Such as a field whose old type is not deleted there yet: repair brings both in the right order.
                    handoff.note_lost(owner, [copies.key])
        finally:
            count.all_kept = True
            copies.decide()
        if arriving:
            await asyncio.wait(arriving)
            for node_id in copies.missed_arriving:
                await self._keep(node_id, copies)

    async def _keep(self, owner: int, copies: _Copies) -> bool:
        """Whether the batch is kept for a node that may lack it."""
        count, handoff = copies.count, self._node.handoff
        if handoff is None or not (count.confirmed or count.unknown or count.begun or count.keeps):
            return False
        try:
            await handoff.keep(owner, copies.key, copies.encoded)
        except Unavailable as error:
            log.warning("a write is not kept", owner=owner, shard=copies.key.shard_id, reason=error.message)
            return False
        return True


def not_owner(node: Node, shard_id: int) -> NotOwner:
    """What a node answers to what is meant for a shard that others own."""
    return NotOwner(
        f"data node {node.data_id} is no owner of shard {shard_id} by its metadata (index {node.metadata.state.index})"
    )
