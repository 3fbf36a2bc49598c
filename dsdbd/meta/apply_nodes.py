"""Registering, moving and removing nodes. Meta and data registrations draw their numbers from one counter."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dsdbd.limits import MAX_TOMBSTONES
from dsdbd.meta import placement
from dsdbd.meta.apply_moves import arrived, cancel_moves, without_node
from dsdbd.meta.commands import CancelMoves, ClusterIs, NodeIs, ShardsOrphaned
from dsdbd.meta.edit import with_database, with_policy
from dsdbd.meta.refusals import Refusal, fixed, shards_not_replicated
from dsdbd.meta.state import DataNode, MetaNode, Role, Tombstone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dsdbd.meta.commands import (
        CreateDataNode,
        CreateMetaNode,
        DropDataNode,
        DropMetaNode,
        InitCluster,
        SetDraining,
        UpdateDataNode,
        UpdateMetaNode,
    )
    from dsdbd.meta.edit import Applied, Context
    from dsdbd.meta.state import MetaState, RetentionPolicy, Shard, ShardGroup

    AnyCreate = CreateMetaNode | CreateDataNode
    AnyUpdate = UpdateMetaNode | UpdateDataNode


def init_cluster(state: MetaState, command: InitCluster, _context: Context) -> Applied:
    """Fix the cluster id once."""
    if state.cluster_id and state.cluster_id != command.cluster_id:
        raise Refusal(
            "foreign_cluster",
            f"this cluster has id {state.cluster_id}, the request is for cluster {command.cluster_id}",
        )
    return replace(state, cluster_id=command.cluster_id), ClusterIs(command.cluster_id)


def create_meta_node(state: MetaState, command: CreateMetaNode, _context: Context) -> Applied:
    """Register a meta node; a known uuid keeps its number."""
    return _create(state, Role.META, command)


def create_data_node(state: MetaState, command: CreateDataNode, _context: Context) -> Applied:
    """Register a data node; a known uuid keeps its number."""
    return _create(state, Role.DATA, command)


def update_meta_node(state: MetaState, command: UpdateMetaNode, _context: Context) -> Applied:
    """Change a meta node's addresses."""
    return _update(state, Role.META, command)


def update_data_node(state: MetaState, command: UpdateDataNode, _context: Context) -> Applied:
    """Change a data node's addresses."""
    return _update(state, Role.DATA, command)


def drop_meta_node(state: MetaState, command: DropMetaNode, context: Context) -> Applied:
    """Remove a meta node unless it is the last."""
    node = next((node for node in state.meta_nodes if node.id == command.id), None)
    if node is None:
        raise fixed("node_not_found")
    if len(state.meta_nodes) == 1:
        raise fixed("final_node")
    left = tuple(other for other in state.meta_nodes if other.id != node.id)
    return _bury(replace(state, meta_nodes=left), node, Role.META, command.reason, context), None


def drop_data_node(state: MetaState, command: DropDataNode, context: Context) -> Applied:
    """Remove a data node and take it off every owner list."""
    node = next((node for node in state.data_nodes if node.id == command.id), None)
    if node is None:
        raise fixed("node_not_found")
    left = tuple(other for other in state.data_nodes if other.id != node.id)
    if not left and not command.force:
        raise fixed("final_node")
    dropped = _NodeDrop(node.id, tuple(other.id for other in left), command.orphan_owners, context.now_ns)
    for database in state.databases.values():
        changed = database
        for policy in database.policies.values():
            if (without := dropped.from_policy(policy)) is not policy:
                changed = with_policy(changed, without)
        if changed is not database:
            state = with_database(state, changed)
    if dropped.orphans and not command.force:
        raise shards_not_replicated([shard_id for shard_id, _ in dropped.orphans])
    state = _bury(replace(state, data_nodes=left), node, Role.DATA, command.reason, context)
    return state, ShardsOrphaned(tuple(dropped.orphans))


def set_draining(state: MetaState, command: SetDraining, context: Context) -> Applied:
    """Mark a data node as giving its shards away, or no longer; moves in the other direction are cancelled with it."""
    if not any(node.id == command.node_id for node in state.data_nodes):
        raise fixed("node_not_found")
    if command.draining and all(node.draining or node.id == command.node_id for node in state.data_nodes):
        raise fixed("last_taking_node")
    nodes = tuple(
        replace(node, draining=command.draining) if node.id == command.node_id else node for node in state.data_nodes
    )
    contrary = CancelMoves(node_id=command.node_id) if command.draining else CancelMoves(replaces=command.node_id)
    return cancel_moves(replace(state, data_nodes=nodes), contrary, context)


class _NodeDrop:
    """Takes one node off the owner lists, policy by policy, and notes the shards that lost their last copy."""

    def __init__(self, node_id: int, left: Sequence[int], preferred: Mapping[int, int], now_ns: int) -> None:
        self.orphans: list[tuple[int, int | None]] = []
        self._node_id = node_id
        self._left = left
        self._preferred = preferred
        self._now_ns = now_ns

    def from_policy(self, policy: RetentionPolicy) -> RetentionPolicy:
        groups = [self._from_group(group) for group in policy.shard_groups]
        if all(new is old for new, old in zip(groups, policy.shard_groups, strict=True)):
            return policy
        return replace(
            policy,
            shard_groups=tuple(group for group in groups if group.deleted_at_ns is None),
            deleted_groups=(
                *policy.deleted_groups,
                *(group for group in groups if group.deleted_at_ns is not None),
            ),
        )

    def _from_group(self, group: ShardGroup) -> ShardGroup:
        shards = [without_node(shard, self._node_id) for shard in group.shards]
        if all(new is old for new, old in zip(shards, group.shards, strict=True)):
            return group
        for position, shard in enumerate(shards):
            if not shard.owners:
                shards[position] = self._inherited(shard, [other.owners for other in shards])
        if not self._left:
            # Nobody holds the points and nobody can take new ones: a group made later serves the interval again.
            return replace(group, shards=tuple(shards), deleted_at_ns=self._now_ns)
        return replace(group, shards=tuple(shards))

    def _inherited(self, shard: Shard, owner_lists: list[tuple[int, ...]]) -> Shard:
        """A shard without owners, given to a node that was taking a copy, because it has a part, or else to any."""
        preferred = self._preferred.get(shard.id) or next((arrival.node for arrival in shard.incoming), None)
        chosen = placement.heir(owner_lists, self._left, preferred)
        self.orphans.append((shard.id, chosen))
        if chosen is None:
            return shard
        if any(arrival.node == chosen for arrival in shard.incoming):
            return arrived(shard, chosen)
        return replace(shard, owners=(chosen,))


def _create(state: MetaState, role: Role, command: AnyCreate) -> Applied:
    if any(node.uuid == command.uuid for node in _nodes(state, role)):
        return _move(state, role, command)
    _refuse_removed(state, role, command.uuid)
    _refuse_taken_address(state, command)
    number = state.max_node_id + 1
    state = replace(state, max_node_id=number)
    addresses = command.uuid, command.http_addr, command.tcp_addr
    if role is Role.META:
        state = replace(state, meta_nodes=(*state.meta_nodes, MetaNode(number, *addresses)))
    else:
        state = replace(state, data_nodes=(*state.data_nodes, DataNode(number, *addresses)))
    return state, NodeIs(number)


def _update(state: MetaState, role: Role, command: AnyUpdate) -> Applied:
    if not any(node.uuid == command.uuid for node in _nodes(state, role)):
        _refuse_removed(state, role, command.uuid)
        raise fixed("node_not_found")
    return _move(state, role, command)


def _move(state: MetaState, role: Role, command: AnyCreate | AnyUpdate) -> Applied:
    _refuse_taken_address(state, command)
    changes = {"http_addr": command.http_addr, "tcp_addr": command.tcp_addr}
    number = next(node.id for node in _nodes(state, role) if node.uuid == command.uuid)
    if role is Role.META:
        meta = tuple(replace(node, **changes) if node.id == number else node for node in state.meta_nodes)
        return replace(state, meta_nodes=meta), NodeIs(number)
    data = tuple(replace(node, **changes) if node.id == number else node for node in state.data_nodes)
    return replace(state, data_nodes=data), NodeIs(number)


def _nodes(state: MetaState, role: Role) -> tuple[MetaNode, ...] | tuple[DataNode, ...]:
    return state.meta_nodes if role is Role.META else state.data_nodes


def _refuse_removed(state: MetaState, role: Role, uuid: str) -> None:
    for stone in state.tombstones:
        if stone.uuid == uuid and stone.role is role:
            when = datetime.fromtimestamp(stone.removed_at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            # The identity is one for both roles: while the other one is a member, its directory must not be emptied.
            other = Role.DATA if role is Role.META else Role.META
            held = [f"run DROP {other.name} SERVER {node.id}, " for node in _nodes(state, other) if node.uuid == uuid]
            raise Refusal(
                "node_removed",
                f"{role.value} node {stone.id} ({stone.tcp_addr}) was removed from the cluster at {when}: "
                f"{''.join(held)}empty its metadata and data directories, then join again as a new node",
            )


def _refuse_taken_address(state: MetaState, command: AnyCreate | AnyUpdate) -> None:
    """An address serves one process: under another identity it is a wiped disk or a mistake in the configuration."""
    wanted = (command.http_addr, command.tcp_addr)
    taken: list[str] = []
    remedies: list[str] = []
    for role in Role:
        for node in _nodes(state, role):
            both = [address for address in wanted if address in (node.http_addr, node.tcp_addr)]
            if node.uuid != command.uuid and both:
                taken.append(f"{role.value} node {node.id} has address {both[0]}")
                remedies.append(f"DROP {role.name} SERVER {node.id}")
    if taken:
        raise Refusal(
            "node_exists",
            f"node already exists: {', '.join(taken)} under another identity; if its disk was wiped, run "
            f"{' and '.join(remedies)}, then join again",
        )


def _bury(state: MetaState, node: MetaNode | DataNode, role: Role, reason: str, context: Context) -> MetaState:
    stone = Tombstone(node.id, node.uuid, role, node.http_addr, node.tcp_addr, context.now_ns, reason)
    return replace(state, tombstones=(*state.tombstones, stone)[-MAX_TOMBSTONES:])
