"""Which series of a block still have a row, once deletions hide some of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsdbd.model.columns import Bools, Int64s
from dsdbd.storage.block import Block
from dsdbd.storage.ranges import coalesce
from dsdbd.storage.rows import Rows
from dsdbd.storage.tombstones import Hidden, hidden_rows

_STEP_ROWS = 262_144
"""Rows compared at once: a few milliseconds."""


def live_series(block: Block, marks: Sequence[Hidden]) -> Int64s:
    """Numbers of the series with a row that no deletion hides; ``marks`` are by the position of the block's runs.

    Rows are read only of runs the first and last time of which lie in deletions. Raises CorruptData, OSError.
    """
    runs = block.runs()
    if not marks:
        return runs.series
    first: Bools = np.zeros(len(runs.series), dtype=np.bool_)
    last: Bools = np.zeros(len(runs.series), dtype=np.bool_)
    for one in marks:
        first |= one.series & (runs.first_ns >= one.min_ns) & (runs.first_ns <= one.max_ns)
        last |= one.series & (runs.last_ns >= one.min_ns) & (runs.last_ns <= one.max_ns)
    doubtful = np.flatnonzero(first & last)
    live: Bools = np.ones(len(runs.series), dtype=np.bool_)
    ends = np.cumsum(runs.lengths[doubtful])
    begin = 0
    while begin < len(doubtful):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _STEP_ROWS, side="right")))
        chosen = doubtful[begin:end]
        live[chosen] = _have_rows(block, marks, chosen)
        begin = end
    return runs.series[live]


def _have_rows(block: Block, marks: Sequence[Hidden], chosen: Int64s) -> Bools:
    runs = block.runs()
    starts, lengths = runs.starts[chosen], runs.lengths[chosen]
    ranges = coalesce(starts, starts + lengths)
    rows = Rows(np.repeat(chosen, lengths), block.times(*ranges), block.versions(*ranges), {})
    hidden = hidden_rows(marks, rows)
    if hidden is None:
        return np.ones(len(chosen), dtype=np.bool_)
    visible: Bools = np.logical_or.reduceat(~hidden, np.cumsum(lengths) - lengths)
    return visible
