"""The rows of a subquery as a shard: the statement around it reads them as it reads what is stored.

Rows of one series may have equal times in the answer of a subquery (raw points of several stored series, or several
values of ``distinct``). The second row of a time is therefore given to a second series with the same tags, the third to
a third one, so that each series has each time once, and the order of the rows shows in the order of the series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Column, Int32s, Int64s
from dsdbd.model.predicate import TagPredicate, matches
from dsdbd.model.scan import Extent, KeyColumn, Piece, ScanRequest, SeriesSet, TagColumn
from dsdbd.model.series import Series
from dsdbd.model.texts import Texts
from dsdbd.model.types import FieldType
from dsdbd.query.columns import plain_strings
from dsdbd.query.groups import GroupSet
from dsdbd.query.ordering import run_lengths, run_starts
from dsdbd.query.plan_nested import NestedPlan
from dsdbd.query.rows import SeriesBlock, slice_columns

_FIRST_NS, _LAST_NS = -(2**63), 2**63 - 1
_DIGITS = 10
"""Of the numbers in keys: there are never as many rows, and texts of equal length are ordered as numbers are."""


def derived_shards(
    blocks: Sequence[SeriesBlock], nested: NestedPlan, number: int, most_rows: int
) -> Iterator[DerivedShard]:
    """Some of the answer of a subquery as shards of about ``most_rows`` rows, so that reading one takes not long.

    ``blocks``: with all rows of each series and time that they have any of. ``number``: which of the statement's
    subqueries it is, from 0.
    """
    for block in blocks:
        group = np.repeat(block.group, run_lengths(block.starts, len(block)))
        moments = run_starts(group, block.data[0].values)
        start = 0
        while start < len(block):
            # Rows of one time stay together, because they are numbered.
            later = int(np.searchsorted(moments, start + most_rows))
            stop = int(moments[later]) if later < len(moments) else len(block)
            data = slice_columns(block.data, start, stop)
            yield DerivedShard.of(_Rows(block.groups, group[start:stop], data, block.dimensions), nested, number)
            start = stop


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of an answer: the group of each, and its columns, of which the first holds times."""

    groups: GroupSet
    group: Int32s
    data: tuple[Column, ...]
    dimensions: tuple[str, ...]

    def take(self, order: Int64s) -> _Rows:
        """Some rows in some order."""
        return _Rows(self.groups, self.group[order], tuple(column.take(order) for column in self.data), self.dimensions)

    def ascending(self, *, falling: bool) -> _Rows:
        """The rows of each group by time; those of an answer that is ``falling`` are turned round."""
        rows = self.take(np.arange(len(self.group) - 1, -1, -1)) if falling else self
        time_ns, group = rows.data[0].values, rows.group
        wrong = (group[1:] < group[:-1]) | ((group[1:] == group[:-1]) & (time_ns[1:] < time_ns[:-1]))
        return rows.take(np.lexsort((time_ns, group)).astype(np.int64)) if bool(wrong.any()) else rows


@dataclass(frozen=True, slots=True)
class DerivedShard:
    """Rows of a subquery, by name of the column; a ShardReader that has every time there is.

    ``names``: where each column that can be asked for is in ``rows.data``. ``groups_of_series``: int32[s], the group of
    each series in ``rows.groups``. ``series_of_row``: int32[n], ascending; times ascend in each series.
    """

    rows: _Rows
    names: Mapping[str, int]
    groups_of_series: Int32s
    keys: _Keys
    series_of_row: Int32s

    shard_id: int = 0
    start_ns: int = _FIRST_NS
    end_ns: int = _LAST_NS

    @staticmethod
    def of(rows: _Rows, nested: NestedPlan, number: int) -> DerivedShard:
        """Some rows of the subquery that ``nested`` is the plan of."""
        rows = rows.ascending(falling=not nested.plan.ascending)
        names: dict[str, int] = {}
        for known in (nested.names, [column.name for column in nested.plan.columns]):
            for place, name in enumerate(known, 1):
                names.setdefault(name, place)
        starts = run_starts(rows.group, rows.data[0].values)
        rank = np.arange(len(rows.group)) - np.repeat(starts, run_lengths(starts, len(rows.group)))
        if bool(rank.any()):
            order = np.lexsort((rank, rows.group)).astype(np.int64)
            rows, rank = rows.take(order), rank[order]
        firsts = run_starts(rows.group, rank) if bool(rank.any()) else run_starts(rows.group)
        series = np.repeat(np.arange(len(firsts), dtype=np.int32), run_lengths(firsts, len(rows.group)))
        groups = rows.group[firsts]
        # InfluxDB 1.x gives aggregates of one time in the order of their tags whatever the direction of the answer.
        backwards = not nested.plan.ascending and bool(nested.plan.calls)
        keys = _Keys(rows.groups, groups, rank[firsts], number, backwards=backwards)
        return DerivedShard(rows, names, groups, keys, series)

    def measurements(self) -> list[str]:
        """Names of the measurements that have rows."""
        names: list[str] = self.rows.groups.names.to_pylist()
        return names

    def tag_keys(self, measurement: str) -> frozenset[str]:
        """What the rows are grouped by."""
        del measurement
        return frozenset(self.rows.dimensions)

    def field_types(self, measurement: str) -> dict[str, FieldType]:
        """The columns that can be asked for."""
        del measurement
        tags = dict.fromkeys(self.rows.dimensions, FieldType.STRING)
        return tags | {name: self.rows.data[place].type for name, place in self.names.items()}

    def extent(self, measurement: str) -> Extent | None:
        """Nothing is said of how many rows there are."""
        del measurement
        return None

    def series(self, measurement: str, predicate: TagPredicate) -> SeriesSet:
        """The series of a measurement. Tags are read as columns, so that a predicate holds for all series or none."""
        chosen = self._series_of(measurement, predicate)
        tags = {}
        for dimension, texts, codes in zip(
            self.rows.dimensions, self.rows.groups.texts, self.rows.groups.codes, strict=True
        ):
            own = codes[self.groups_of_series[chosen]]
            lacking = int(len(texts) > 0 and texts[0].as_py() == "")
            tags[dimension] = TagColumn(own - lacking, Texts(texts[lacking:].cast(pa.large_string())))
        return SeriesSet(measurement, self.keys, chosen, tags)

    def _series_of(self, measurement: str, predicate: TagPredicate) -> Int64s:
        names = self.rows.groups.names.to_pylist()
        if measurement not in names or not matches(predicate, Series(measurement, ())):
            return np.zeros(0, dtype=np.int64)
        of_series = self.rows.groups.name_codes[self.groups_of_series]
        return np.flatnonzero(of_series == names.index(measurement))

    def scan(self, request: ScanRequest) -> Iterator[Piece]:
        """All rows of a measurement: which times count was said where the subquery was asked."""
        series = self.series(request.measurement, request.predicate)
        if not len(series):
            return
        index, time_ns = self.series_of_row, self.rows.data[0].values
        rows: Int64s | None = None
        if len(series) < len(self.groups_of_series):
            places = np.full(len(self.groups_of_series), -1, dtype=np.int32)
            places[series.numbers] = np.arange(len(series), dtype=np.int32)
            rows = np.flatnonzero(places[index] >= 0)
            index, time_ns = places[index[rows]], time_ns[rows]
        columns = {}
        for name in request.fields:
            column = self._column(name)
            if column is not None:
                columns[name] = column if rows is None else column.take(rows)
        starts = run_starts(index)
        yield Piece(series, index[starts], starts, time_ns, columns)

    def _column(self, name: str) -> Column | None:
        """A column of the subquery, or a tag of its rows, empty where there is none; strings by themselves."""
        place = self.names.get(name)
        if place is not None:
            return plain_strings(self.rows.data[place])
        if name not in self.rows.dimensions:
            return None
        dimension = self.rows.dimensions.index(name)
        codes = self.rows.groups.codes[dimension][self.rows.group]
        return Column(FieldType.STRING, self.rows.groups.texts[dimension].take(pa.array(codes)))


class _Keys(KeyColumn):
    """Keys of the series of a subquery: measurement, tags, rank among rows of one time, number of the subquery.

    ``backwards``: the order of measurements and tags is turned round.
    """

    def __init__(self, groups: GroupSet, group: Int32s, rank: Int64s, number: int, *, backwards: bool) -> None:
        self._groups = groups
        self._group = group
        self._rank = rank
        self._number = number
        self._backwards = backwards

    def __len__(self) -> int:
        return len(self._group)

    def key(self, number: int) -> bytes:
        """One key."""
        text: str = self.array(np.array([number], dtype=np.int64))[0].as_py()
        return text.encode()

    def array(self, numbers: Int64s) -> Any:
        """Keys of some series as an Arrow ``large_string`` array."""
        groups, group = self._groups, self._group[numbers]
        parts: list[Any] = []
        if self._backwards:
            parts.append(_digits(len(groups) - 1 - group))
        parts.append(groups.names.take(pa.array(groups.name_codes[group])))
        parts += [texts.take(pa.array(codes[group])) for texts, codes in zip(groups.texts, groups.codes, strict=True)]
        rank = _digits(self._rank[numbers])
        last = pa.repeat(pa.scalar(str(self._number).zfill(_DIGITS)), len(numbers))
        wide = [part.cast(pa.large_string()) for part in (*parts, rank, last)]
        return pc.binary_join_element_wise(*wide, pa.scalar("\0", pa.large_string()))

    def in_order(self, numbers: Int64s) -> Int64s:
        """The same numbers ordered by their keys."""
        order: Int64s = numbers[pc.sort_indices(self.array(numbers)).to_numpy().astype(np.int64)]
        return order


def _digits(numbers: Int64s | Int32s) -> Any:
    return pc.utf8_lpad(pa.array(numbers).cast(pa.string()), _DIGITS, "0")
