"""What a node that takes copies decides: from whom, how fast, when to try again, and how it tells. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from dsdbd.meta.state import Shard

WAITING, COPYING, COMPARING, DONE, FAILED = "waiting", "copying", "comparing", "done", "failed"
CANCELLED = "cancelled"
_BURST_S = 0.1


@dataclass(slots=True)
class MoveProgress:
    """How far this node is with one copy; ``replaces`` is 0 where a copy is added."""

    shard_id: int
    database: str
    policy: str
    to_node: int
    replaces: int
    from_node: int = 0
    state: str = WAITING
    done_bytes: int = 0
    total_bytes: int = 0
    started_ns: int = 0
    ended_ns: int = 0
    error: str = ""
    phases_s: dict[str, float] = field(default_factory=dict)
    """What took how long: ``waiting`` for others, ``listing``, ``files``, ``comparing``, ``completing``."""
    _phase: str = WAITING
    _phase_s: float = 0.0

    def enter(self, phase: str, now_s: float) -> None:
        """The phase before ends now."""
        if self._phase_s:
            self.phases_s[self._phase] = self.phases_s.get(self._phase, 0.0) + now_s - self._phase_s
        self._phase, self._phase_s = phase, now_s

    def as_row(self) -> dict[str, Any]:
        """The same as plain values, for JSON and for tables."""
        return {
            "shard": self.shard_id,
            "database": self.database,
            "retention_policy": self.policy,
            "from": self.from_node or None,
            "to": self.to_node,
            "replaces": self.replaces or None,
            "state": self.state,
            "bytes": self.done_bytes,
            "total_bytes": self.total_bytes,
            "started_ns": self.started_ns or None,
            "ended_ns": self.ended_ns or None,
            "error": self.error,
        }


def copy_sources(shard: Shard, down: Collection[int]) -> list[int]:
    """The owners to copy from, best first: those that are up, in turns, so that not all copies come from one."""
    turn = shard.id % max(1, len(shard.owners))
    turned = [*shard.owners[turn:], *shard.owners[:turn]]
    return sorted(turned, key=lambda owner: owner in down)


def may_complete(shard: Shard, replaces: int, compared: Collection[int], down: Collection[int]) -> bool:
    """Whether a copy that holds all that the owners ``compared`` hold may count as one of the shard's copies.

    Each owner that is up, because a point that a majority acknowledged may be on two of three owners only, and one of
    these may be the one that is replaced. And ``owners_needed`` at least, whoever is up in this node's view.

    What of a point that comes while they are compared? Compared is all that an owner held when it was asked, whatever
    its version (``whole_pull``), so points that a coordinator wrote before it knew of the move are among it. What is
    written later reaches the copy by itself: a coordinator that knows of the move sends the point here as well, and
    keeps it for this node where that fails. One that knows nothing of it yet, or whose point came between the question
    and the change of owners, wrote to owners that stay, which this node goes on comparing with, and to the one that
    leaves, whose files stay until an owner has taken all of them (``absorb``).
    """
    if len({*compared} & {*shard.owners}) < owners_needed(shard):
        return False
    must = {owner for owner in shard.owners if owner not in down}
    if replaces in shard.owners and replaces not in down:
        must.add(replaces)
    return must <= set(compared)


def may_answer(
    shard: Shard, replaces: int, compared: Collection[int], away: Collection[int], left: Collection[int], *, late: bool
) -> bool:
    """Whether a new owner that has looked at the owners ``compared`` of before holds all that they confirmed.

    ``away``: owners that do not answer, ``left``: those of them that are no members any more, so that nothing of theirs
    ever comes. ``late``: it has waited long for one that fails. What that one alone confirmed it then goes without, but
    not without what a majority did: of those it shares at least one with ``owners_needed``.
    """
    if may_complete(shard, replaces, compared, away) or {*shard.owners} - {*left} <= {*compared}:
        return True
    return late and len({*compared} & {*shard.owners}) >= owners_needed(shard)


def owners_needed(shard: Shard) -> int:
    """How many owners share at least one with every majority: compared with fewer, a copy may lack acknowledged points.

    A quorum read that counted such a copy would be short, silently.
    """
    copies = len(shard.owners)
    return max(1, copies - copies // 2)


def too_few_compared(shard: Shard, compared: Collection[int], down: Collection[int]) -> str:
    """Why a copy does not count yet, for who waits for it."""
    had = len({*compared} & {*shard.owners})
    away = ", ".join(str(owner) for owner in sorted(shard.owners) if owner in down and owner not in compared)
    return (
        f"shard {shard.id} was compared with {had} of its {len(shard.owners)} owners, {owners_needed(shard)} are needed"
        + (f"; data nodes that do not answer: {away}; start them, or remove them from the cluster" if away else "")
    )


def next_pause_s(failures: int, first_s: float, longest_s: float) -> float:
    """How long to wait after this many failures in a row: it doubles."""
    return min(longest_s, first_s * 2.0 ** min(max(failures, 1) - 1, 30))


class Rate:
    """Keeps bytes within a rate, bursts of a tenth of a second aside. Time is an argument."""

    def __init__(self, bytes_per_s: int) -> None:
        """0: no limit."""
        self._bytes_per_s = bytes_per_s
        self._free_s = 0.0

    def wait_s(self, size_bytes: int, now_s: float) -> float:
        """How long to wait after ``size_bytes`` that came now."""
        if not self._bytes_per_s:
            return 0.0
        self._free_s = max(self._free_s, now_s - _BURST_S) + size_bytes / self._bytes_per_s
        return max(0.0, self._free_s - now_s)
