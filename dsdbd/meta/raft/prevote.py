"""The pre-vote of a would-be candidate (Ongaro's thesis, section 9.6) as a small state machine. Pure.

A node whose election timer fired first asks whether a majority would vote for it, without raising any term. A node cut
off from the others therefore comes back with the term it left with and disturbs nobody.
"""

from __future__ import annotations

from enum import Enum


class Step(Enum):
    """What the node does now."""

    WAIT = "wait"
    ASK = "ask"
    CAMPAIGN = "campaign"


class PreVote:
    """One node's pre-vote rounds; times are in seconds of one clock."""

    def __init__(self, self_address: str, election_timeout_s: float) -> None:
        self._self = self_address
        self._timeout_s = election_timeout_s
        self._granted: set[str] = set()
        self._next_round_s = 0.0
        self._asked_s = -1e9
        self._won_until_s = 0.0
        self.round = 0
        self.transferring = False
        """The old leader asked this node to campaign at once: voters then ignore that a leader is alive."""

    def poll(self, now_s: float, pause_s: float) -> Step:
        """Decide the next step of a node whose election timer has fired.

        ASK opens a new round; the next one comes after ``pause_s`` at the earliest, which should vary.
        """
        if self.transferring or now_s < self._won_until_s:
            self._won_until_s = 0.0
            return Step.CAMPAIGN
        if now_s < self._next_round_s:
            return Step.WAIT
        self._asked_s, self._next_round_s = now_s, now_s + pause_s
        self.round += 1
        self._granted = {self._self}
        return Step.ASK

    def yields_to(self, address: str, now_s: float) -> bool:
        """Tell whether this node would rather see ``address`` lead than itself, their logs being equal.

        Two nodes that ask at the same moment would split the votes and lose a whole timeout; the smaller address waits.
        """
        return address > self._self or now_s - self._asked_s > self._timeout_s / 10

    def grant(self, address: str, round_: int, voters: int, now_s: float) -> None:
        """Count the answer of a voter; a majority of ``voters`` wins the right to campaign."""
        if round_ != self.round:
            return
        self._granted.add(address)
        if 2 * len(self._granted) > voters:
            self._won_until_s = now_s + self._timeout_s
            self._granted = set()

    def reset(self) -> None:
        """Forget a won round: the node's role has changed."""
        self._won_until_s = 0.0
