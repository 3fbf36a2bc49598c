"""What a node makes of looking at another one again and again: up or down, and how far its clock is off. Pure.

A node is down when it has not answered for a while, or refuses connections; it is up as soon as it answers. One that is
heard meanwhile, because it asks something itself, is merely busy, and has longer. Time in which this node itself did
not run does not count against others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOK_PERIOD_S = 0.5
SILENT_S = 1.4
"""A node that has not answered for so long is down."""
HEARD_S = 1.0
"""A node of which something came in so long is there: every one asks the others something twice a second."""
WEDGED_S = 5.0
"""A node that is heard and does not answer for so long serves nobody: it is down, too."""
REFUSALS = 2
"""A node that refuses so many connections in a row is down at once: nothing listens there."""
PAUSED_S = SILENT_S - LOOK_PERIOD_S
"""A node that did not run for so long may have been down for others, which went on without it."""
LAG_S = 0.3
"""A tick that comes later by more means that this node did not run, or hardly, in between."""
CLOCK_WARN_S = 1.0
"""Clocks that differ by more are worth a word: retention, shard groups and the order of writes follow them."""


@dataclass(slots=True)
class Contact:
    """One other node. ``since_s`` is when it became what it is, up or down."""

    seen_s: float
    since_s: float
    heard_s: float = float("-inf")
    is_down: bool = False
    refused: int = 0
    reason: str = ""
    clock_ahead_s: float = 0.0
    """How far its clock is ahead of this node's beyond what the time of the request can explain; negative: behind."""

    @classmethod
    def begin(cls, now_s: float) -> Contact:
        """A node that is looked at from now on, and up until it does not answer."""
        return cls(seen_s=now_s, since_s=now_s)

    def answered(self, now_s: float, clock_ahead_s: float | None = None) -> bool:
        """It has answered; True when it was down. ``clock_ahead_s`` is None where nothing is known of its clock."""
        self.seen_s = now_s
        self.refused = 0
        self.reason = ""
        if clock_ahead_s is not None:
            self.clock_ahead_s = clock_ahead_s
        was_down, self.is_down = self.is_down, False
        if was_down:
            self.since_s = now_s
        return was_down

    def heard(self, now_s: float) -> None:
        """Something has come from it that was no answer."""
        self.heard_s = max(self.heard_s, now_s)

    def is_heard(self, now_s: float) -> bool:
        """Whether something has come from it of late, so that it is worth waiting for its answer."""
        return now_s - self.heard_s < HEARD_S

    def failed(self, reason: str, *, refused: bool) -> None:
        """It was looked at and gave no answer; ``refused``: its machine says that nothing listens."""
        self.reason = reason
        self.refused = self.refused + 1 if refused else 0

    def slept(self, gap_s: float, now_s: float) -> None:
        """Take note that this node did not run for a while, so that nobody's silence in it means anything."""
        self.seen_s = max(self.seen_s, min(self.seen_s + gap_s, now_s))
        self.heard_s = max(self.heard_s, min(self.heard_s + gap_s, now_s))

    def tick(self, now_s: float) -> bool:
        """Look at the time; True when the node is down from now on."""
        longest_s = WEDGED_S if self.is_heard(now_s) else SILENT_S
        if self.is_down or (now_s - self.seen_s < longest_s and self.refused < REFUSALS):
            return False
        self.is_down = True
        self.since_s = now_s
        self.clock_ahead_s = 0.0
        return True


@dataclass(slots=True)
class Ticks:
    """The ticks of this node: whether it ran between them.

    Two clocks: ``now_s`` is that of the contacts, which may stand still while the machine is suspended; ``elapsed_s``
    goes on in it. Whoever sends is not heard while this node does not run, so the others' silence is measured by the
    first. They went on without it meanwhile, so what it missed is measured by the second.
    """

    period_s: float
    ticked_s: float = float("inf")
    elapsed_s: float = float("inf")

    def late_s(self, now_s: float) -> float:
        """By how much more than a period the last tick is ago."""
        return now_s - self.ticked_s - self.period_s

    def was_paused(self, elapsed_s: float) -> bool:
        """Whether this node did not run for so long that it may have been down for others; no tick: False."""
        return elapsed_s - self.elapsed_s > PAUSED_S

    def tick(self, now_s: float, elapsed_s: float) -> None:
        """It runs."""
        self.ticked_s, self.elapsed_s = now_s, elapsed_s


def clock_ahead_s(sent_ns: int, received_ns: int, peer_ns: int) -> float:
    """How far the clock of a peer is ahead (positive) or behind, by an answer that was made between two own times.

    The time under way is not known to belong to one direction, so that only what lies outside of it counts.
    """
    if peer_ns > received_ns:
        return (peer_ns - received_ns) / 1e9
    return min(0.0, (peer_ns - sent_ns) / 1e9)


def clock_problems(ahead_s: Mapping[str, float]) -> list[str]:
    """Sentences about clocks, given how far those of other nodes are ahead.

    Where most of the others are off the same way it is this node's clock that is wrong.
    """
    off = {name: value for name, value in ahead_s.items() if abs(value) > CLOCK_WARN_S}
    for sign, words in ((1, "behind"), (-1, "ahead of")):
        same = [value for value in off.values() if value * sign > 0]
        if len(same) > 1 and 2 * len(same) > len(ahead_s):
            least = min(map(abs, same))
            return [f"this node's clock is {least:.1f}s {words} that of {len(same)} of {len(ahead_s)} other nodes"]
    return [
        f"the clock of {name} is {abs(value):.1f}s {'ahead of' if value > 0 else 'behind'} this node's"
        for name, value in sorted(off.items())
    ]
