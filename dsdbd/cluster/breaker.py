"""When to leave a peer alone: a circuit breaker. Pure; the time is an argument.

A peer that fails several requests in a row is left alone for a while, which grows with every further failure, so that
neither it nor those who wait for it are burdened. Then one request is let through to see.
"""

from __future__ import annotations

from dataclasses import dataclass

FAILURES_TO_OPEN = 3
"""Failures in a row before a peer is left alone: one or two also happen to a peer that is merely busy."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 2.0
"""It bounds how long a peer stays alone after it was mended, where nothing else tells. One request in so long is no
burden, and where the way there loses packets many others come through."""


@dataclass(slots=True)
class Breaker:
    """One peer, for one kind of request. Closed: all pass. Open: none does. Half-open: one does, to see."""

    failures: int = 0
    pause_s: float = FIRST_PAUSE_S
    open_until_s: float = float("-inf")
    trial: bool = False
    """Whether the one request is under way whose outcome decides."""
    openings: int = 0
    """How often the peer was begun to be left alone."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing stands in the way of a request."""
        return self.failures < FAILURES_TO_OPEN

    def allows(self, now_s: float) -> bool:
        """Whether a request may be sent now; one that is let through a breaker that is not closed is the trial."""
        if self.refuses(now_s):
            return False
        self.trial = not self.is_closed
        return True

    def refuses(self, now_s: float) -> bool:
        """Whether a request would not be let through now; asking changes nothing."""
        return not self.is_closed and (self.trial or now_s < self.open_until_s)

    def left_s(self, now_s: float) -> float:
        """Seconds until the next request is let through; 0 where one may be sent."""
        return 0.0 if self.is_closed else max(0.0, self.open_until_s - now_s)

    def succeeded(self) -> None:
        """The peer has answered."""
        self.failures, self.pause_s, self.trial = 0, FIRST_PAUSE_S, False
        self.open_until_s = float("-inf")

    def failed(self, now_s: float) -> None:
        """The peer has not answered. Requests that began before it was left alone do not make the pause longer."""
        was_trial, self.trial = self.trial, False
        self.failures += 1
        if self.failures == FAILURES_TO_OPEN:
            self.openings += 1
            self.open_until_s = now_s + self.pause_s
        elif was_trial:
            self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)
            self.open_until_s = now_s + self.pause_s

    def gave_up(self) -> None:
        """A request ended without telling anything of the peer: its caller went away."""
        self.trial = False

    def healed(self, now_s: float) -> None:
        """Something else says that the peer answers: the next request may try."""
        self.open_until_s = min(self.open_until_s, now_s)
        self.pause_s = FIRST_PAUSE_S
