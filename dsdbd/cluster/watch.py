"""What a member does by itself while it runs: drop the files of shards it has no more, and notice its own removal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from dsdbd.cluster.absorb import given_away
from dsdbd.cluster.follower import FollowerBackend
from dsdbd.cluster.formation import hello
from dsdbd.cluster.membership import removed_reason
from dsdbd.cluster.shard_places import key_of
from dsdbd.cluster.transfer_plan import next_pause_s
from dsdbd.errors import DSDBError, ForeignCluster, NodeRemoved, NoLeader, RemovedError
from dsdbd.fsio import remove_tree
from dsdbd.meta import views
from dsdbd.meta.identity import save_identity
from dsdbd.storage import ShardKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dsdbd.cluster.node import Node
    from dsdbd.meta.state import MetaState
    from dsdbd.storage import Store
    from dsdbd.storage.shard import Shard

log = structlog.get_logger("node")
_LOOK_S = 1.0
_LATE_LOOK_S = 10.0
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.3, 4.0
_SETTLE_S = 0.3
_BARRIER_TIMEOUT_S = 5.0
_LEADERLESS_S = 2.0


def live_shards(state: MetaState) -> frozenset[ShardKey]:
    """Every shard the metadata holds."""
    return frozenset(key_of(place) for place in views.all_shards(state))


class _LiveNow:
    """Whether a shard is in the newest metadata, not in that of some moment ago: shards are created meanwhile."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._of: MetaState | None = None
        self._live: frozenset[ShardKey] = frozenset()

    def __call__(self, key: ShardKey) -> bool:
        state = self._node.metadata.state
        if self._of is not state:
            self._of, self._live = state, live_shards(state)
        return key in self._live


class ShardReaper:
    """Removes the files of shards that the metadata does not hold any more, and of those that moved to other nodes.

    A node that just started may hold metadata older than its shards, so nothing is removed before a barrier has shown
    that this node's metadata is as new as any committed when it began. What moved away goes only after an owner has
    confirmed that it holds all of it. A crash half-way leaves the rest for later.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._changed = asyncio.Event()
        self._waiting = 0
        self._late_looks = 0
        self._moved: dict[int, int] = {}
        """Shards that moved away, and the index of the metadata by which this node found it."""
        node.metadata.on_change(lambda _: self._changed.set())

    async def run(self) -> None:
        """Look after every change of the metadata; runs until cancelled."""
        while True:
            await self._next_look()
            try:
                await self._reap()
                await self._give_away()
            except NoLeader:
                await self._again(_LOOK_S)
            except (DSDBError, OSError) as error:
                # The files stay, nothing is lost; the next look may succeed.
                log.error("cannot remove the files of dropped shards", reason=str(error))
                await self._again(_LOOK_S)

    async def _next_look(self) -> None:
        """Wait for a change; for a while after shards were given away also without one.

        A write of this node that was on its way to its own store when it ceased to be an owner makes the shard anew.
        """
        try:
            async with asyncio.timeout(_LATE_LOOK_S if self._late_looks else None):
                await self._changed.wait()
        except TimeoutError:
            self._late_looks -= 1
        await asyncio.sleep(_SETTLE_S)
        self._changed.clear()

    async def _again(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        self._changed.set()

    async def _reap(self) -> None:
        store = self._node.store
        if store is None:
            return
        live = live_shards(self._node.metadata.state)
        if all(shard.key in live for shard in store.shards()):
            return
        await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)

        removed = await asyncio.to_thread(store.retain, _LiveNow(self._node))
        if removed:
            log.info("files of dropped shards removed", shards=removed)

    async def _give_away(self) -> None:
        """Remove the shards that moved away, as soon as an owner holds all that is in them."""
        store = self._node.store
        if store is None or not self._moved_away(store):
            self._waiting = 0
            return
        await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
        removed, moved = 0, dict(self._moved_away(store))
        for shard_id, index in moved.items():
            shard = store.shard(shard_id)
            if shard is None:
                continue
            changes = shard.changes
            if await given_away(self._node, shard_id, index, changes):
                # By the newest metadata once more: it may have come back while it was confirmed.
                gone = await asyncio.to_thread(store.retain, self._is_not_moved(shard, changes))
                removed += gone
                if gone:
                    self._moved.pop(shard_id, None)
        if removed:
            self._waiting, self._late_looks = 0, 3
            log.info("files of shards that moved to other nodes removed", shards=removed)
        if removed < len(moved):
            self._waiting += 1
            await self._again(next_pause_s(self._waiting, _FIRST_LOOK_S, _LONGEST_LOOK_S))

    def _moved_away(self, store: Store) -> dict[int, int]:
        """Shards of which this node holds something and, by its metadata, is neither owner nor taking a copy."""
        node, state = self._node, self._node.metadata.state
        held = {shard.shard_id for shard in store.shards()} if node.data_id is not None else set()
        self._moved = {
            place.shard.id: self._moved.get(place.shard.id, state.index)
            for place in views.all_shards(state)
            if place.shard.id in held and node.data_id not in views.writers(place.shard)
        }
        return self._moved

    def _is_not_moved(self, shard: Shard, changes: int) -> Callable[[ShardKey], bool]:
        """What stays: every other shard, and this one where something came since ``changes``, or it came back."""

        def stays(key: ShardKey) -> bool:
            if key.shard_id != shard.shard_id or shard.changes != changes:
                return True
            place = views.find_shard(self._node.metadata.state, shard.shard_id)
            return place is not None and self._node.data_id in views.writers(place.shard)

        return stays


class RemovalWatch:
    """Notices that this node, or one of its roles, was removed; also when that happened while it was away."""

    def __init__(self, node: Node, *, meta_dir: Path, on_vote_lost: Callable[[], None]) -> None:
        self._node = node
        self._meta_dir = meta_dir
        self._on_vote_lost = on_vote_lost
        self._leaderless_since_s: float | None = None

    async def run(self) -> None:
        """Look every second; runs until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._node.is_member:
                continue
            if not await self._judge(self._node.metadata.state):
                return
            await self._ask_around()

    async def _judge(self, state: MetaState) -> bool:
        """Act on what a state says of this node; False when the daemon is ending."""
        node = self._node
        assert node.identity is not None
        if state.cluster_id != node.cluster_id:
            return True
        reason = removed_reason(state, node.uuid)
        if reason:
            node.fail(RemovedError(reason))
            return False
        if any(tombstone.id == node.identity.meta_id for tombstone in state.tombstones):
            await self._lose_vote(tuple(meta.tcp_addr for meta in state.meta_nodes))
        if any(tombstone.id == node.identity.data_id for tombstone in state.tombstones):
            await self._lose_shards()
        return True

    async def _lose_shards(self) -> None:
        """Go on as a meta node: what the shards held is on other owners, or was given up by FORCE; the files stay."""
        node = self._node
        assert node.identity is not None
        log.warning("this node owns no shards any more and goes on as a meta node", data_id=node.identity.data_id)
        node.identity = msgspec.structs.replace(node.identity, data_id=None)
        await asyncio.to_thread(save_identity, self._meta_dir, node.identity)

    async def _ask_around(self) -> None:
        """A node that was removed while it was away never hears of it through Raft, so it asks the other members."""
        node = self._node
        now_s = asyncio.get_running_loop().time()
        cut_off = not node.metadata.leader() or (node.raft is not None and node.raft.status().removed)
        if not cut_off:
            self._leaderless_since_s = None
            return
        self._leaderless_since_s = self._leaderless_since_s or now_s
        if now_s - self._leaderless_since_s < _LEADERLESS_S:
            return
        assert node.identity is not None
        known = [meta.tcp_addr for meta in node.metadata.state.meta_nodes] + list(node.identity.voters)
        for address in dict.fromkeys(known):
            if address != node.addresses.tcp and await self._ask(address):
                return

    async def _ask(self, address: str) -> bool:
        """Whether one member's answer settled the matter."""
        node = self._node
        assert node.identity is not None
        try:
            answer = await hello(node.peers, address, cluster_id=node.cluster_id)
        except NodeRemoved as error:
            node.fail(RemovedError(error.message))
            return True
        except ForeignCluster as error:
            node.refusals[address] = error.message
            return False
        except DSDBError:
            return False
        if answer.cluster_id and answer.cluster_id != node.cluster_id:
            node.refusals[address] = (
                f"belongs to cluster {answer.cluster_id}, this node to {node.cluster_id}; it was probably wiped and "
                "started without -join. Stop it, drop it here, empty its directories and start it with -join"
            )
            return False
        node.refusals.pop(address, None)
        if answer.removed:
            node.fail(RemovedError(answer.removed))
            return True
        newer = answer.ready and answer.applied_index > node.metadata.state.index
        if newer and node.raft is not None and all(meta.uuid != node.uuid for meta in answer.meta_nodes):
            await self._lose_vote(tuple(meta.tcp_addr for meta in answer.meta_nodes))
            return True
        return False

    async def _lose_vote(self, meta_nodes: tuple[str, ...]) -> None:
        """Go on as a data node: stop Raft, forget the role, follow the meta nodes.

        The identity is stored before the Raft directory goes, so a crash between leaves a directory nobody reads.
        """
        node = self._node
        assert node.identity is not None
        if node.raft is None:
            return
        log.warning("this node lost its vote and goes on as a data node", meta_id=node.identity.meta_id)
        raft, node.raft = node.raft, None
        node.identity = msgspec.structs.replace(node.identity, meta_id=None, voters=meta_nodes)
        await asyncio.to_thread(save_identity, self._meta_dir, node.identity)
        self._on_vote_lost()
        await raft.stop()
        try:
            await asyncio.to_thread(remove_tree, self._meta_dir / "raft")
        except OSError as error:
            log.warning("cannot remove the Raft data of a former meta node; nobody reads it", reason=error.strerror)
        follower = FollowerBackend(
            metadata=node.metadata,
            peers=node.peers,
            meta_dir=self._meta_dir,
            first_nodes=meta_nodes,
            on_fatal=node.fail,
        )
        node.metadata.backend = follower
        await follower.start()
