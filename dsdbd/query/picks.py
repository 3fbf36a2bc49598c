"""Selectors that keep several points of a bucket: ``top``, ``bottom`` and ``sample``.

Which points are kept is decided by an order of all points that does not depend on where they are, so that the best of
some shards, and the best of those, are the best of all. ``top`` and ``bottom`` order by value; equal values by time,
the earlier first. A sample is the points with the smallest numbers, where a point's number is a hash of its series,
its time and a seed: each set of points is as likely as any other of its size (bottom-k sampling; Cohen and Kaplan,
"Summarizing data using bottom-k sketches", 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dsdbd.model.columns import Column, Int32s, Int64s
from dsdbd.query.columns import plain_strings
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_types import CallPlan
from dsdbd.query.table import Table, sort_table

PICKS = frozenset({"top", "bottom", "sample"})
_GOLDEN = 0x9E3779B97F4A7C15
_PIECE = 1 << 16
_LONG_RUN = 64


def kept(
    call: CallPlan,
    group: Int32s,
    bucket: Int64s,
    time: Int64s,
    member: Int32s,
    members: Any,
    value: Column,
    apart: Sequence[Any],
    runs: Int64s | None = None,
) -> Int64s:
    """Positions of the points that a call keeps of some, all arrays of n points as in Table.

    ``apart``: for each tag that tells points apart an integer per point; of each combination one point is a candidate.
    ``runs``: int64[r], first points of runs of one series and bucket, where points come in such.
    """
    weight = _numbers(call.seed, members, member, time) if call.function == "sample" else _weights(call, value)
    chosen = np.arange(len(time)) if runs is None else _promising(call, weight, runs)
    if call.apart:
        order = chosen[np.lexsort([key[chosen] for key in (member, time, weight, *apart[::-1], bucket, group)])]
        chosen = order[run_starts(group[order], bucket[order], *[codes[order] for codes in apart])]
    order = chosen[np.lexsort((member[chosen], time[chosen], weight[chosen], bucket[chosen], group[chosen]))]
    starts = run_starts(group[order], bucket[order])
    place = np.arange(len(order)) - np.repeat(starts, run_lengths(starts, len(order)))
    return order[place < int(call.arg)]


def _promising(call: CallPlan, weight: Any, runs: Int64s) -> Int64s:
    """Positions without the points of long runs that are surely worse than those the run may give."""
    most = 1 if call.apart else int(call.arg)
    lengths = run_lengths(runs, len(weight))
    long = np.flatnonzero(lengths > max(_LONG_RUN, 4 * most))
    keep = np.ones(len(weight), dtype=np.bool_)
    # Runs are long, so finding the limit of each costs less than sorting them all.
    for start, length in zip(runs[long].tolist(), lengths[long].tolist(), strict=True):
        part = weight[start : start + length]
        np.less_equal(part, np.partition(part, most - 1)[most - 1], out=keep[start : start + length])
    return np.flatnonzero(keep)


def merge(call: CallPlan, table: Table) -> Table:
    """What remains of the rows of many parts, by group, bucket and time."""
    apart = [_codes(table.columns[f"b{place}"]) for place in range(len(call.apart))]
    value = table.columns["value"]
    rows = kept(call, table.group, table.bucket, table.time, table.member, table.members, value, apart)
    return sort_table(table.take(rows))


def ordered(call: CallPlan, table: Table, rank: Int64s) -> Table:
    """Rows in the order of an answer: by group, bucket and time, at equal times the best value first.

    ``rank``: numbers that order the values, by which a sample goes.
    """
    weight = rank if call.function == "sample" else _weights(call, table.columns["value"])
    return table.take(np.lexsort((table.member, weight, table.time, table.bucket, table.group)))


def _weights(call: CallPlan, value: Column) -> Any:
    """Numbers that ascend from the best value to the worst."""
    if call.function == "bottom":
        return value.values
    return ~value.values if value.values.dtype == np.int64 else -value.values


def _codes(column: Column) -> Any:
    """An integer for each text, -1 for none."""
    texts = plain_strings(column).to_arrow().dictionary_encode()
    return texts.indices.fill_null(-1).to_numpy()


def _numbers(seed: int, members: Any, member: Int32s, time: Int64s) -> Any:
    """A point's number, uint64[n]."""
    series = _hashes(members)[member]
    # Products of hashes are meant to be cut to 64 bits.
    with np.errstate(over="ignore"):
        mixed = _mixed(time.astype(np.uint64) ^ np.uint64(seed * _GOLDEN % (1 << 64)))
        return _mixed(series + mixed * np.uint64(_GOLDEN))


def _mixed(numbers: Any) -> Any:
    """The last steps of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _hashes(members: Any) -> Any:
    """A hash of each key, uint64: the sum of its bytes, each times a random number that belongs to its place."""
    found = np.zeros(len(members), dtype=np.uint64)
    for start in range(0, len(members), _PIECE):
        keys = members[start : start + _PIECE].cast(pa.binary())
        _, offsets, data = keys.buffers()
        ends = np.frombuffer(offsets, dtype=np.int32)[keys.offset : keys.offset + len(keys) + 1].astype(np.int64)
        begins, lengths = ends[:-1], np.diff(ends)
        text = np.frombuffer(data or b"", dtype=np.uint8)[begins[0] : ends[-1]].astype(np.uint64)
        place = np.arange(len(text)) - np.repeat(begins - begins[0], lengths)
        with np.errstate(over="ignore"):
            weights = _mixed(
                (np.arange(int(lengths.max(initial=0)), dtype=np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
            )
            running = np.concatenate([[np.uint64(0)], np.cumsum((text + np.uint64(1)) * weights[place])])
            found[start : start + len(keys)] = running[ends[1:] - begins[0]] - running[begins - begins[0]]
    return found
