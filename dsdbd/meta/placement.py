"""Where points go: the time span of a shard group, the number of its shards and the nodes that own them."""

from __future__ import annotations

import hashlib
import math
import zlib
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


def group_seed(database: str, policy: str, start_ns: int, group_duration_ns: int) -> int:
    """What turns the nodes of a new group: consecutive intervals of a policy give consecutive numbers.

    The names are in it because policies of equal durations would otherwise begin every interval at the same node.
    """
    return start_ns // group_duration_ns + zlib.crc32(f"{database}/{policy}".encode())


def eligible_nodes(
    node_ids: Sequence[int], avoid: Collection[int], draining: Collection[int], replica_n: int, seed: int
) -> tuple[int, ...]:
    """The nodes a new group is put on: those that are there to stay, and others only where copies would be missing.

    Draining nodes come before those to avoid, because they take writes; ``seed`` chooses among them in turn.
    """
    stay = tuple(node_id for node_id in node_ids if node_id not in avoid and node_id not in draining)
    missing = min(replica_n, len(node_ids)) - len(stay)
    if missing <= 0:
        return stay
    leaving = _turned(tuple(node_id for node_id in node_ids if node_id in draining and node_id not in avoid), seed)
    away = _turned(tuple(node_id for node_id in node_ids if node_id in avoid), seed)
    return (*stay, *(*leaving, *away)[:missing])


def plan_group(node_ids: Sequence[int], replica_n: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Owners of each shard of a new group; empty when there are no nodes.

    ``replica_n`` is clamped to the number of nodes. The number of shards is the smallest that gives every node the
    same number of copies (3 nodes, 2 copies: 3 shards), ``nodes / gcd(nodes, copies)``. Consecutive seeds turn the
    nodes until each was as often a first owner as any other, which takes ``gcd(nodes, copies)`` groups; then they are
    dealt anew, so that a node shares its shards with ever other nodes and its failure is borne by all.
    """
    nodes = len(node_ids)
    if nodes == 0:
        return ()
    copies = max(1, min(replica_n, nodes))
    turns = math.gcd(nodes, copies)
    deal, turn = divmod(seed, turns)
    dealt = sorted(node_ids, key=lambda node_id: _drawn(deal, node_id))
    return tuple(
        tuple(dealt[(turn + shard * copies + copy) % nodes] for copy in range(copies))
        for shard in range(nodes // turns)
    )


def _drawn(deal: int, node_id: int) -> bytes:
    """A number drawn for a node, the same on every machine: all of them must come to the same owners."""
    return hashlib.blake2b(f"{deal} {node_id}".encode(), digest_size=8).digest()


def _turned(nodes: tuple[int, ...], seed: int) -> tuple[int, ...]:
    turn = seed % len(nodes) if nodes else 0
    return nodes[turn:] + nodes[:turn]


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
