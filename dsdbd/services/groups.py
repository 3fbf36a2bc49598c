"""Which shard groups a cluster should delete, forget or create now: functions of the metadata and the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd.meta import views
from dsdbd.meta.commands import CreateShardGroups, DeleteShardGroup, PruneShardGroups
from dsdbd.model.times import MAX_TIME_NS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.meta.state import MetaState, ShardGroup

REMEMBER_DELETED_NS = 14 * 24 * 3600 * 10**9
"""How long the metadata remembers a deleted group, as in InfluxDB 1.x."""


def expired(state: MetaState, now_ns: int) -> Iterator[tuple[ShardGroup, DeleteShardGroup]]:
    """Every live group all of whose times are older than its policy keeps them, with the command that deletes it."""
    for database in state.databases.values():
        for policy in database.policies.values():
            for group in views.expired_groups(policy, now_ns):
                yield group, DeleteShardGroup(database.name, policy.name, group.id)


def forgettable(state: MetaState, now_ns: int) -> PruneShardGroups | None:
    """The command that forgets groups deleted long ago; None while there is none."""
    before_ns = now_ns - REMEMBER_DELETED_NS
    for database in state.databases.values():
        for policy in database.policies.values():
            for group in policy.deleted_groups:
                if group.deleted_at_ns is not None and group.deleted_at_ns < before_ns:
                    return PruneShardGroups(before_ns)
    return None


def successors(
    state: MetaState, now_ns: int, advance_ns: int, avoid: tuple[int, ...] = ()
) -> Iterator[CreateShardGroups]:
    """A command for every policy in use whose newest group ends after ``now_ns`` but within ``advance_ns`` of it.

    In use is a policy with a group that covers ``now_ns``: one into which only old points were loaded gets nothing.
    ``avoid``: data nodes that are down.
    """
    for database in state.databases.values():
        for policy in database.policies.values():
            if views.group_for_time(policy, now_ns) is None:
                continue
            end_ns = policy.shard_groups[-1].end_ns
            if end_ns <= min(now_ns + advance_ns, MAX_TIME_NS):
                yield CreateShardGroups(database.name, policy.name, (end_ns,), avoid)
