"""What rows are grouped by, as columns: a million groups are a few arrays, and text only when they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dsdbd.model.columns import Int32s, Int64s
from dsdbd.model.scan import SeriesSet
from dsdbd.query.ordering import chosen_texts, number_rows, sorted_texts, stable_order, unite_texts

_KEPT_NAMES = 256
"""Measurements whose Arrow array of one name is kept: making one costs more than grouping a few series."""


class GroupKey(NamedTuple):
    """One group: the measurement, and the values of the GROUP BY tags in the plan's order."""

    measurement: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupSet:
    """n distinct groups, ascending by measurement and then by tag after tag.

    ``names``: Arrow strings, the measurements, distinct and ascending; ``name_codes``: int32[n], positions in it.
    ``texts``: for each tag its values, likewise; ``codes``: for each tag int32[n]. An absent tag is the empty string.
    """

    names: Any
    name_codes: Int32s
    texts: tuple[Any, ...]
    codes: tuple[Int32s, ...]

    def __len__(self) -> int:
        return len(self.name_codes)

    def key(self, position: int) -> GroupKey:
        """One group as a tuple."""
        tags = tuple(texts[int(codes[position])].as_py() for texts, codes in zip(self.texts, self.codes, strict=True))
        return GroupKey(self.names[int(self.name_codes[position])].as_py(), tags)

    def take(self, positions: Int64s) -> GroupSet:
        """The groups at ascending positions."""
        return GroupSet(
            self.names, self.name_codes[positions], self.texts, tuple(codes[positions] for codes in self.codes)
        )


def group_series(series: SeriesSet, dimensions: Sequence[str]) -> tuple[GroupSet, Int32s]:
    """The groups of a set of series by some tags, and the group of each series, int32[n]."""
    size = len(series)
    if not dimensions:
        return _whole(series.measurement, min(size, 1)), np.zeros(size, dtype=np.int32)
    columns: list[Int32s] = []
    texts: list[Any] = []
    for tag_key in dimensions:
        values, codes = _sorted_tag(series, tag_key)
        texts.append(values)
        columns.append(codes)
    one_each, number = number_rows(columns, [len(values) for values in texts], size)
    codes_of = tuple(codes[one_each] for codes in columns)
    names = _names(series.measurement)
    return GroupSet(names, np.zeros(len(one_each), dtype=np.int32), tuple(texts), codes_of), number


@lru_cache(maxsize=_KEPT_NAMES)
def _names(measurement: str) -> Any:
    return pa.array([measurement], pa.string())


@lru_cache(maxsize=_KEPT_NAMES)
def _whole(measurement: str, groups: int) -> GroupSet:
    """The one group of a query without GROUP BY tags, or none; sets are never changed, so that it can be kept."""
    return GroupSet(_names(measurement), np.zeros(groups, dtype=np.int32), (), ())


def tag_texts(series: SeriesSet, tag_key: str, chosen: Int32s | None = None) -> tuple[Any, Int32s]:
    """Distinct values of a tag as Arrow strings, in any order, and each series' position in them, int32; -1 without.

    ``chosen``: the series in question, all without it.
    """
    column = series.tags.get(tag_key)
    if column is None:
        return pa.array([], pa.string()), np.full(len(series) if chosen is None else len(chosen), -1, dtype=np.int32)
    codes = column.codes if chosen is None else column.codes[chosen]
    if len(codes) == 1:
        used = codes[codes >= 0].astype(np.int64)
    elif len(codes) * 4 > len(column.values):
        seen = np.zeros(len(column.values) + 1, dtype=np.bool_)
        seen[codes] = True
        used = np.flatnonzero(seen[:-1])
    else:
        used = np.unique(codes)
        used = used[used >= 0].astype(np.int64)
    if len(used) == len(column.values):
        return chosen_texts(column.values, used), codes
    places = np.searchsorted(used, codes).astype(np.int32)
    places[codes < 0] = -1
    return chosen_texts(column.values, used), places


def _sorted_tag(series: SeriesSet, tag_key: str) -> tuple[Any, Int32s]:
    """Values of a tag in ascending order, the empty string for series that lack it, and each series' position."""
    values, codes = tag_texts(series, tag_key)
    absent = codes < 0
    if bool(absent.any()):
        values, places = sorted_texts(pa.concat_arrays([pa.array([""], pa.string()), values]), distinct=True)
        return values, places[codes + 1]
    values, places = sorted_texts(values, distinct=True)
    return values, places[codes]


def unite_groups(parts: Sequence[GroupSet]) -> tuple[GroupSet, list[Int32s]]:
    """The union of sets with the same tags, and the places of each one's groups in it."""
    first = parts[0]
    if all(part is first for part in parts[1:]):
        return first, [np.arange(len(first), dtype=np.int32)] * len(parts)
    names, name_maps = unite_texts([part.names for part in parts])
    columns = [np.concatenate([places[part.name_codes] for places, part in zip(name_maps, parts, strict=True)])]
    texts = []
    for dimension in range(len(first.texts)):
        values, maps = unite_texts([part.texts[dimension] for part in parts])
        texts.append(values)
        columns.append(
            np.concatenate([places[part.codes[dimension]] for places, part in zip(maps, parts, strict=True)])
        )
    one_each, number = number_rows(columns, [len(names), *map(len, texts)], len(columns[0]))
    united = GroupSet(names, columns[0][one_each], tuple(texts), tuple(codes[one_each] for codes in columns[1:]))
    return united, np.split(number, np.cumsum([len(part) for part in parts])[:-1])


def group_order(groups: GroupSet, group: Int32s, bucket: Int64s, interval_ns: int) -> Int64s | None:
    """Rows by group and bucket, equal ones as they stand; None where they are in order."""
    if len(group) == 0:
        return None
    key, bound = group.astype(np.int64), max(len(groups), 1)
    if interval_ns:
        first = int(bucket.min())
        buckets = (int(bucket.max()) - first) // interval_ns + 1
        if bound * buckets >= 1 << 62:
            order: Int64s = np.lexsort((bucket, group))
            return order
        key, bound = key * buckets + (bucket - first) // interval_ns, bound * buckets
    return stable_order(key, bound)
