"""What a shard gives to a query: a set of series with their tags as columns, and pieces of sorted rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Column, Int32s, Int64s
from dsdbd.model.predicate import TagPredicate
from dsdbd.model.series import Series, parse_key
from dsdbd.model.texts import Texts

_FEW = 64
"""So few series are handled without Arrow, whose calls cost more than they save."""


@dataclass(frozen=True, slots=True)
class TagColumn:
    """One tag of n series: ``codes`` int32[n] are positions in ``values``, -1 where a series lacks the tag.

    ``values`` are distinct and never empty; it may hold values that no series of the set has. Where there may be many
    of them they are ``Texts``.
    """

    codes: Int32s
    values: Sequence[str]

    def to_arrow(self) -> Any:
        """The tag of each series, an Arrow ``large_string`` array, null where the series lacks it."""
        absent = self.codes < 0
        mask = absent if absent.any() else None
        return Texts.of(self.values).array.take(pa.array(self.codes, mask=mask))

    def distinct(self) -> Any:
        """The values that some series has, an Arrow ``large_string`` array in no particular order."""
        marks = np.zeros(len(self.values) + 1, dtype=np.bool_)
        marks[self.codes] = True  # -1 marks the last one
        return Texts.of(self.values).take(np.flatnonzero(marks[:-1]))


class KeyColumn(Sequence[bytes]):
    """Canonical keys that are built when they are asked for, many at a time at little cost each."""

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self.key(number) for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        return self.key(number)

    @abstractmethod
    def key(self, number: int) -> bytes:
        """One key, by a number from 0 to less than there are."""

    @abstractmethod
    def array(self, numbers: Int64s) -> Any:
        """Keys of some series as an Arrow ``large_string`` array."""

    @abstractmethod
    def in_order(self, numbers: Int64s) -> Int64s:
        """The same numbers ordered by their keys."""


@dataclass(frozen=True, slots=True)
class SeriesSet:
    """n distinct series of one measurement, in no particular order.

    ``all_keys[numbers[i]]`` is the canonical key of series i; ``numbers`` is int64[n]. ``tags`` holds every tag key
    that a series of the set may have.
    """

    measurement: str
    all_keys: Sequence[bytes]
    numbers: Int64s
    tags: Mapping[str, TagColumn]

    def __len__(self) -> int:
        return len(self.numbers)

    def series_keys(self) -> list[bytes]:
        """The canonical keys."""
        keys = self.all_keys
        if isinstance(keys, KeyColumn) and len(self) > _FEW:
            found: list[bytes] = self.key_array().cast(pa.large_binary()).to_pylist()
            return found
        return [keys[number] for number in self.numbers.tolist()]

    def key_array(self) -> Any:
        """The canonical keys as an Arrow ``large_string`` array."""
        if isinstance(self.all_keys, KeyColumn):
            return self.all_keys.array(self.numbers)
        return pa.array(self.series_keys(), pa.large_binary()).cast(pa.large_string())

    def first_keys(self, count: int) -> Any:
        """The first ``count`` keys in their order, as an Arrow ``large_string`` array."""
        if isinstance(self.all_keys, KeyColumn):
            return self.all_keys.array(self.all_keys.in_order(self.numbers)[:count])
        keys = self.key_array()
        return keys.take(pc.sort_indices(keys)[:count])

    def texts(self, tag_key: str) -> list[str]:
        """Each series' value of a tag, empty where it has none."""
        column = self.tags.get(tag_key)
        if column is None:
            return [""] * len(self)
        values = column.values
        if isinstance(values, Texts) and len(self) > _FEW:
            texts: list[str] = pc.fill_null(column.to_arrow(), "").to_pylist()
            return texts
        return [values[code] if code >= 0 else "" for code in column.codes.tolist()]

    @staticmethod
    def of(measurement: str, series: Sequence[Series]) -> SeriesSet:
        """The set of some series, for small sets and tests; indexes make theirs from their own columns."""
        tags = {}
        for tag_key in sorted({name for one in series for name, _ in one.tags}):
            places: dict[str, int] = {}
            codes = [places.setdefault(text, len(places)) if (text := one.tag(tag_key)) else -1 for one in series]
            tags[tag_key] = TagColumn(np.array(codes, dtype=np.int32), tuple(places))
        keys = [one.key() for one in series]
        return SeriesSet(measurement, keys, np.arange(len(keys), dtype=np.int64), tags)

    def parsed(self) -> list[Series]:
        """The series one by one, parsed from their keys."""
        return [parse_key(key) for key in self.series_keys()]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a scan, sorted by run, and by time within a run.

    ``series``: shared by all pieces of one scan. ``run_series``: int32[r], position in ``series`` of each run.
    ``run_starts``: int64[r], first row of each run; every run has at least one row. ``time_ns``: int64[n].
    ``fields``: field key to a Column of n rows. A scan gives each (series, time) once; a series may have runs in
    several pieces, of any times.
    """

    series: SeriesSet
    run_series: Int32s
    run_starts: Int64s
    time_ns: Int64s
    fields: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.time_ns)

    def run_lengths(self) -> Int64s:
        """Rows of each run, int64[r]."""
        return np.diff(np.append(self.run_starts, len(self.time_ns)))

    def spread(self, per_series: Int32s) -> Int32s:
        """A value per series of the set as a value per row."""
        return np.repeat(per_series[self.run_series], self.run_lengths())


@dataclass(frozen=True, slots=True)
class Edge:
    """A hint: of each series only the ``count`` oldest (or ``newest``) rows that the scan would give are needed."""

    count: int
    newest: bool


class ScanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan gives: rows of one measurement's series for which ``predicate`` holds, within inclusive times.

    Only rows with a value in one of ``fields`` count (all when it is empty); a field that is not stored is left out of
    the result.
    """

    measurement: str
    predicate: TagPredicate
    min_ns: int
    max_ns: int
    fields: Sequence[str]
    edge: Edge | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """About what a shard holds of a measurement: never less rows, never a shorter time range, than there is."""

    rows: int
    min_ns: int
    max_ns: int
