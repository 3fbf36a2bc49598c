"""Offsets of time zones over whole arrays of times, and windows of GROUP BY time by local clocks.

``zoneinfo`` knows the rules of a zone but answers for one time only. Its changes of offset are found here by asking it
every few days and halving the step where two answers differ, for some years at a time; the years are kept.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from dsdbd.model.columns import Int64s

SECOND_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BLOCK_S = 1 << 29
"""About 17 years."""
_STEP_S = 3 * 86_400
"""No zone has changed its offset and changed it back within so short a time."""
_KEPT_BLOCKS = 1024
_CANDIDATES = 4096


def _offset_s(zone: ZoneInfo, time_s: int) -> int:
    offset = (_EPOCH + timedelta(seconds=time_s)).astimezone(zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


@lru_cache(maxsize=_KEPT_BLOCKS)
def _block(name: str, number: int) -> tuple[list[int], list[int]]:
    """Times in seconds from which an offset holds, the begin of the block first, and the offsets in seconds."""
    zone = ZoneInfo(name)
    start = number * _BLOCK_S
    times, offsets = [start], [_offset_s(zone, start)]
    before, known = start, offsets[0]
    while before < start + _BLOCK_S - 1:
        after = min(before + _STEP_S, start + _BLOCK_S - 1)
        offset = _offset_s(zone, after)
        if offset != known:
            low, high = before, after
            while high - low > 1:
                middle = (low + high) // 2
                if _offset_s(zone, middle) == known:
                    low = middle
                else:
                    high = middle
            times.append(high)
            offset = _offset_s(zone, high)
            offsets.append(offset)
            before, known = high, offset
        else:
            before = after
    return times, offsets


def _changes(name: str, low_s: int, high_s: int) -> tuple[Int64s, Int64s]:
    times: list[int] = []
    offsets: list[int] = []
    for number in range(low_s // _BLOCK_S, high_s // _BLOCK_S + 1):
        more_times, more_offsets = _block(name, number)
        times += more_times
        offsets += more_offsets
    return np.array(times, dtype=np.int64), np.array(offsets, dtype=np.int64)


def zone_offsets(name: str, times_ns: Int64s) -> Int64s:
    """What must be added to each time (int64[n], ns since the epoch) for the local one, int64[n] in ns."""
    if len(times_ns) == 0:
        return np.zeros(0, dtype=np.int64)
    low_s, high_s = int(times_ns.min()) // SECOND_NS, int(times_ns.max()) // SECOND_NS
    times, offsets = _changes(name, low_s, high_s)
    if len(times) == 1:
        return np.full(len(times_ns), offsets[0] * SECOND_NS, dtype=np.int64)
    found: Int64s = offsets[np.searchsorted(times, times_ns // SECOND_NS, side="right") - 1] * SECOND_NS
    return found


def window_bounds(
    times_ns: Int64s, interval_ns: int, offset_ns: int, name: str, *, ascending: bool = True
) -> tuple[Int64s, Int64s]:
    """Start and end (excluded) of the window that holds each time, int64[n] each; ``name`` "" means UTC.

    By local clocks a window may be shorter or longer than the interval where the clock is changed, as in InfluxDB 1.x:
    one is moved only by less than the interval. Where a clock is set back the window of a time may begin inside the
    one before; read in ascending order it is part of that.
    """
    if not name:
        starts = (times_ns - offset_ns) // interval_ns * interval_ns + offset_ns
        return starts, starts + interval_ns
    starts, ends = _local_windows(times_ns - offset_ns, interval_ns, name)
    if ascending:
        early, until = _local_windows(starts - 1, interval_ns, name)
        inside = until > starts
        if bool(inside.any()):
            starts, ends = np.where(inside, early, starts), np.where(inside, until, ends)
    return starts + offset_ns, ends + offset_ns


def _local_windows(times: Int64s, interval_ns: int, name: str) -> tuple[Int64s, Int64s]:
    zone = zone_offsets(name, times)
    into = (times + zone) % interval_ns
    starts = times - into
    moved = zone - zone_offsets(name, starts)
    starts = np.where(np.abs(moved) < interval_ns, starts + moved, starts)
    ends = times + (interval_ns - into)
    end_offsets = zone_offsets(name, ends)
    moved = zone - end_offsets
    # Time that is skipped belongs to the next window: an end is moved back only if the same offset holds there.
    holds = (moved > 0) | ((moved < 0) & (zone_offsets(name, ends + moved) == end_offsets))
    return starts, np.where(holds & (np.abs(moved) < interval_ns), ends + moved, ends)


def window_starts(first_ns: int, last_ns: int, interval_ns: int, name: str) -> Int64s:
    """Starts of the windows from the one that starts at ``first_ns`` on, none above ``last_ns``; int64."""
    if not name:
        return np.arange(first_ns, last_ns + 1, interval_ns, dtype=np.int64)
    found: list[Int64s] = []
    at = first_ns
    offset = int(zone_offsets(name, np.array([at]))[0])
    while at <= last_ns:
        steps = min(_CANDIDATES, (last_ns - at) // interval_ns + 1)
        starts = at + np.arange(steps + 1, dtype=np.int64) * interval_ns
        offsets = zone_offsets(name, starts[1:] - 1)
        changed = np.flatnonzero(offsets != offset)
        if len(changed) == 0:
            found.append(starts[:-1])
            at = int(starts[-1])
            continue
        place = int(changed[0])
        found.append(starts[: place + 1])
        at, moved = int(starts[place + 1]), offset - int(offsets[place])
        at += moved if abs(moved) < interval_ns else 0
        offset = int(offsets[place])
    every: Int64s = np.concatenate([np.zeros(0, dtype=np.int64), *found])
    return every[: int(np.searchsorted(every, last_ns, side="right"))]


def offset_texts(name: str, times_ns: Int64s) -> tuple[Int64s, Any]:
    """The local times, int64[n] in ns, and what RFC3339 writes behind each: ``Z``, ``+02:00``; bytes of fixed width."""
    offsets = zone_offsets(name, times_ns)
    distinct, place = np.unique(offsets, return_inverse=True)
    return times_ns + offsets, np.array([_offset_text(int(one)) for one in distinct])[place]


def _offset_text(offset_ns: int) -> bytes:
    if offset_ns == 0:
        return b"Z"
    minutes = abs(offset_ns) // (60 * SECOND_NS)
    return f"{'-' if offset_ns < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}".encode()
