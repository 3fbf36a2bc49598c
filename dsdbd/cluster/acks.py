"""How many owners must confirm a write, and what their answers amount to: pure counting."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from dsdbd.errors import RequestError


class Consistency(enum.Enum):
    """Owners that must have the points on stable storage before a write is acknowledged."""

    ANY = "any"
    ONE = "one"
    QUORUM = "quorum"
    ALL = "all"


def parse_consistency(text: str) -> Consistency:
    """The level of a request; the empty text means ``one``. Raises RequestError as InfluxDB 1.x words it."""
    if not text:
        return Consistency.ONE
    try:
        return Consistency(text.lower())
    except ValueError:
        raise RequestError("invalid consistency level") from None


def required_acks(level: Consistency, owners: int) -> int:
    """Confirmations needed out of ``owners``; ``any`` counts as ``one`` because no queue can confirm for an owner."""
    match level:
        case Consistency.QUORUM:
            return owners // 2 + 1
        case Consistency.ALL:
            return owners
        case _:
            return 1


class Verdict(enum.Enum):
    """What the answers of a shard's owners amount to."""

    PENDING = "pending"
    STORED = "stored"
    REFUSED = "refused"
    """No owner stored anything; repeating the request is safe and needed."""
    UNKNOWN = "unknown"
    """Fewer than required confirmed, but some did or may have."""


@dataclass
class AckCount:
    """Counts the owners' answers for one shard."""

    owners: int
    required: int
    confirmed: int = 0
    refused: int = 0
    unknown: int = 0
    reasons: list[str] = field(default_factory=list)

    def confirm(self) -> None:
        """One owner has the points on stable storage."""
        self.confirmed += 1

    def refuse(self, reason: str) -> None:
        """One owner certainly stored nothing."""
        self.refused += 1
        self.reasons.append(reason)

    def lose(self, reason: str) -> None:
        """One owner's answer is missing; it may have stored the points."""
        self.unknown += 1
        self.reasons.append(reason)

    def verdict(self) -> Verdict:
        """The outcome as far as it is certain now."""
        if self.confirmed >= self.required:
            return Verdict.STORED
        if self.confirmed + self.refused + self.unknown < self.owners:
            return Verdict.PENDING
        return Verdict.REFUSED if self.refused == self.owners else Verdict.UNKNOWN
