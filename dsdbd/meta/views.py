"""Questions to the metadata, answered without changing or copying it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from dsdbd.errors import NotFound
from dsdbd.meta.apply_shards import group_at
from dsdbd.meta.edit import resolve_policy
from dsdbd.meta.placement import shard_group_bounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dsdbd.meta.state import (
        Database,
        DataNode,
        FieldTypes,
        MetaState,
        Privilege,
        RetentionPolicy,
        Shard,
        ShardGroup,
        User,
    )
    from dsdbd.model.types import FieldType

    FieldsAsked = dict[str, dict[str, FieldType]]

_start = attrgetter("start_ns")
_end = attrgetter("end_ns")


class ShardPlace(NamedTuple):
    """A shard with everything it belongs to."""

    database: Database
    policy: RetentionPolicy
    group: ShardGroup
    shard: Shard


def database(state: MetaState, name: str) -> Database:
    """The database of that name; raises NotFound."""
    found = state.databases.get(name)
    if found is None:
        raise NotFound(f"database not found: {name}")
    return found


def policy(state: MetaState, database_name: str, policy_name: str | None = None) -> RetentionPolicy:
    """The policy, or the default one for None or an empty name; ``default`` also finds ``autogen``. Raises NotFound."""
    owner = database(state, database_name)
    found = resolve_policy(owner, policy_name or None)
    if found is not None:
        return found
    # The default policy may have been dropped, which does not make another one the default.
    wanted = policy_name or owner.default_rp
    if wanted:
        raise NotFound(f"retention policy not found: {wanted}")
    raise NotFound(f"default retention policy not set for: {database_name}")


def group_for_time(chosen: RetentionPolicy, time_ns: int) -> ShardGroup | None:
    """The live group that covers a time, or None."""
    return group_at(chosen.shard_groups, time_ns)


def groups_overlapping(chosen: RetentionPolicy, min_ns: int, max_ns: int) -> tuple[ShardGroup, ...]:
    """The live groups with a time in ``min_ns`` <= t <= ``max_ns``, sorted by start; none when the range is empty."""
    if min_ns > max_ns:
        return ()
    groups = chosen.shard_groups
    return groups[bisect_right(groups, min_ns, key=_end) : bisect_right(groups, max_ns, key=_start)]


def missing_groups(chosen: RetentionPolicy, times_ns: Iterable[int]) -> tuple[int, ...]:
    """Times for CreateShardGroups: one for each interval of the policy in which a given time has no live group.

    An interval that neighbours of another duration cut in pieces may need asking again once its first piece exists.
    """
    missing: dict[int, int] = {}
    for time_ns in times_ns:
        if group_at(chosen.shard_groups, time_ns) is None:
            interval = shard_group_bounds(time_ns, chosen.shard_group_duration_ns)[0]
            missing[interval] = min(time_ns, missing.get(interval, time_ns))
    return tuple(sorted(missing.values()))


def all_shards(state: MetaState) -> Iterator[ShardPlace]:
    """Every live shard, database after database in order of creation, groups by start."""
    for owner in state.databases.values():
        for chosen in owner.policies.values():
            for group in chosen.shard_groups:
                for shard in group.shards:
                    yield ShardPlace(owner, chosen, group, shard)


def find_shard(state: MetaState, shard_id: int) -> ShardPlace | None:
    """The live shard of that id, or None; a walk over all shards."""
    return next((place for place in all_shards(state) if place.shard.id == shard_id), None)


def newest(state: MetaState, places: Iterable[ShardPlace]) -> Iterator[ShardPlace]:
    """The same shards as this state has them; those that were dropped are left out."""
    for place in places:
        owner = state.databases.get(place.database.name)
        chosen = None if owner is None else owner.policies.get(place.policy.name)
        if chosen is place.policy:
            yield place
        elif owner is not None and chosen is not None:
            group = group_for_time(chosen, place.group.start_ns)
            if group is not None:
                same = (shard for shard in group.shards if shard.id == place.shard.id)
                yield from (ShardPlace(owner, chosen, group, shard) for shard in same)


def shards_owned(state: MetaState, node_id: int) -> tuple[ShardPlace, ...]:
    """The live shards of which a data node is an owner."""
    return tuple(place for place in all_shards(state) if node_id in place.shard.owners)


def writers(shard: Shard) -> tuple[int, ...]:
    """The data nodes that get a shard's writes: its owners first, then those that are taking a copy."""
    if not shard.incoming:
        return shard.owners
    return (*shard.owners, *(arrival.node for arrival in shard.incoming))


def is_here(state: MetaState, shard_id: int, node_id: int) -> bool:
    """Whether a data node is an owner of a live shard or is taking a copy of it; a walk over all shards."""
    place = find_shard(state, shard_id)
    return place is not None and node_id in writers(place.shard)


def shards_incoming(state: MetaState, node_id: int) -> tuple[ShardPlace, ...]:
    """The live shards of which a data node is taking a copy."""
    return tuple(
        place
        for place in all_shards(state)
        if place.shard.incoming and any(arrival.node == node_id for arrival in place.shard.incoming)
    )


def under_replicated(state: MetaState) -> tuple[ShardPlace, ...]:
    """The live shards with fewer owners than their policy asks for and the cluster could give."""
    nodes = len(state.data_nodes)
    return tuple(place for place in all_shards(state) if len(place.shard.owners) < min(place.policy.replica_n, nodes))


def expired_groups(chosen: RetentionPolicy, now_ns: int) -> tuple[ShardGroup, ...]:
    """The live groups all of whose times are older than the policy keeps them."""
    if chosen.duration_ns == 0:
        return ()
    return chosen.shard_groups[: bisect_left(chosen.shard_groups, now_ns - chosen.duration_ns, key=_end)]


def field_types(state: MetaState, database_name: str, policy_name: str | None, measurement: str) -> FieldTypes:
    """Types of a measurement's fields (not to be changed by the caller); empty when it has none. Raises NotFound."""
    return policy(state, database_name, policy_name).schema.get(measurement) or {}


def known_types(state: MetaState, database_name: str, policy_name: str, measurement: str) -> FieldTypes:
    """As ``field_types``, but empty where the database or the policy is not there."""
    try:
        return field_types(state, database_name, policy_name, measurement)
    except NotFound:
        return {}


def unknown_fields(chosen: RetentionPolicy, fields: FieldsAsked) -> FieldsAsked:
    """The part of ``fields`` (measurement to field to type) that has no fixed type: what CreateFields must carry."""
    unknown: FieldsAsked = {}
    for measurement, asked in fields.items():
        known = chosen.schema.get(measurement) or {}
        new = {field: kind for field, kind in asked.items() if field not in known}
        if new:
            unknown[measurement] = new
    return unknown


def data_node(state: MetaState, node_id: int) -> DataNode | None:
    """The data node of that id, or None."""
    return next((node for node in state.data_nodes if node.id == node_id), None)


def user(state: MetaState, name: str) -> User:
    """The user of that name; raises NotFound."""
    found = state.users.get(name)
    if found is None:
        raise NotFound("user not found")
    return found


def has_admin(state: MetaState) -> bool:
    """Whether an administrator exists; without one only creating one is allowed."""
    return any(other.admin for other in state.users.values())


def may(state: MetaState, name: str, database_name: str, wanted: Privilege) -> bool:
    """Whether a user holds all bits of ``wanted`` on a database; administrators hold them everywhere."""
    found = state.users.get(name)
    if found is None:
        return False
    return found.admin or found.privileges.get(database_name, 0) & wanted == wanted
