"""Durations as InfluxQL writes them: ``1h30m``, ``90m``, ``1w``."""

from __future__ import annotations

import re
from typing import Final

UNIT_NS: Final = {
    "ns": 1,
    "u": 1_000,
    "µ": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
"""Nanoseconds of every unit."""
_PRINTED = ("w", "d", "h", "m", "s", "ms", "u", "ns")
_PART = re.compile(r"([0-9]+)(ns|ms|[uµsmhdw])")
_MAX_NS = 2**63 - 1


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration without sign, in one unit or several.

    Raises:
        ValueError: with the words of InfluxDB 1.x, when it is not a duration or exceeds int64.

    """
    total_ns, offset = 0, 0
    while offset < len(text):
        part = _PART.match(text, offset)
        if part is None or len(part[1]) > 19 or int(part[1]) > _MAX_NS:
            raise ValueError("invalid duration")
        total_ns += int(part[1]) * UNIT_NS[part[2]]
        if total_ns > _MAX_NS:
            raise ValueError(f"overflowed duration {int(part[1])}{part[2]}: choose a smaller duration or INF")
        offset = part.end()
    if not text:
        raise ValueError("invalid duration")
    return total_ns


def format_duration(value_ns: int) -> str:
    """The duration in the largest unit that divides it; zero is ``0s``."""
    if value_ns == 0:
        return "0s"
    unit = next(unit for unit in _PRINTED if value_ns % UNIT_NS[unit] == 0)
    return f"{value_ns // UNIT_NS[unit]}{unit}"
