"""What a cluster should do now about the number of copies of its shards: functions of the metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd.limits import RESTORES_PER_NODE
from dsdbd.meta import views
from dsdbd.meta.commands import RaiseReplication
from dsdbd.meta.state import INTERNAL_DATABASE

if TYPE_CHECKING:
    from collections.abc import Collection

    from dsdbd.meta.state import MetaState


def raise_due(state: MetaState, cap: int) -> RaiseReplication | None:
    """The command that lets automatic numbers of copies follow the data nodes; None while none is behind.

    ``cap`` bounds the number, 0 does not.
    """
    copies = min(len(state.data_nodes), cap) if cap else len(state.data_nodes)
    behind = any(
        policy.replica_auto and policy.replica_n < copies
        for database in state.databases.values()
        if database.name != INTERNAL_DATABASE
        for policy in database.policies.values()
    )
    return RaiseReplication(cap) if behind else None


def dead_receivers(state: MetaState, gone: Collection[int]) -> list[int]:
    """Those of ``gone`` that are to take copies; the copies must be taken by others."""
    if not gone:
        return []
    receivers = {arrival.node for place in views.all_shards(state) for arrival in place.shard.incoming}
    return sorted(receivers & {*gone})


def copies_missing(state: MetaState, gone: Collection[int]) -> bool:
    """Whether a plan to restore copies may find something to do, with the nodes ``gone`` given up.

    A shard that lacks a copy, or has one on a node that leaves, counts where a node is there that can take a copy, or
    a draining owner may give its up because enough others are there. So a cluster in which nothing can be done rests.
    """
    draining = {node.id for node in state.data_nodes if node.draining}
    leaving = {*gone} | draining
    taking = {node.id for node in state.data_nodes} - leaving
    for place in views.all_shards(state):
        shard = place.shard
        bad: list[int] = []
        good = len(shard.owners)
        if leaving or shard.incoming:
            replaced = {arrival.replaces for arrival in shard.incoming}
            staying = [owner for owner in shard.owners if owner not in replaced]
            bad = [owner for owner in staying if owner in leaving]
            good = len(staying) - len(bad) + sum(1 for arrival in shard.incoming if arrival.node not in leaving)
        if good >= place.policy.replica_n:
            if any(owner in draining for owner in bad):
                return True
        elif not taking.issubset(views.writers(shard)):
            return True
    return False


def room_for_moves(state: MetaState, down: Collection[int]) -> int:
    """How many more copies may be ordered, so that orders can be changed when the cluster does."""
    taking = sum(1 for node in state.data_nodes if not node.draining and node.id not in down)
    under_way = sum(len(place.shard.incoming) for place in views.all_shards(state))
    return max(0, taking * RESTORES_PER_NODE - under_way)
