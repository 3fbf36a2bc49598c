"""Copies of shards that are under way: ordering, completing and cancelling them.

A move is a fact in the metadata and nothing else: the receiving node finds itself in ``Shard.incoming`` and works until
it can say CompleteMove. A crash of any node leaves the fact, so the work goes on after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dsdbd.limits import MAX_MOVES_PER_COMMAND
from dsdbd.meta.edit import with_database, with_policy
from dsdbd.meta.refusals import move_impossible, move_not_found, shard_not_found, too_many_moves
from dsdbd.meta.state import Incoming, Shard

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsdbd.meta.commands import BeginMoves, CancelMoves, CompleteMove, ShardMove
    from dsdbd.meta.edit import Applied, Context
    from dsdbd.meta.state import MetaState, ShardGroup

    Change = Callable[[Shard], Shard]


def begin_moves(state: MetaState, command: BeginMoves, context: Context) -> Applied:
    """Note every receiving node at its shard, or refuse the whole command."""
    if len(command.moves) > MAX_MOVES_PER_COMMAND:
        raise too_many_moves(MAX_MOVES_PER_COMMAND)
    moves: dict[int, list[ShardMove]] = {}
    for move in command.moves:
        moves.setdefault(move.shard_id, []).append(move)
    nodes = {node.id: node.draining for node in state.data_nodes}
    found: set[int] = set()

    def begin(shard: Shard) -> Shard:
        found.add(shard.id)
        for move in moves[shard.id]:
            if reason := _obstacle(shard, move, nodes):
                raise move_impossible(shard.id, move.node_id, reason)
            shard = replace(shard, incoming=(*shard.incoming, Incoming(move.node_id, move.replaces, context.now_ns)))
        return shard

    state = change_shards(state, moves.keys().__contains__, begin)
    if missing := sorted(moves.keys() - found):
        raise shard_not_found(missing[0])
    return state, None


def complete_move(state: MetaState, command: CompleteMove, _context: Context) -> Applied:
    """Make a receiving node an owner, in the place of the one it replaces."""
    found = False

    def complete(shard: Shard) -> Shard:
        nonlocal found
        found = True
        if command.node_id in shard.owners:
            return shard
        if all(arrival.node != command.node_id for arrival in shard.incoming):
            raise move_not_found(shard.id, command.node_id)
        return arrived(shard, command.node_id)

    state = change_shards(state, command.shard_id.__eq__, complete)
    if not found:
        raise shard_not_found(command.shard_id)
    return state, None


def cancel_moves(state: MetaState, command: CancelMoves, _context: Context) -> Applied:
    """Forget the moves that match; the owners were owners all the time."""

    def matches(shard: Shard, arrival: Incoming) -> bool:
        asked = (command.node_id, command.shard_id, command.replaces)
        has = (arrival.node, shard.id, arrival.replaces)
        return all(wanted in (0, own) for wanted, own in zip(asked, has, strict=True))

    def cancel(shard: Shard) -> Shard:
        kept = tuple(arrival for arrival in shard.incoming if not matches(shard, arrival))
        return shard if len(kept) == len(shard.incoming) else replace(shard, incoming=kept)

    return change_shards(state, lambda shard_id: command.shard_id in (0, shard_id), cancel), None


def arrived(shard: Shard, node_id: int) -> Shard:
    """The shard after a receiving node's copy is complete; a replaced owner that is none any more is not missed."""
    arrival = next(arrival for arrival in shard.incoming if arrival.node == node_id)
    if arrival.replaces in shard.owners:
        owners = tuple(node_id if owner == arrival.replaces else owner for owner in shard.owners)
    else:
        owners = (*shard.owners, node_id)
    return Shard(shard.id, owners, tuple(other for other in shard.incoming if other is not arrival))


def without_node(shard: Shard, node_id: int) -> Shard:
    """The shard without a data node as owner, receiver or replaced one; a copy that was to replace it is then added."""
    if node_id not in shard.owners and all(node_id not in (a.node, a.replaces) for a in shard.incoming):
        return shard
    return Shard(
        shard.id,
        tuple(owner for owner in shard.owners if owner != node_id),
        tuple(
            replace(arrival, replaces=0) if arrival.replaces == node_id else arrival
            for arrival in shard.incoming
            if arrival.node != node_id
        ),
    )


def change_shards(state: MetaState, wanted: Callable[[int], bool], change: Change) -> MetaState:
    """The state with ``change`` of every live shard whose id is wanted; what does not change is shared."""
    for database in state.databases.values():
        changed = database
        for policy in database.policies.values():
            groups: list[ShardGroup] | None = None  # copied when the first group changes
            for position, group in enumerate(policy.shard_groups):
                new = _change_group(group, wanted, change)
                if new is not group:
                    if groups is None:
                        groups = list(policy.shard_groups)
                    groups[position] = new
            if groups is not None:
                changed = with_policy(changed, replace(policy, shard_groups=tuple(groups)))
        if changed is not database:
            state = with_database(state, changed)
    return state


def _change_group(group: ShardGroup, wanted: Callable[[int], bool], change: Change) -> ShardGroup:
    for shard in group.shards:
        if wanted(shard.id):
            break
    else:
        return group
    shards = tuple(change(shard) if wanted(shard.id) else shard for shard in group.shards)
    if all(new is old for new, old in zip(shards, group.shards, strict=True)):
        return group
    return replace(group, shards=shards)


def _obstacle(shard: Shard, move: ShardMove, draining: dict[int, bool]) -> str:
    """Why a move cannot begin; empty when it can."""
    if move.node_id not in draining:
        return "there is no such data node"
    if draining[move.node_id]:
        return "the node is draining"
    if move.node_id in shard.owners:
        return "the node is an owner of it already"
    if any(arrival.node == move.node_id for arrival in shard.incoming):
        return "the node is taking a copy already"
    if move.replaces and move.replaces not in shard.owners:
        return f"node {move.replaces}, which it should replace, is no owner of it"
    if move.replaces and any(arrival.replaces == move.replaces for arrival in shard.incoming):
        return f"node {move.replaces} is being replaced by another one already"
    return ""
