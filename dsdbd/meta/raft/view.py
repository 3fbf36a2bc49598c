"""What a core says about itself: role, voters, quorum. Read from any thread, changed on the Raft thread only."""

from __future__ import annotations

from typing import Any, Final

from dsdbd.errors import DSDBError
from dsdbd.meta.raft import library
from dsdbd.meta.raft.api import RaftTimings, Role
from dsdbd.meta.raft.journal import Journal
from dsdbd.meta.raft.library import LEADER, Node, TCPNode, monotonic_s
from dsdbd.meta.raft.membership import Change, members_before, parse_change

LONG_AGO_S: Final = -1e9


class CoreView(library.SyncObj):  # type: ignore[misc]  # the library is untyped
    """The readable half of RaftCore."""

    _SyncObj__raftLeader: Any
    _SyncObj__raftElectionDeadline: float
    _SyncObj__raftCommitIndex: int
    _SyncObj__newAppendEntriesTime: float
    self_address: str
    timings: RaftTimings
    journal: Journal
    fatal: DSDBError | None
    is_voter: bool
    voters: tuple[str, ...]
    _others: tuple[Node, ...]
    _told_removed: bool
    _removal_index: int | None
    _leader_contact_s: float
    _started_s: float

    @property
    def is_leader(self) -> bool:
        """Whether this node believes that it leads."""
        return bool(self._SyncObj__raftState == LEADER)

    @property
    def role(self) -> Role:
        """The node's role."""
        if not self.is_voter:
            return "learner"
        return ("follower", "candidate", "leader")[self._SyncObj__raftState]

    @property
    def leader(self) -> str | None:
        """Address of the leader, as far as this node knows."""
        node = self._SyncObj__raftLeader
        return None if node is None else str(node.id)

    @property
    def removed(self) -> bool:
        """The cluster's committed configuration lacks this node although it once had it."""
        if self.is_voter:
            return self._told_removed
        return self._told_removed or (self._removal_index is not None and self._removal_index <= self.raftCommitIndex)

    @property
    def has_quorum(self) -> bool:
        """Whether this node leads and a majority answers, or follows a leader that speaks."""
        if self.is_leader:
            return self._majority_answers(self.timings.election_timeout_s)
        return self._SyncObj__raftLeader is not None and self._leader_alive()

    def vote_is_certain(self) -> bool:
        """Whether this node votes, and no uncommitted entry is what gave it its vote."""
        own = Change("add", self.self_address)
        return self.is_voter and not any(
            parse_change(e.command) == own for e in self.journal.after(self.raftCommitIndex)
        )

    def is_lonely(self) -> bool:
        """Whether no leader has spoken for so long that those who should dial this node may not know it."""
        since_s = max(self._leader_contact_s, self._started_s)
        return not self.is_leader and monotonic_s() - since_s > self.timings.dead_after_s

    def match_index(self, node: Node) -> int | None:
        """Highest log index that ``node`` is known to hold; None unless this node leads."""
        return self._SyncObj__raftMatchIndex.get(node) if self.is_leader else None

    def progress(self, node: Node) -> tuple[object, ...]:
        """Return what changes when a message of ``node`` gives the next tick something to do."""
        commit_index = self._SyncObj__raftCommitIndex
        # Whoever holds no more than what is committed anyway can commit nothing.
        held = max(self._SyncObj__raftMatchIndex.get(node, 0), commit_index)
        return self.journal.last, commit_index, held, self.fatal

    def has_work(self) -> bool:
        """Whether the next tick has something to do at once: to apply, or to sync and count what it appended itself."""
        return self.raftLastApplied < self.raftCommitIndex or (self.is_leader and self.journal.has_unsynced)

    def tick_delay_s(self) -> float:
        """Time until the next tick is due when nothing happens: the next heartbeat, or a look at the election timer."""
        period_s = self.timings.append_period_s
        if not self.is_leader:
            return period_s
        return min(period_s, max(0.005, self._SyncObj__newAppendEntriesTime - monotonic_s() + 0.001))

    def voters_at(self, index: int) -> tuple[str, ...]:
        """Return the voters after the entry ``index`` took effect; later entries must still be in the log."""
        return tuple(sorted(members_before(self.voters, self.journal.after(index))))

    def _publish_voters(self) -> None:
        addresses = [node.id for node in self._SyncObj__otherNodes]
        self._others = tuple(TCPNode(address) for address in addresses)
        self.voters = tuple(sorted([*addresses, self.self_address] if self.is_voter else addresses))

    def _majority_answers(self, window_s: float) -> bool:
        now_s, last_s = monotonic_s(), self._SyncObj__lastResponseTime
        others = self._others
        answering = sum(1 for voter in others if last_s.get(voter, LONG_AGO_S) > now_s - window_s)
        return 2 * (1 + answering) > 1 + len(others)

    def _leader_alive(self) -> bool:
        window_s = self.timings.election_timeout_s
        if self.is_leader:
            return self._majority_answers(window_s)
        return monotonic_s() - self._leader_contact_s < window_s
