"""Shard groups, shards and their owners."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dsdbd.limits import MAX_SHARD_GROUPS_PER_WRITE
from dsdbd.meta import placement
from dsdbd.meta.apply_moves import arrived, without_node
from dsdbd.meta.commands import ShardGroupsAre
from dsdbd.meta.edit import need_policy, with_database, with_policy
from dsdbd.meta.refusals import fixed, shard_not_found, shards_not_replicated, too_many_groups
from dsdbd.meta.state import Shard, ShardGroup
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dsdbd.meta.commands import (
        AddShardOwner,
        CreateShardGroups,
        DeleteShardGroup,
        DropShard,
        PruneShardGroups,
        RemoveShardOwner,
    )
    from dsdbd.meta.edit import Applied, Context
    from dsdbd.meta.state import Database, MetaState, RetentionPolicy

_start = attrgetter("start_ns")


def group_at(groups: Sequence[ShardGroup], time_ns: int) -> ShardGroup | None:
    """The group that covers a time, among disjoint groups sorted by start."""
    position = bisect_right(groups, time_ns, key=_start) - 1
    if position >= 0 and time_ns < groups[position].end_ns:
        return groups[position]
    return None


def create_shard_groups(state: MetaState, command: CreateShardGroups, _context: Context) -> Applied:
    """Cover each time with a live group."""
    database, policy = need_policy(state, command.database, command.policy)
    if any(not MIN_TIME_NS <= time_ns <= MAX_TIME_NS for time_ns in command.times_ns):
        raise fixed("time_out_of_range")
    covering: dict[int, ShardGroup] = {}
    groups: Sequence[ShardGroup] = policy.shard_groups
    fresh: list[ShardGroup] | None = None  # a copy of the groups, made once and only when one is missing
    room = len(groups) + MAX_SHARD_GROUPS_PER_WRITE
    for time_ns in sorted(set(command.times_ns)):
        group = group_at(groups, time_ns)
        if group is None:
            if fresh is None:
                groups = fresh = list(groups)
            if len(fresh) == room:
                raise too_many_groups(MAX_SHARD_GROUPS_PER_WRITE)
            group = _new_group(state, database, policy, fresh, time_ns, command.avoid)
            fresh.insert(bisect_left(fresh, group.start_ns, key=_start), group)
            state = replace(state, max_shard_group_id=group.id, max_shard_id=state.max_shard_id + len(group.shards))
        covering[group.id] = group
    if fresh is not None:
        state = with_database(state, with_policy(database, replace(policy, shard_groups=tuple(fresh))))
    return state, ShardGroupsAre(tuple(covering.values()))


def _new_group(
    state: MetaState,
    database: Database,
    policy: RetentionPolicy,
    groups: Sequence[ShardGroup],
    time_ns: int,
    avoid: Collection[int],
) -> ShardGroup:
    """A group for ``time_ns``, cut where its neighbours begin: they may have been made with another duration."""
    start_ns, end_ns = placement.shard_group_bounds(time_ns, policy.shard_group_duration_ns)
    after = bisect_right(groups, time_ns, key=_start)
    if after > 0:
        start_ns = max(start_ns, groups[after - 1].end_ns)
    if after < len(groups):
        end_ns = min(end_ns, groups[after].start_ns)
    group_id = state.max_shard_group_id + 1
    seed = placement.group_seed(database.name, policy.name, start_ns, policy.shard_group_duration_ns)
    node_ids = [node.id for node in state.data_nodes]
    draining = [node.id for node in state.data_nodes if node.draining]
    nodes = placement.eligible_nodes(node_ids, avoid, draining, policy.replica_n, seed)
    owner_lists = placement.plan_group(nodes, policy.replica_n, seed)
    if not owner_lists:
        raise fixed("no_data_nodes")
    first_id = state.max_shard_id + 1
    shards = tuple(Shard(first_id + offset, owners) for offset, owners in enumerate(owner_lists))
    return ShardGroup(group_id, start_ns, end_ns, shards)


def delete_shard_group(state: MetaState, command: DeleteShardGroup, context: Context) -> Applied:
    """Move a group from the live ones to the deleted ones."""
    database, policy = need_policy(state, command.database, command.policy)
    group = next((group for group in policy.shard_groups if group.id == command.id), None)
    if group is None:
        if any(deleted.id == command.id for deleted in policy.deleted_groups):
            return state, None
        raise fixed("shard_group_not_found")
    return _set_policy(state, database, _without_group(policy, group, context.now_ns)), None


def prune_shard_groups(state: MetaState, command: PruneShardGroups, _context: Context) -> Applied:
    """Forget groups that were deleted long enough ago."""
    for database in state.databases.values():
        changed = database
        for policy in database.policies.values():
            kept = tuple(
                group
                for group in policy.deleted_groups
                if group.deleted_at_ns is None or group.deleted_at_ns >= command.deleted_before_ns
            )
            if len(kept) != len(policy.deleted_groups):
                changed = with_policy(changed, replace(policy, deleted_groups=kept))
        if changed is not database:
            state = with_database(state, changed)
    return state, None


def drop_shard(state: MetaState, command: DropShard, context: Context) -> Applied:
    """Drop a shard's points; series are placed by position, so in a group of several a new shard takes the place."""
    found = _find_shard(state, command.id)
    if found is None:
        return state, None
    database, policy, group, shard = found
    if len(group.shards) == 1:
        return _set_policy(state, database, _without_group(policy, group, context.now_ns)), None
    fresh = Shard(state.max_shard_id + 1, _owners_after_moves(shard))
    policy = _with_shard(policy, group, shard, fresh)
    dropped = replace(group, shards=(_settled(shard),), deleted_at_ns=context.now_ns)
    policy = replace(policy, deleted_groups=(*policy.deleted_groups, dropped))
    return _set_policy(replace(state, max_shard_id=fresh.id), database, policy), None


def add_shard_owner(state: MetaState, command: AddShardOwner, _context: Context) -> Applied:
    """Put a node at the end of a shard's owners."""
    found = _find_shard(state, command.shard_id)
    if found is None:
        raise shard_not_found(command.shard_id)
    if not any(node.id == command.node_id for node in state.data_nodes):
        raise fixed("node_not_found")
    database, policy, group, shard = found
    if command.node_id in shard.owners:
        return state, None
    if any(arrival.node == command.node_id for arrival in shard.incoming):
        changed = arrived(shard, command.node_id)
    else:
        changed = replace(shard, owners=(*shard.owners, command.node_id))
    return _set_policy(state, database, _with_shard(policy, group, shard, changed)), None


def remove_shard_owner(state: MetaState, command: RemoveShardOwner, _context: Context) -> Applied:
    """Take a node off a shard's owners unless it is the last."""
    found = _find_shard(state, command.shard_id)
    if found is None:
        raise shard_not_found(command.shard_id)
    database, policy, group, shard = found
    if command.node_id not in shard.owners:
        return state, None
    changed = without_node(shard, command.node_id)
    if not changed.owners:
        raise shards_not_replicated([shard.id])
    return _set_policy(state, database, _with_shard(policy, group, shard, changed)), None


def _find_shard(state: MetaState, shard_id: int) -> tuple[Database, RetentionPolicy, ShardGroup, Shard] | None:
    for database in state.databases.values():
        for policy in database.policies.values():
            for group in policy.shard_groups:
                for shard in group.shards:
                    if shard.id == shard_id:
                        return database, policy, group, shard
    return None


def _set_policy(state: MetaState, database: Database, policy: RetentionPolicy) -> MetaState:
    return with_database(state, with_policy(database, policy))


def _without_group(policy: RetentionPolicy, group: ShardGroup, now_ns: int) -> RetentionPolicy:
    shards = tuple(_settled(shard) for shard in group.shards)
    return replace(
        policy,
        shard_groups=tuple(other for other in policy.shard_groups if other.id != group.id),
        deleted_groups=(*policy.deleted_groups, replace(group, shards=shards, deleted_at_ns=now_ns)),
    )


def _settled(shard: Shard) -> Shard:
    """A shard nobody wants any more, without the moves it had."""
    return replace(shard, incoming=()) if shard.incoming else shard


def _owners_after_moves(shard: Shard) -> tuple[int, ...]:
    """The owners once all moves are complete: there is nothing to copy of an empty shard."""
    for arrival in shard.incoming:
        shard = arrived(shard, arrival.node)
    return shard.owners


def _with_shard(policy: RetentionPolicy, group: ShardGroup, old: Shard, new: Shard) -> RetentionPolicy:
    changed = replace(group, shards=tuple(new if shard.id == old.id else shard for shard in group.shards))
    return replace(
        policy, shard_groups=tuple(changed if other.id == group.id else other for other in policy.shard_groups)
    )
