"""Series of one measurement in one shard: numbers, and which of them a predicate selects."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import re2

from dsdbd.model.predicate import AllOf, AnyOf, TagEquals, TagMatches, TagPredicate
from dsdbd.model.scan import SeriesSet
from dsdbd.model.series import Series, parse_key

Numbers = npt.NDArray[np.int64]

_SORT_DIRECTLY = 256
"""Fewer series are sorted by their keys; for more the rank of every series is kept until a new one arrives."""


class SeriesIndex:
    """Numbers series from 0 in order of arrival and finds them by tag; not thread-safe, its shard's lock guards it.

    A list of series numbers per (tag key, value) answers equality without a look at other series; a regular
    expression is tried once on each distinct value of its key.
    """

    def __init__(self) -> None:
        self.series: list[Series] = []
        self.keys: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self._postings: dict[str, dict[str, list[int]]] = {}
        self._ranks: Numbers = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.series)

    def number(self, key: bytes) -> int:
        """Number of a series, which is added when it is new; raises CorruptData for bytes that are no series key."""
        number = self._numbers.get(key)
        if number is None:
            series = parse_key(key)
            number = self._numbers[key] = len(self.series)
            self.series.append(series)
            self.keys.append(key)
            for tag, value in series.tags:
                self._postings.setdefault(tag, {}).setdefault(value, []).append(number)
        return number

    def numbers(self, keys: Iterable[bytes]) -> Numbers:
        """Numbers of several series, in their order."""
        return np.fromiter((self.number(key) for key in keys), dtype=np.int64)

    def subset(self, measurement: str, numbers: Numbers) -> SeriesSet:
        """Some series with their tags as columns."""
        return SeriesSet.of(measurement, [self.series[number] for number in numbers.tolist()])

    def tag_keys(self) -> frozenset[str]:
        """Tag keys any series has."""
        return frozenset(self._postings)

    def select(self, predicate: TagPredicate) -> Numbers:
        """Numbers of the matching series, ascending."""
        match predicate:
            case TagEquals(key, value, negated):
                return self._with_values(key, {value}, negated)
            case TagMatches(key, pattern, negated):
                compiled = re2.compile(pattern)
                values = {value for value in self._postings.get(key, ()) if compiled.search(value) is not None}
                if compiled.search("") is not None:
                    values.add("")
                return self._with_values(key, values, negated)
            case AllOf(parts):
                chosen = np.arange(len(self.series), dtype=np.int64)
                for part in parts:
                    chosen = np.intersect1d(chosen, self.select(part), assume_unique=True)
                return chosen
            case AnyOf(parts):
                chosen = np.empty(0, dtype=np.int64)
                for part in parts:
                    chosen = np.union1d(chosen, self.select(part))
                return chosen

    def _with_values(self, key: str, values: set[str], negated: bool) -> Numbers:
        """Series whose tag has one of the values; an absent tag has the empty one."""
        postings = self._postings.get(key, {})
        if "" in values:
            # Those with the tag absent are the rest of all that have it with an unwanted value.
            wanted = {value for value in postings if value not in values}
            negated = not negated
        else:
            wanted = values
        lists = [postings[value] for value in wanted if value in postings]
        mask: npt.NDArray[np.bool_] = np.zeros(len(self.series), dtype=np.bool_)
        for numbers in lists:
            mask[numbers] = True
        return np.flatnonzero(~mask if negated else mask)

    def in_key_order(self, numbers: Numbers) -> Numbers:
        """The same numbers ordered by their series' keys."""
        keys = self.keys
        if len(numbers) < _SORT_DIRECTLY:
            return np.array(sorted(numbers.tolist(), key=keys.__getitem__), dtype=np.int64)
        if len(self._ranks) != len(keys):
            order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
            self._ranks = np.empty(len(keys), dtype=np.int64)
            self._ranks[order] = np.arange(len(keys), dtype=np.int64)
        return numbers[np.argsort(self._ranks[numbers])]
