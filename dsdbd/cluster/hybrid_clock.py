"""Versions of rows: a hybrid logical clock (Kulkarni et al., 2014), reduced to one number of nanoseconds. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dsdbd.model.versions import NODE_BITS, NODES

if TYPE_CHECKING:
    from collections.abc import Collection

RESERVE_NS = 2_000_000_000
"""How far the ceiling is set ahead of the newest version; a start after a crash begins there."""
BEHIND_NS = 3_000_000_000
"""How far a new write's version may be below what an owner has seen lately, and how long lately is: what a batch may
wait for its coordinator's disk (a second) and for a connection, while clocks are kept, is less."""
_STEP_S = 0.25
"""Versions seen within it count as seen at its begin."""
AHEAD_NS = 5_000_000_000
"""Versions that are further ahead of the wall clock are worth a word; a start after a crash alone explains less."""
FAR_NS = 24 * 3_600 * 10**9
"""A wall clock that is so far ahead of all others gives no versions: every later write would have to follow it."""
UNGIVEN = (1 << 63) - 1
"""Instead of a version, where none may be given; no ceiling reaches it."""


class HybridClock:
    """Gives versions that grow strictly, stay close to the wall clock, and follow every version seen.

    A value written after another one was received is therefore newer than it, however the machines' clocks differ. The
    lowest bits are the number of the node, so that no two nodes give the same version.

    ``ceiling``: no version above it was given before the start; 0 where nothing is known. A version may go out when the
    ceiling that is on stable storage is not below it: then a start finds where to go on, whatever the wall clock says.
    """

    def __init__(self, ceiling: int = 0) -> None:
        self._last = ceiling
        self._ceiling = ceiling
        self._ahead_from: int | None = None

    @property
    def last(self) -> int:
        """The newest version given or seen."""
        return self._last

    def next(self, now_ns: int, node: int = 0) -> int:
        """A version for a batch that ``node`` coordinates at wall-clock time ``now_ns``, at most 1 us older than that.

        Only the lowest ten bits of ``node`` count.
        """
        tick = (self._last >> NODE_BITS) + 1
        if now_ns >> NODE_BITS >= tick:
            tick, self._ahead_from = now_ns >> NODE_BITS, None
        self._last = tick << NODE_BITS | node & NODES - 1
        return self._last

    def observe(self, version: int, now_ns: int) -> None:
        """Take note of a version that another coordinator gave.

        However far it is ahead: what was acknowledged with it must stay older than what is written from now on.
        """
        if version <= self._last:
            return
        if version - now_ns > AHEAD_NS >= self._last - now_ns:
            self._ahead_from = version & NODES - 1
        self._last = version

    def problem(self, now_ns: int) -> str:
        """A sentence about versions that are ahead of the wall clock; empty where they are not."""
        ahead_ns = self._last - now_ns
        if ahead_ns <= AHEAD_NS:
            return ""
        cause = (
            "its clock was set back, or versions were ahead before the last start"
            if self._ahead_from is None
            else f"node {self._ahead_from} wrote with a clock that was ahead"
        )
        return (
            f"the versions of writes are {ahead_ns / 1e9:.0f}s ahead of this machine's clock: {cause}; new writes "
            "follow them, so that none is taken for an older one"
        )

    def is_reserved(self, version: int) -> bool:
        """Whether the ceiling on stable storage covers a version."""
        return version <= self._ceiling

    def wanted_ceiling(self) -> int | None:
        """The ceiling to be stored now; None while that in force is far enough ahead."""
        if self._last + RESERVE_NS // 2 <= self._ceiling:
            return None
        return self._last + RESERVE_NS

    def reserve(self, ceiling: int) -> None:
        """Take note that a ceiling is on stable storage."""
        self._ceiling = max(self._ceiling, ceiling)


def is_wild(looks: Collection[tuple[float, float]], jumped_s: float) -> bool:
    """Whether this node's wall clock is too far ahead of those of all other nodes to give versions.

    ``looks``: of each node that answers, the monotonic time at which its clock was last looked at, and how many seconds
    it is ahead of this one. ``jumped_s``: when this node's clock was last seen to jump, -infinity for never; a look
    from before says nothing, and until there is a newer one the clock is not trusted.
    """
    fresh = [ahead_s for looked_s, ahead_s in looks if looked_s >= jumped_s]
    return bool(looks) and all(ahead_s * 1e9 < -FAR_NS for ahead_s in fresh)


class Floor:
    """The lowest version that an owner takes for a new write, which was given just now.

    A write that was confirmed was seen by the owners that confirmed it. So where those of a later write are not all
    others, one of them refuses a version that is lower by more than BEHIND_NS, or lower at all if it saw the higher one
    BEHIND_NS ago, whatever clocks say. Times are monotonic.
    """

    def __init__(self, seen: int) -> None:
        """``seen``: no higher version was seen before the start."""
        self._before = seen
        self._lately: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, last: int) -> None:
        """Take note of the newest version given or seen, as often as it grows."""
        if self._lately and now_s - self._lately[-1][0] < _STEP_S:
            self._lately[-1] = (self._lately[-1][0], last)
            return
        self._forget(now_s)
        self._lately.append((now_s, last))

    def look(self, now_s: float) -> int:
        """The floor now."""
        self._forget(now_s)
        return max(self._before, self._lately[-1][1] - BEHIND_NS) if self._lately else self._before

    def _forget(self, now_s: float) -> None:
        while self._lately and self._lately[0][0] <= now_s - BEHIND_NS / 1e9:
            self._before = self._lately.popleft()[1]


class Settled:
    """Below which version all were given some time ago, also while versions are ahead of the wall clock."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._seen: deque[tuple[float, int]] = deque()

    def look(self, now_s: float, now_ns: int, last: int) -> int:
        """That version; ``last``: the newest given or seen now. Call it often; ``now_s`` is monotonic."""
        if not self._seen or now_s - self._seen[-1][0] >= self._settle_s / 4:
            self._seen.append((now_s, last))
        while len(self._seen) > 1 and self._seen[1][0] <= now_s - self._settle_s:
            self._seen.popleft()
        seen_s, version = self._seen[0]
        return max(now_ns - int(self._settle_s * 1e9), version + 1 if seen_s <= now_s - self._settle_s else 0)
