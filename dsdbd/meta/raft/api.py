"""What the rest of DSDB sees of the Raft room: the state machine it drives, its timings, its status, its refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

Role = Literal["leader", "follower", "candidate", "learner"]

PREAMBLE: Final = b"DSDB-RAFT/1\r\n"
"""First bytes of every Raft connection. The listener peeks at them, CONSUMES them and hands the rest of the stream
over; the protocol made by ``RaftNode.protocol_factory`` starts at the byte that follows."""


class StateMachine(Protocol):
    """The replicated state; every method is called on the Raft thread, never concurrently."""

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply the committed ``command`` at log position ``index`` and return the answer for the proposer.

        Total and deterministic: no clock, no randomness, no I/O, no exception.
        The same command may stand in the log twice; the machine tells repetitions apart by its own request ids.
        """
        ...

    def dump(self) -> bytes:
        """Return the whole state; quick, because nothing else of Raft happens meanwhile."""
        ...

    def load(self, blob: bytes) -> None:
        """Replace the whole state by one that ``dump`` made, perhaps on another node."""
        ...


@dataclass(frozen=True)
class RaftTimings:
    """Timings in seconds; all voters of a cluster use the same."""

    election_timeout_s: float = 1.0
    """Silence of the leader after which a node campaigns: between this and twice this, drawn anew each time."""
    leader_lease_s: float = 0.8
    """A leader that has not heard from a majority for so long steps down."""
    append_period_s: float = 0.1
    """Heartbeat period of the leader when nothing is written; writes never wait for it."""

    def validate(self) -> None:
        """Raise ValueError unless at most one leader can serve at a time and heartbeats outrun elections."""
        if not self.append_period_s > 0:
            raise ValueError(f"the append period must be positive, not {self.append_period_s} s")
        if not self.election_timeout_s > 3 * self.append_period_s:
            raise ValueError(
                f"the election timeout ({self.election_timeout_s} s) must be more than three append periods "
                f"({self.append_period_s} s), or one lost heartbeat would start an election"
            )
        if not self.append_period_s < self.leader_lease_s < self.election_timeout_s:
            raise ValueError(
                f"the leader lease ({self.leader_lease_s} s) must lie between the append period "
                f"({self.append_period_s} s) and the election timeout ({self.election_timeout_s} s), "
                "or two nodes could lead at a time"
            )

    @property
    def dead_after_s(self) -> float:
        """Silence after which a connection is closed and made anew."""
        return max(5.0, 2.5 * self.election_timeout_s)


@dataclass(frozen=True)
class PeerStatus:
    """Another voter, as this node sees it."""

    address: str
    connected: bool
    last_contact_s: float | None
    """Seconds since its last bytes; None when it never spoke since this node started."""
    match_index: int | None
    """Highest log index it is known to hold; None unless this node leads."""


@dataclass(frozen=True)
class RaftStatus:
    """One node's view of the cluster; neighbouring fields may be one tick apart."""

    self_address: str
    role: Role
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    voters: tuple[str, ...]
    is_voter: bool
    has_quorum: bool
    """Whether this node leads and a majority answers, or it follows a leader that speaks."""
    removed: bool
    """The cluster voted this node out, or its leader says it is not a member."""
    peers: tuple[PeerStatus, ...]
    journal_bytes: int
    fsyncs: int
    tick_lag_max_s: float
    """Longest delay of the Raft thread's timer in the last 10 to 20 seconds."""
    snapshot_index: int
    """Log index of the stored snapshot; 0 when there is none."""


class NotCommitted(Exception):
    """A command was not acknowledged.

    With ``outcome_unknown`` it may still commit later: repeat it with the same request id.
    Without, it is certain that it never will, and repeating it as a new request is safe.
    """

    def __init__(self, reason: str, *, outcome_unknown: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.outcome_unknown = outcome_unknown
