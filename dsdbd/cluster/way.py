"""What packets tell of the way to one node: how many had to be sent again, and how long one is under way. Pure.

The figures are the kernel's (``tcp_info.py``), so that a busy program, here or there, is not taken for a bad network.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

WINDOW_S = 2.5
"""For so long packets that were lost are worth a word."""
LEAST_RESENT = 2
SOON_S = 1.0
LEAST_RESENT_SOON = 3
"""So many in a shorter time tell as well, of a way where much was sent before without a loss."""
RESENT_SHARE = 0.05
"""Of the packets sent; a few are lost on good networks, too."""
LATE_S = 0.02
"""A shorter way there and back is never called slow."""
LATE_FACTOR = 4.0
"""How many times the usual a slow way takes."""
LATE_LEAST = 2
"""New connections in a row that have to say so."""
DOUBT_S = 0.01
"""What older connections say raises doubts: their kernels may hold back a confirmation for 40 ms, until a busy program
answers. A new connection is confirmed at once."""
_USUAL_DOUBLES_S = 3600.0
"""What is usual rises so fast, because networks are rebuilt, and falls at once."""
_LEAST_USUAL_S = 1e-5


class Reading(NamedTuple):
    """Figures of a connection since it was made; ``rtt_s`` is smoothed: an eighth of each new value counts.

    ``needless``: how many packets were sent again although the first had arrived, as the other side said (RFC 2883). A
    busy machine confirms late, and then a kernel sends again what was not lost.
    """

    connection: int
    rtt_s: float
    resent: int
    sent: int
    needless: int = 0


class Way:
    """The way to one node, looked at again and again; the first reading of each look is that of the regular looks."""

    def __init__(self) -> None:
        self._known: dict[int, Reading] = {}
        self._lost: deque[tuple[float, int, int]] = deque()
        self._late = 0
        self._now_s = 0.0
        self.is_doubtful = False
        """Whether the next look should use a new connection."""
        self.usual_s = 0.0
        """The shortest time there and back of late, 0 while nothing is known."""
        self.rtt_s = 0.0
        """The same of the newest connection."""

    def look(self, now_s: float, pulse: Sequence[Reading], others: Sequence[Reading] = ()) -> None:
        """Take in figures: of the connections that look at the node, whose packets come one by one, and of others."""
        known, self._known = self._known, {}
        resent = sent = 0
        for reading in (*pulse, *others):
            before = known.get(reading.connection)
            if before is None or any(then > now for then, now in zip(before[2:], reading[2:], strict=True)):
                before = Reading(reading.connection, 0.0, 0, 0)
            # That one was needless is told a little later than that it was sent: so this may be below 0.
            resent += reading.resent - before.resent - (reading.needless - before.needless)
            sent += reading.sent - before.sent
            self._known[reading.connection] = reading
        for reading in pulse:
            self._time(reading, known.get(reading.connection), now_s - self._now_s if self._now_s else 0.0)
        self._now_s = now_s
        if sent or resent:
            self._lost.append((now_s, resent, sent))
        while self._lost and now_s - self._lost[0][0] > WINDOW_S:
            self._lost.popleft()

    def _time(self, reading: Reading, before: Reading | None, pause_s: float) -> None:
        if not reading.rtt_s or (before is not None and reading.rtt_s == before.rtt_s):
            return
        usual_s = self.usual_s * 2 ** (pause_s / _USUAL_DOUBLES_S) if self.usual_s else reading.rtt_s
        self.usual_s = max(_LEAST_USUAL_S, min(usual_s, reading.rtt_s))
        if before is None or not before.rtt_s:
            # The first value of a connection is not smoothed.
            self.rtt_s = reading.rtt_s
            self.is_doubtful = self.rtt_s >= max(LATE_S, LATE_FACTOR * self.usual_s)
            self._late = self._late + 1 if self.is_doubtful else 0
            return
        # There may have been two values since: then this is no more than the newest.
        newest_s = before.rtt_s + 4 * (reading.rtt_s - before.rtt_s)
        if newest_s >= max(DOUBT_S, LATE_FACTOR * self.usual_s):
            self.is_doubtful = True

    def begin_anew(self) -> None:
        """The node was out of reach and is back: what was lost in between says nothing of the way now."""
        self._lost.clear()
        self._late = 0

    @property
    def lost(self) -> tuple[int, int]:
        """Packets that had to be sent again of late, and all that were sent."""
        return self._lost_within(WINDOW_S)

    def _lost_within(self, age_s: float) -> tuple[int, int]:
        late = [one for one in self._lost if self._now_s - one[0] <= age_s]
        return max(0, sum(resent for _, resent, _ in late)), sum(sent for _, _, sent in late)

    def problem(self) -> str:
        """What is wrong with the way; empty where nothing is."""
        for age_s, least in ((WINDOW_S, LEAST_RESENT), (SOON_S, LEAST_RESENT_SOON)):
            resent, sent = self._lost_within(age_s)
            if resent >= least and resent >= RESENT_SHARE * sent:
                return f"packets are lost on the way: {resent} of the last {sent} had to be sent again"
        if self._late >= LATE_LEAST:
            return (
                f"the way is slow: {self.rtt_s * 1e3:.0f} ms there and back, it used to be {self.usual_s * 1e3:.3g} ms"
            )
        return ""
