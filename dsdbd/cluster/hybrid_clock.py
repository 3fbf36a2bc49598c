"""Versions of rows: a hybrid logical clock (Kulkarni et al., 2014), reduced to one number of nanoseconds. Pure."""

from __future__ import annotations

NODE_BITS = 10
NODES = 1 << NODE_BITS
"""Versions of one node are this far apart; in between are those of others."""
RESERVE_NS = 2_000_000_000
"""How far the ceiling is set ahead of the newest version; a start after a crash begins there."""


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

    @property
    def last(self) -> int:
        """The newest version given or seen."""
        return self._last

    def next(self, now_ns: int, node: int = 0) -> int:
        """A version for a batch that ``node`` coordinates at wall-clock time ``now_ns``, at most 1 us older than that.

        Only the lowest ten bits of ``node`` count.
        """
        tick = max((self._last >> NODE_BITS) + 1, now_ns >> NODE_BITS)
        self._last = tick << NODE_BITS | node & NODES - 1
        return self._last

    def observe(self, version: int) -> None:
        """Take note of a version that another coordinator gave."""
        self._last = max(self._last, version)

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
