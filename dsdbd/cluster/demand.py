"""What a query wants of the owners it reads, and what it had to do without; and which owner is asked first. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dsdbd.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

_MOST_NAMED = 20


class ReadLevel(enum.Enum):
    """How many owners of a shard an answer rests on."""

    ONE = "one"
    """One owner, as it is."""
    QUORUM = "quorum"
    """One owner, after it has taken in what a quorum of the owners has."""


_LEVELS = {
    "": ReadLevel.ONE,
    "one": ReadLevel.ONE,
    "any": ReadLevel.ONE,
    "linearizable": ReadLevel.ONE,
    "quorum": ReadLevel.QUORUM,
}


def parse_read_level(text: str) -> ReadLevel:
    """The level that ``consistency`` of a query names. Raises RequestError."""
    found = _LEVELS.get(text.lower())
    if found is None:
        raise RequestError(f'invalid consistency level "{text}" of a query (use one, quorum or linearizable)')
    return found


@dataclass(slots=True)
class Demand:
    """One request's wishes, and what came of them for the statement at work."""

    level: ReadLevel = ReadLevel.ONE
    allows_partial: bool = False
    """Whether shards that nobody can read may be left out."""
    missing: dict[int, str] = field(default_factory=dict)
    """Shards that were left out, with the reason."""
    told: bool = False
    """Whether the answer has begun: what is missing was said, so that nothing more may be left out."""
    complete: dict[tuple[int, int], frozenset[str] | None] = field(default_factory=dict)
    """Measurements of which an owner has a quorum's rows of a shard, None for all, by (owner, shard id)."""

    def begin_statement(self) -> None:
        """The next statement: its shards and times are others."""
        self.missing = {}
        self.complete = {}
        self.told = False

    def may_lack(self, shard_id: int) -> bool:
        """Whether the answer may leave out this shard."""
        return self.allows_partial and (not self.told or shard_id in self.missing)

    def needed(self, owners: int) -> str:
        """What a shard of so many owners needs for this request, before the reason why it is not there."""
        if self.level is not ReadLevel.QUORUM or owners < 2:
            return ""
        return f"consistency=quorum needs {owners // 2 + 1} of its {owners} owners: "

    def lacks_completion(self, owner: int, shard_id: int, measurements: frozenset[str] | None) -> bool:
        """Whether the owner still has to take in what a quorum has, for a quorum read of these measurements."""
        if self.level is not ReadLevel.QUORUM:
            return False
        known = self.complete.get((owner, shard_id), frozenset())
        return known is not None and (measurements is None or not measurements <= known)

    def completed(self, owner: int, shard_ids: Collection[int], measurements: frozenset[str] | None) -> None:
        """The owner has what a quorum has of these shards."""
        for shard_id in shard_ids:
            known = self.complete.get((owner, shard_id), frozenset())
            whole = measurements is None or known is None
            self.complete[owner, shard_id] = None if whole else (known or frozenset()) | (measurements or frozenset())

    def message(self) -> str:
        """What the answer says of the shards that are missing; empty where none is."""
        if not self.missing:
            return ""
        named = ", ".join(map(str, sorted(self.missing)[:_MOST_NAMED]))
        more = len(self.missing) - _MOST_NAMED
        reason = next(iter(self.missing.values()))
        return (
            f"partial result: {len(self.missing)} shards could not be read: {named}"
            + (f" and {more} more" if more > 0 else "")
            + f" ({reason})"
        )


def best_owner(
    owners: Sequence[int],
    shard_id: int,
    *,
    here: int | None,
    is_clean: Callable[[int], bool],
    is_away: Callable[[int], bool],
) -> int:
    """The owner to ask first: one that is there before one that is not, then one that lacks nothing as far as is known.

    Among equals this node, ``here``, and otherwise one by the number of the shard, so that work is spread.
    """
    if len(owners) == 1:
        return owners[0]
    best: list[int] = []
    lowest = (True, True, True)
    for owner in owners:
        # What is away may lack something as well; it is asked last and nobody cares in which order.
        away = is_away(owner)
        rank = (away, away or not is_clean(owner), owner != here)
        if rank < lowest or not best:
            best, lowest = [owner], rank
        elif rank == lowest:
            best.append(owner)
    return best[shard_id % len(best)]
