"""What one node finds wrong with itself and with what it needs of others: a list of checks that failed.

A check has a name that does not change, so that programs can tell one fault from another; its sentence is for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dsdbd.meta import views
from dsdbd.meta.refusals import LISTED_SHARDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from dsdbd.cluster.node import Node
    from dsdbd.meta.state import MetaState

PASS, WARN, FAIL = "pass", "warn", "fail"
ABOUT_OTHERS = frozenset(("peers", "partition", "shards"))
"""Names of checks about other nodes; the picture of the whole cluster finds these things out by itself."""


class Check(NamedTuple):
    """One thing that is wrong; ``status`` is WARN or FAIL."""

    name: str
    status: str
    message: str


class ShardCounts(NamedTuple):
    """Live shards of a cluster, given which data nodes are down.

    ``lost``: ids of the first of those of which no owner answers, ``unavailable`` in all. ``few``, ``short``: of those
    of which some do, but fewer than the policy asks for.
    """

    groups: int
    total: int
    unavailable: int
    short: int
    lost: tuple[int, ...] = ()
    few: tuple[int, ...] = ()


def count_shards(state: MetaState, down: Collection[int]) -> ShardCounts:
    """Count the shards. Pure; a pass over all of them."""
    groups, total = set(), 0
    lost: list[int] = []
    few: list[int] = []
    most, away = len(state.data_nodes), set(down)
    for place in views.all_shards(state):
        groups.add(place.group.id)
        total += 1
        there = sum(owner not in away for owner in place.shard.owners)
        if not there:
            lost.append(place.shard.id)
        elif there < min(place.policy.replica_n, most):
            few.append(place.shard.id)
    named = (tuple(lost[:LISTED_SHARDS]), tuple(few[:LISTED_SHARDS]))
    return ShardCounts(len(groups), total, len(lost), len(few), *named)


def own_checks(node: Node) -> list[Check]:
    """What is wrong, worst first; empty when all is well."""
    found: list[Check] = []
    if not node.is_member:
        found.append(Check("membership", FAIL, f"not a member of a cluster yet: {node.progress.waiting}"))
    elif is_leaderless(node):
        found.append(Check("leader", FAIL, no_leader(node)))
    if node.storage_wait and node.is_member:
        found.append(Check("storage", WARN, node.storage_wait))
    if node.store is not None:
        log = node.store.log_problems()
        found += _warnings("disk", log)
        found += _warnings("storage", (text for text in node.store.problems() if text not in log))
    found += _about_others(node)
    if node.detector is not None:
        found += _warnings("network", node.detector.way_problems())
        found += _warnings("clock", node.detector.clock_problems())
    if node.versions is not None:
        found += _warnings("clock", node.versions.problems())
    if node.handoff is not None:
        found += _warnings("handoff", node.handoff.problems())
    if node.transfer is not None:
        found += _warnings("moves", node.transfer.problems())
    found += _warnings("refused", (f"{peer}: {reason}" for peer, reason in node.refusals.items()))
    return found


def _warnings(name: str, messages: Iterable[str]) -> list[Check]:
    return [Check(name, WARN, message) for message in messages]


def _about_others(node: Node) -> list[Check]:
    """Nodes that do not answer, and what that means for shards."""
    detector = node.detector
    silent = {} if detector is None else detector.silent()
    if detector is None or not silent:
        return []
    found = []
    others = len(detector.seen_s())
    if is_cut_off(node):
        sentence = f"this node reaches {others - len(silent)} of {others} other nodes: it is cut off, or they are down"
        found.append(Check("partition", WARN, sentence))
    found += _warnings("peers", (f"{address} is down: {reason}" for address, reason in sorted(silent.items())))
    down = detector.down()
    if down:
        counts = count_shards(node.metadata.state, down)
        found += _warnings("shards", shard_problems(counts))
    return found


def shard_problems(counts: ShardCounts) -> list[str]:
    """What the counts of shards have to say."""
    found = []
    if counts.unavailable:
        have = _have(counts.unavailable)
        found.append(f"{have} no owner that answers: {_named(counts.lost, counts.unavailable)}")
    if counts.short:
        have = _have(counts.short)
        found.append(f"{have} fewer copies that answer than they should: {_named(counts.few, counts.short)}")
    return found


def _have(count: int) -> str:
    return "1 shard has" if count == 1 else f"{count} shards have"


def _named(first: Sequence[int], count: int) -> str:
    more = f" and {count - len(first)} more" if count > len(first) else ""
    return ", ".join(str(shard_id) for shard_id in first) + more


def is_cut_off(node: Node) -> bool:
    """Whether this node and those it reaches are no majority of three or more nodes."""
    if node.detector is None:
        return False
    silent, others = len(node.detector.silent()), len(node.detector.seen_s())
    return others > 1 and 2 * (1 + others - silent) <= 1 + others


def is_leaderless(node: Node) -> bool:
    """Whether this node knows no leader of the meta nodes that a majority follows."""
    return not node.metadata.leader() or (node.raft is not None and not node.raft.status().has_quorum)


def no_leader(node: Node) -> str:
    """The sentence that says which meta nodes are missing."""
    if node.raft is None:
        return "no meta node answers; metadata cannot change, stored points are served"
    status = node.raft.status()
    missing = [peer.address for peer in status.peers if not peer.connected and peer.address in status.voters]
    have = len(status.voters) - len(missing)
    sentence = f"the meta nodes have no leader: {have} of {len(status.voters)} answer"
    return sentence + (f", missing: {', '.join(missing)}" if missing else "; an election is under way")


def why_not_ready(node: Node, purpose: str) -> str:
    """Why no requests should be sent here; empty when they should. ``purpose`` is ``write`` or ``query``."""
    if not node.is_member:
        return node.progress.waiting
    if node.storage_wait:
        return node.storage_wait
    if purpose == "write":
        if is_leaderless(node):
            return no_leader(node) if node.metadata.leader() else "no leader is elected"
        return next(iter([] if node.store is None else node.store.log_problems()), "")
    detector = node.detector
    if detector is not None and is_cut_off(node) and count_shards(node.metadata.state, detector.down()).unavailable:
        return "this node is cut off from most others, and shards have no owner that it reaches"
    return ""
