"""Which series of a shape a predicate selects: values are tried once each, series by their codes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import re2

from dsdbd.model.columns import Bools, Int64s
from dsdbd.model.predicate import AllOf, AnyOf, TagEquals, TagMatches, TagPredicate
from dsdbd.storage.index_shapes import Shape

_STEP = 1 << 20
_MANY = 8
"""More values than this of one tag are looked for in one pass over its codes."""
_FEW_ROWS = 4_096
"""Of so few series one pass for all values costs less than one for each."""
_NONE: Int64s = np.empty(0, dtype=np.int64)


def select_rows(shape: Shape, predicate: TagPredicate, count: int, within: Int64s | None = None) -> Int64s | None:
    """Rows of the first ``count`` that match, ascending; None for all. ``within``: look at these rows only."""
    match predicate:
        case TagEquals(key, value, negated):
            place = shape.places.get(key)
            if place is None or not value:
                return within if ((value == "") == (place is None)) != negated else _NONE
            return _having(shape, place, shape.dictionaries[place].code(value), negated, count, within)
        case TagMatches(key, pattern, negated):
            place = shape.places.get(key)
            if place is None:
                return within if (re2.search(pattern, "") is not None) != negated else _NONE
            return _in_table(shape, place, shape.dictionaries[place].matching(pattern) != negated, count, within)
        case AllOf(parts):
            for part in sorted(parts, key=lambda part: _order(shape, part)):
                within = select_rows(shape, part, count, within)
                if within is not None and not len(within):
                    break
            return within
        case AnyOf(parts):
            return _any_of(shape, parts, count, within)


def _order(shape: Shape, predicate: TagPredicate) -> int:
    """What to look at first: equality of the tag with the most values leaves the fewest series to the others."""
    match predicate:
        case TagEquals(key, value, negated):
            place = shape.places.get(key)
            if place is None or not value:
                return -(1 << 40)  # decided without a look at any series
            return 1 if negated else -len(shape.dictionaries[place])
        case TagMatches():
            return 2
        case AllOf(parts):
            return min((_order(shape, part) for part in parts), default=0)
    return 3


def _any_of(shape: Shape, parts: Iterable[TagPredicate], count: int, within: Int64s | None) -> Int64s | None:
    wanted: dict[int, set[int]] = {}
    found = []
    for part in parts:
        if isinstance(part, TagEquals) and part.value and not part.negated and part.key in shape.places:
            place = shape.places[part.key]
            wanted.setdefault(place, set()).add(shape.dictionaries[place].code(part.value))
            continue
        rows = select_rows(shape, part, count, within)
        if rows is None or rows is within:
            return within
        found.append(rows)
    for place, codes in wanted.items():
        codes.discard(-1)
        if len(codes) > _MANY or (len(codes) > 1 and count <= _FEW_ROWS):
            table: Bools = np.zeros(max(codes) + 1, dtype=np.bool_)
            table[list(codes)] = True
            rows = _in_table(shape, place, table, count, within)
            if rows is None or rows is within:
                return within
            found.append(rows)
        else:
            for code in codes:
                rows = _having(shape, place, code, False, count, within)
                if rows is not None:
                    found.append(rows)
    return _united(found, count)


def _united(found: list[Int64s], count: int) -> Int64s:
    if len(found) < 2:
        return found[0] if found else _NONE
    if sum(map(len, found)) < count // 64:
        return np.unique(np.concatenate(found))
    mask: Bools = np.zeros(count, dtype=np.bool_)
    for rows in found:
        mask[rows] = True
    return np.flatnonzero(mask)


def _having(shape: Shape, place: int, code: int, negated: bool, count: int, within: Int64s | None) -> Int64s | None:
    """Rows that have (or have not) one code, which is -1 for a value that no series has."""
    if code < 0:
        return within if negated else _NONE
    if within is None and not negated:
        return shape.with_code(place, code, count)
    codes = shape.codes[place].view()[:count]
    if within is None:
        return np.flatnonzero(codes != code)
    kept: Int64s = within[(codes[within] == code) != negated]
    return kept


def _in_table(shape: Shape, place: int, table: Bools, count: int, within: Int64s | None) -> Int64s | None:
    """Rows whose code is marked in the table; a code beyond its end is not."""
    marked = np.flatnonzero(table)
    if len(marked) == 0:
        return _NONE
    if len(marked) == 1:
        return _having(shape, place, int(marked[0]), False, count, within)
    dictionary = shape.dictionaries[place]
    table = np.append(table, np.zeros(max(len(dictionary) - len(table), 0), dtype=np.bool_))
    codes = shape.codes[place].view()[:count]
    if within is not None:
        kept: Int64s = within[table[codes[within]]]
        return kept
    if len(marked) == len(table):
        return None
    pieces = [np.flatnonzero(table[codes[at : at + _STEP]]) + at for at in range(0, max(count, 1), _STEP)]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
