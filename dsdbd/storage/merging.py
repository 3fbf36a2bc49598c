"""Which neighbouring segments to merge, and which files a crash left behind. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NAME = re.compile(r"([0-9]{8,})(?:-([0-9]{8,}))?\.parquet")
_SMALLEST_TIER_BYTES = 64 << 10


def segment_name(low: int, high: int) -> str:
    """File name of the segment that stands for the numbers ``low`` to ``high``."""
    return f"{low:08d}.parquet" if low == high else f"{low:08d}-{high:08d}.parquet"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """The numbers a file stands for; None when it is not a segment."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    low = int(match[1])
    return low, low if match[2] is None else int(match[2])


def superseded(ranges: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """Ranges that lie inside another one: their rows are in that other file, and a crash kept them from deletion."""
    ordered = sorted(set(ranges), key=lambda item: (item[0], -item[1]))
    inside: set[tuple[int, int]] = set()
    reach = -1
    for low, high in ordered:
        if high <= reach:
            inside.add((low, high))
        else:
            reach = high
    return inside


def _tier(size: int, fan: int) -> int:
    tier = 0
    while size > _SMALLEST_TIER_BYTES * fan**tier:
        tier += 1
    return tier


def choose_merge(sizes: Sequence[int], *, fan: int, max_bytes: int) -> tuple[int, int] | None:
    """The half open range of segments to merge, oldest first; None when there is nothing to do.

    Sizes fall into tiers that grow by ``fan``. The newest segments up to a tier are merged as soon as they are ``fan``
    many, so a row is rewritten once per tier, and of the segments small enough to be merged (an ``fan``-th of
    ``max_bytes``) fewer than ``fan`` stay per tier.
    """
    for tier in range(_tier(max(max_bytes // fan, 1), fan) + 1):
        start = len(sizes)
        total = 0
        while start > 0 and _tier(sizes[start - 1], fan) <= tier and total + sizes[start - 1] <= max_bytes:
            start -= 1
            total += sizes[start]
        if len(sizes) - start >= fan:
            return start, len(sizes)
    return None


def choose_full_merge(sizes: Sequence[int], *, fan: int, max_bytes: int) -> tuple[int, int] | None:
    """The half open range of segments to merge when nothing is written any more; None when there is nothing to do.

    Of all neighbours that fit in one file those that are most, the oldest where two are equal. A file is not rewritten
    for the sake of others that have less than an ``fan``-th of its rows.
    """
    best: tuple[int, int] | None = None
    for start in range(len(sizes)):
        total = largest = 0
        for stop in range(start, len(sizes)):
            total += sizes[stop]
            largest = max(largest, sizes[stop])
            if total > max_bytes:
                break
            pays = stop > start and (total - largest) * fan >= largest
            if pays and (best is None or stop + 1 - start > best[1] - best[0]):
                best = start, stop + 1
    return best


def within_memory(held: Sequence[int], start: int, stop: int, *, max_bytes: int) -> int:
    """An earlier end of a range of segments so that what a merge holds of each stays within a bound; two at least.

    ``held``: bytes of the largest row group of each segment.
    """
    end = start + min(2, stop - start)
    total = sum(held[start:end])
    while end < stop and total + held[end] <= max_bytes:
        total += held[end]
        end += 1
    return end
