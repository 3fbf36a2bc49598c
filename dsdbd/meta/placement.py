"""Where points go: the time span of a shard group, the number of its shards and the nodes that own them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * HOUR_NS
MIN_SHARD_GROUP_DURATION_NS = HOUR_NS
"""A shorter shard duration is raised to this, as in InfluxDB 1.x."""

_YEAR_ONE_TO_EPOCH_NS = 719_162 * DAY_NS  # 0001-01-01 to 1970-01-01, both 00:00 UTC
_FIRST_START_NS = -(2**63)
_LAST_END_NS = 2**63 - 1


def default_shard_group_duration(duration_ns: int) -> int:
    """Shard group duration of a policy that states none: 7 days, 1 day or 1 hour, in ns (0 = infinite policy)."""
    if duration_ns == 0 or duration_ns >= 180 * DAY_NS:
        return 7 * DAY_NS
    return DAY_NS if duration_ns >= 2 * DAY_NS else HOUR_NS


def normal_shard_group_duration(asked_ns: int, duration_ns: int) -> int:
    """The shard group duration that is stored when ``asked_ns`` is asked for (0: choose it from ``duration_ns``)."""
    if asked_ns == 0:
        return default_shard_group_duration(duration_ns)
    return max(asked_ns, MIN_SHARD_GROUP_DURATION_NS)


def shard_group_bounds(time_ns: int, group_duration_ns: int) -> tuple[int, int]:
    """Start and end (exclusive) of the group that holds ``time_ns``.

    Multiples of the duration are counted from 0001-01-01 UTC, so groups of 7 days start on Mondays. Both bounds are
    clamped to 64 bits, which shortens the first and the last group of the time axis.
    """
    start = time_ns - (time_ns + _YEAR_ONE_TO_EPOCH_NS) % group_duration_ns
    return max(start, _FIRST_START_NS), min(start + group_duration_ns, _LAST_END_NS)


def eligible_nodes(node_ids: Sequence[int], avoid: Collection[int], replica_n: int) -> tuple[int, ...]:
    """The nodes without those to avoid, or all of them where too few would be left for ``replica_n`` copies."""
    left = tuple(node_id for node_id in node_ids if node_id not in avoid)
    return left if len(left) >= min(replica_n, len(node_ids)) else tuple(node_ids)


def plan_group(node_ids: Sequence[int], replica_n: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Owners of each shard of a new group; empty when there are no nodes.

    ``replica_n`` is clamped to the number of nodes. The number of shards is the smallest that gives every node the
    same number of copies (3 nodes, 2 copies: 3 shards). ``seed`` rotates the nodes, so that the first owners of
    consecutive groups differ.
    """
    nodes = len(node_ids)
    if nodes == 0:
        return ()
    copies = max(1, min(replica_n, nodes))
    shards = nodes // math.gcd(nodes, copies)
    return tuple(
        tuple(node_ids[(seed + shard * copies + copy) % nodes] for copy in range(copies)) for shard in range(shards)
    )


def heir(owner_lists: Sequence[Sequence[int]], node_ids: Sequence[int], preferred: int | None) -> int | None:
    """Node for a shard without owners: ``preferred`` if it exists, else the one with the fewest shards of the group."""
    if preferred in node_ids:
        return preferred
    if not node_ids:
        return None
    counts = dict.fromkeys(node_ids, 0)
    for owners in owner_lists:
        for owner in owners:
            if owner in counts:
                counts[owner] += 1
    return min(node_ids, key=lambda node_id: (counts[node_id], node_id))
