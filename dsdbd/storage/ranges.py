"""Ranges of rows: from many ``starts`` and ``stops`` to the rows in them. Pure, vectorised."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa

from dsdbd.model.columns import Column, Int64s
from dsdbd.model.types import FieldType

_SLICE_ROWS = 768
"""Ranges of at least this mean length are copied slice by slice; shorter ones by an index of every row: a slice costs
about a microsecond, an indexed row one to two nanoseconds."""
_FEW_SEARCHES = 12
"""So few ranges are searched one by one, more all together."""


class _Last(threading.local):
    """The ranges that this thread has expanded last: the columns of a block are read for the same ones in turn."""

    starts: Int64s | None = None
    stops: Int64s | None = None
    rows: Int64s = np.empty(0, dtype=np.int64)


_last = _Last()
_KEEP_ROWS = 65_536
"""Longer expansions are not kept, so that a thread holds half a megabyte at most."""


def _expand_again(starts: Int64s, stops: Int64s) -> Int64s:
    if _last.starts is starts and _last.stops is stops:
        return _last.rows
    rows = expand(starts, stops)
    if len(rows) <= _KEEP_ROWS:
        _last.starts, _last.stops, _last.rows = starts, stops, rows
    return rows


def expand(starts: Int64s, stops: Int64s) -> Int64s:
    """Every row of every range, int64."""
    if len(starts) == 1:
        return np.arange(starts[0], stops[0], dtype=np.int64)
    lengths = stops - starts
    ends = np.cumsum(lengths)
    rows: Int64s = np.arange(ends[-1] if len(ends) else 0, dtype=np.int64)
    rows += np.repeat(starts - (ends - lengths), lengths)
    return rows


def coalesce(starts: Int64s, stops: Int64s) -> tuple[Int64s, Int64s]:
    """Ascending, disjoint ranges with neighbours that touch made one."""
    if len(starts) < 2:
        return starts, stops
    apart = starts[1:] != stops[:-1]
    if apart.all():
        return starts, stops
    first = np.concatenate([np.ones(1, dtype=np.bool_), apart])
    last = np.concatenate([apart, np.ones(1, dtype=np.bool_)])
    return starts[first], stops[last]


def gather(values: Any, starts: Int64s, stops: Int64s) -> Any:
    """The values of all ranges one after another; a view where there is one range."""
    if len(starts) == 1:
        return values[int(starts[0]) : int(stops[0])]
    if len(starts) and int((stops - starts).sum()) >= _SLICE_ROWS * len(starts):
        return np.concatenate([values[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)])
    return values[_expand_again(starts, stops)]


def slice_column(column: Column, start: int, stop: int) -> Column:
    """Rows of a column, a view."""
    valid = None if column.valid is None else column.valid[start:stop]
    if column.type is not FieldType.STRING:
        return Column(column.type, column.values[start:stop], valid)
    return Column(column.type, column.values.slice(start, stop - start), valid)


def gather_column(column: Column, starts: Int64s, stops: Int64s) -> Column:
    """The rows of all ranges of a column; a view where there is one range."""
    if len(starts) == 1:
        return slice_column(column, int(starts[0]), int(stops[0]))
    valid = None if column.valid is None else gather(column.valid, starts, stops)
    if column.type is not FieldType.STRING:
        return Column(column.type, gather(column.values, starts, stops), valid)
    return Column(column.type, column.values.take(pa.array(_expand_again(starts, stops))), valid)


def first_at_least(times: Int64s, starts: Int64s, stops: Int64s, bounds: Int64s) -> Int64s:
    """For every range, in which times ascend, its first row with a time of at least its bound; its stop if none."""
    if len(starts) <= _FEW_SEARCHES:
        found = [
            start + int(times[start:stop].searchsorted(bound))
            for start, stop, bound in zip(starts.tolist(), stops.tolist(), bounds.tolist(), strict=True)
        ]
        return np.array(found, dtype=np.int64)
    low, high = starts.copy(), stops.copy()
    for _ in range(int((stops - starts).max()).bit_length()):
        open_ = low < high
        middle = (low + high) >> 1
        # A closed range may point behind the last row; what is read there does not count.
        before = open_ & (times[np.minimum(middle, len(times) - 1)] < bounds)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return low
