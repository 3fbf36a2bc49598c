"""Time as an argument: the pure rooms receive instants, the edges read them from a Clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Source of wall-clock and monotonic time."""

    def now_ns(self) -> int:
        """Wall-clock time in nanoseconds since 1970-01-01 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds of a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Wall-clock time in nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()


def elapsed_s(clock_id: int | None = getattr(time, "CLOCK_BOOTTIME", None)) -> float:
    """Seconds of a clock that never goes back and counts the time in which the machine was suspended.

    ``time.monotonic`` stands still meanwhile. Where the system has no such clock it is used all the same.
    """
    return time.monotonic() if clock_id is None else time.clock_gettime(clock_id)
