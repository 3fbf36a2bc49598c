"""Versions of rows: a hybrid logical clock (Kulkarni et al., 2014), reduced to one number of nanoseconds. Pure."""

from __future__ import annotations


class HybridClock:
    """Gives versions that grow strictly, stay close to the wall clock, and follow every version seen.

    A value written after another one was received is therefore newer than it, however the machines' clocks differ.
    Nothing is kept over a restart: a wall clock that was set back meanwhile makes versions older than those before.
    """

    def __init__(self) -> None:
        self._last = 0

    def next(self, now_ns: int) -> int:
        """A version for a batch that is coordinated at wall-clock time ``now_ns``."""
        self._last = max(self._last + 1, now_ns)
        return self._last

    def observe(self, version: int) -> None:
        """Take note of a version that another coordinator gave."""
        self._last = max(self._last, version)
