"""Orders, runs and numbers of rows by integer keys, and the union of sorted texts: what folding and grouping share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Int32s, Int64s

_KEY_BOUND = 1 << 62
_TEXTS_AT_ONCE = 10_000


def run_starts(*keys: Any) -> Int64s:
    """Rows at which any of the key arrays changes, row 0 included; empty for empty keys."""
    size = len(keys[0])
    if size == 0:
        return np.zeros(0, dtype=np.int64)
    changed = np.empty(size, dtype=np.bool_)
    changed[0] = True
    np.not_equal(keys[0][1:], keys[0][:-1], out=changed[1:])
    for key in keys[1:]:
        changed[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changed)


def run_lengths(starts: Int64s, size: int) -> Int64s:
    """Number of rows of each run; ``size`` is that of all."""
    lengths = np.empty(len(starts), dtype=np.int64)
    if len(starts):
        np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
        lengths[-1] = size - starts[-1]
    return lengths


def stable_order(key: Int64s, bound: int) -> Int64s | None:
    """Rows by key, equal keys as they stand; None where they are in order. ``key`` is int64[n] in 0 to bound - 1.

    A sort of plain integers is several times as fast as one of positions, so where key and position fit into one
    integer the two are sorted together.
    """
    size = len(key)
    if size < 2 or bool((key[1:] >= key[:-1]).all()):
        return None
    bits = size.bit_length()
    if bound << bits < _KEY_BOUND:
        packed = (key << bits) | np.arange(size, dtype=np.int64)
        packed.sort()
        order: Int64s = packed & ((1 << bits) - 1)
        return order
    return np.argsort(key, kind="stable")


def number_rows(columns: Sequence[Any], sizes: Sequence[int], rows: int) -> tuple[Int64s, Int32s]:
    """Numbers of the distinct rows of code columns, in the order of the codes, first column first.

    ``columns``: arrays of n codes, each from 0 to its entry of ``sizes`` - 1; ``rows`` is n. Returns one row of each
    distinct kind, int64[g], and the number of every row, int32[n] in 0 to g - 1.
    """
    key, bound = np.zeros(rows, dtype=np.int64), 1
    for codes, size in zip(columns, sizes, strict=True):
        if size <= 1:
            continue
        if bound * size >= _KEY_BOUND:
            _, key, bound = _dense(key, bound)
        key, bound = (codes.astype(np.int64) if bound == 1 else key * size + codes), bound * size
    one_each, number, _ = _dense(key, bound)
    return one_each, number.astype(np.int32)


def _dense(key: Int64s, bound: int) -> tuple[Int64s, Int64s, int]:
    """One row of each distinct key, and the keys numbered without gaps; ``bound`` is above every key."""
    if len(key) == 0 or bound == 1:
        return np.zeros(min(len(key), 1), dtype=np.int64), np.zeros(len(key), dtype=np.int64), 1
    if bound <= 4 * len(key) + 1024:
        place = np.full(bound, -1, dtype=np.int64)
        place[key] = np.arange(len(key))
        present = np.flatnonzero(place >= 0)
        one_each = place[present]
        place[present] = np.arange(len(present))
        return one_each, place[key], len(present)
    order = stable_order(key, bound)
    ordered = key if order is None else key[order]
    starts = run_starts(ordered)
    numbers = np.repeat(np.arange(len(starts)), run_lengths(starts, len(key)))
    if order is None:
        return starts, numbers, len(starts)
    number = np.empty(len(key), dtype=np.int64)
    number[order] = numbers
    return order[starts], number, len(starts)


def chosen_texts(values: Sequence[str], positions: Int64s) -> Any:
    """Arrow string array of some entries of a sequence, made in steps that do not hold the interpreter for long."""
    parts = [
        pa.array([values[place] for place in positions[start : start + _TEXTS_AT_ONCE].tolist()], _STRING)
        for start in range(0, max(len(positions), 1), _TEXTS_AT_ONCE)
    ]
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)


def sorted_texts(texts: Any, *, distinct: bool = False) -> tuple[Any, Int32s]:
    """Distinct texts in ascending order, and the place that each of the given ones has in it, int32[n].

    Order is that of UTF-8 bytes, which is that of code points. ``distinct``: the caller knows that no text is twice.
    """
    size = len(texts)
    if size < 2 or pc.all(pc.greater(texts[1:], texts[:-1])).as_py():
        return texts, np.arange(size, dtype=np.int32)
    if distinct:
        order = pc.sort_indices(texts)
        rank = np.empty(size, dtype=np.int32)
        rank[order.to_numpy()] = np.arange(size, dtype=np.int32)
        return texts.take(order), rank
    encoded = texts.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order), dtype=np.int32)
    rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    return encoded.dictionary.take(order), rank[encoded.indices.to_numpy()]


def unite_texts(parts: Sequence[Any]) -> tuple[Any, list[Int32s]]:
    """Sorted union of arrays of texts that are distinct and ascending, and the places of each one's entries in it."""
    first = parts[0]
    if all(part is first or part.equals(first) for part in parts[1:]):
        return first, [np.arange(len(first), dtype=np.int32)] * len(parts)
    union, places = sorted_texts(pa.concat_arrays(parts))
    return union, np.split(places, np.cumsum([len(part) for part in parts])[:-1])


_STRING = pa.string()
