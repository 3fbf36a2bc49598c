"""What the division of a query into slices is made of: its steps, and an estimate of how many rows are where."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from dsdbd.model.scan import Extent
from dsdbd.query.plan_types import SelectPlan
from dsdbd.query.run import Partial


@dataclass(frozen=True, slots=True)
class Ask:
    """Wanted: the answer of all shards to a plan, merged.

    ``most_rows``: how many rows a node may hold for it, 0 for any number; None is sent when they are more.
    ``groups``: the groups of the plan's series are asked for (``run_groups``), not their rows.
    ``onto``: an earlier answer, which is merged with this one.
    """

    plan: SelectPlan
    most_rows: int = 0
    groups: bool = False
    onto: Partial | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """A part of the statement's answer: what ``finish`` makes of ``partial`` by ``plan``.

    ``continues``: its first series is the last one of the part before. ``last``: no part follows.
    """

    plan: SelectPlan
    partial: Partial
    continues: bool = False
    last: bool = False


Steps: TypeAlias = Generator[Ask | Emit, Partial | None, None]
"""Steps of a division; an ``Ask`` is answered by ``send``, an ``Emit`` by ``send(None)``."""


class Density:
    """About how many rows lie where in a time range, from what shards say they hold; evenly spread in each of them.

    ``low`` and ``high``: the inclusive range outside of which there are none; ``low`` is above ``high`` without any.
    ``rows``: all of them. ``parts``: how many shards have some.
    """

    def __init__(self, extents: Sequence[Extent], min_ns: int, max_ns: int) -> None:
        inside = [one for one in extents if one.rows and one.max_ns >= min_ns and one.min_ns <= max_ns]
        self.parts = len(inside)
        self.low = max(min((one.min_ns for one in inside), default=1), min_ns)
        self.high = min(max((one.max_ns for one in inside), default=0), max_ns)
        if not inside:
            self.low, self.high = 1, 0
        edges = {self.low, self.high + 1}
        for one in inside:
            edges |= {max(one.min_ns, self.low), min(one.max_ns, self.high) + 1}
        self._times = sorted(edges)
        offsets = np.array([time - self.low for time in self._times], dtype=np.float64)
        total = np.zeros(len(offsets))
        for one in inside:
            width = one.max_ns - one.min_ns + 1
            total += one.rows * np.clip((offsets - float(one.min_ns - self.low)) / width, 0.0, 1.0)
        self._total: list[float] = (total - total[0]).tolist()
        self.rows: float = self._total[-1]

    def between(self, first_ns: int, last_ns: int) -> float:
        """Rows between two times, both included."""
        return max(self._before(last_ns + 1) - self._before(first_ns), 0.0)

    def _before(self, time_ns: int) -> float:
        at = bisect_right(self._times, time_ns)
        if at == 0:
            return 0.0
        if at == len(self._times):
            return self.rows
        left, right = self._times[at - 1], self._times[at]
        share: float = (time_ns - left) / (right - left)
        return self._total[at - 1] + share * (self._total[at] - self._total[at - 1])

    def cut(self, from_ns: int, rows: float, *, ascending: bool) -> int:
        """The last time of a stretch of about so many rows that begins at a time, or of all rows where fewer remain."""
        if ascending:
            wanted = self._before(from_ns) + rows
            return self.high if wanted >= self.rows else max(min(self._when(wanted) - 1, self.high), from_ns)
        wanted = self._before(from_ns + 1) - rows
        return self.low if wanted <= 0 else min(max(self._when(wanted), self.low), from_ns)

    def _when(self, rows: float) -> int:
        """The time before which there are so many rows; ``rows`` is more than 0 and less than all."""
        at = bisect_left(self._total, rows)
        left, right = self._times[at - 1], self._times[at]
        step = self._total[at] - self._total[at - 1]
        return left + int((right - left) * ((rows - self._total[at - 1]) / step))
