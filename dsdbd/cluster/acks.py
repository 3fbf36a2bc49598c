"""How many owners must confirm a write, and what their answers amount to: pure counting."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from dsdbd.errors import DSDBError, MembershipRefused, OutcomeUnknown, RequestError, ShardUnavailable, Unavailable


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
    """Confirmations needed out of ``owners``; at ``any`` a write kept for an owner is one, too."""
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
    """Counts the owners' answers for one shard.

    ``keeps``: a write that is kept durably for an owner counts as well, and the verdict waits until ``all_kept``.
    """

    owners: int
    required: int
    keeps: bool = False
    kept: int = 0
    all_kept: bool = False
    confirmed: int = 0
    refused: int = 0
    unknown: int = 0
    reasons: list[DSDBError] = field(default_factory=list)
    begun: bool = False
    """An owner has the points, but not with the version they have now."""

    def renew(self) -> None:
        """The points get another version: an owner that confirmed has to do so again."""
        self.begun = self.begun or self.confirmed > 0
        self.confirmed = 0

    def confirm(self) -> None:
        """One owner has the points on stable storage."""
        self.confirmed += 1

    def refuse(self, reason: DSDBError) -> None:
        """One owner certainly stored nothing."""
        self.refused += 1
        self.reasons.append(reason)

    def lose(self, reason: DSDBError) -> None:
        """One owner's answer is missing; it may have stored the points."""
        self.unknown += 1
        self.reasons.append(reason)

    def verdict(self) -> Verdict:
        """The outcome as far as it is certain now."""
        if self.confirmed + (self.kept if self.keeps else 0) >= self.required:
            return Verdict.STORED
        if self.confirmed + self.refused + self.unknown < self.owners or (self.keeps and not self.all_kept):
            return Verdict.PENDING
        return Verdict.REFUSED if self.refused == self.owners and not self.begun else Verdict.UNKNOWN

    def failure(self, shard_id: int) -> DSDBError:
        """What the client is told when the verdict is REFUSED or UNKNOWN.

        Owners that refuse for the same reason pass on its class: DiskFull stays DiskFull.
        """
        why = "; ".join(dict.fromkeys(reason.message for reason in self.reasons))
        if self.verdict() is not Verdict.REFUSED:
            return OutcomeUnknown(
                f"partial write: {self.confirmed} of {self.required} owners of shard {shard_id} confirmed: {why}"
            )
        first = type(self.reasons[0])
        same = all(type(reason) is first for reason in self.reasons)
        if same and issubclass(first, RequestError):
            return first(f"write failed: {why}")
        kind = first if same and first.http_status == ShardUnavailable.http_status else ShardUnavailable
        return kind(f"write failed: no owner of shard {shard_id} stored the points: {why}")


def outcome_of(error: BaseException) -> DSDBError:
    """What a client is told of a write that failed: never retry (4xx), nothing stored (503), or unknown (504).

    A defect of this program says nothing of the points, so that it is the last. A node that may not take part in the
    cluster has stored nothing, and others may.
    """
    if isinstance(error, MembershipRefused):
        return Unavailable(error.message)
    if isinstance(error, DSDBError) and error.http_status != DSDBError.http_status:
        return error
    reason = error.message if isinstance(error, DSDBError) else "internal error; the daemon's log has the details"
    return OutcomeUnknown(f"{reason}; the points may be stored, writing them again is harmless")


def late(shard_id: int, timeout_s: float, confirmed: int = 0, required: int = 1) -> str:
    """What a client is told when the owners have not answered in time."""
    return (
        f"timeout: {confirmed} of {required} owners of shard {shard_id} confirmed within {timeout_s:g}s; the points "
        "may be stored, writing them again is harmless"
    )


def lone_failure(error: BaseException, shard_id: int) -> BaseException:
    """The error of a shard's only owner, in the words that a shard with several owners has for it."""
    if not isinstance(error, DSDBError):
        return error
    count = AckCount(owners=1, required=1)
    if isinstance(error, OutcomeUnknown):
        count.lose(error)
    else:
        count.refuse(error)
    return count.failure(shard_id)
