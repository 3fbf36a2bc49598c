"""Answers: rows of one series as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dsdbd.model.columns import Column, Int32s, Int64s
from dsdbd.query.groups import GroupSet
from dsdbd.query.ordering import run_lengths


@dataclass(frozen=True, slots=True)
class SeriesRows:
    """Rows of one group, or of one table of a SHOW statement.

    ``columns`` are the titles, ``data`` one Column per title, all of the same length. ``time_column`` is the
    position of the column that holds times (int64 nanoseconds since the epoch), None where there is none.
    ``tags`` is None without GROUP BY tags. ``partial``: more rows of this series follow. ``timezone``: that in which
    times are written as RFC3339, "" for UTC.
    """

    name: str
    tags: dict[str, str] | None
    columns: tuple[str, ...]
    data: tuple[Column, ...]
    time_column: int | None = 0
    partial: bool = False
    timezone: str = ""

    def __len__(self) -> int:
        return len(self.data[0]) if self.data else 0

    def slice(self, start: int, stop: int, *, partial: bool) -> SeriesRows:
        """Rows start to stop, without copying."""
        data = slice_columns(self.data, start, stop)
        return SeriesRows(self.name, self.tags, self.columns, data, self.time_column, partial, self.timezone)


@dataclass(frozen=True, slots=True)
class SeriesBlock:
    """Rows of many series with the same titles, one series after another: iterating gives each as SeriesRows.

    ``groups``: names and tags of groups; ``group``: int32[s], the group of each series; ``starts``: int64[s], its
    first row. ``dimensions``: the keys of the tags. ``columns`` and ``data`` are as in SeriesRows, of all rows; the
    first column holds times. ``timezone`` is as in SeriesRows.
    """

    groups: GroupSet
    group: Int32s
    starts: Int64s
    dimensions: tuple[str, ...]
    columns: tuple[str, ...]
    data: tuple[Column, ...]
    timezone: str = ""

    def __len__(self) -> int:
        return len(self.data[0])

    def __iter__(self) -> Iterator[SeriesRows]:
        lengths = run_lengths(self.starts, len(self))
        for number, (start, length) in enumerate(zip(self.starts.tolist(), lengths.tolist(), strict=True)):
            name, tags = self.name_and_tags(number)
            data = self.data if length == len(self) else slice_columns(self.data, start, start + length)
            yield SeriesRows(name, tags, self.columns, data, timezone=self.timezone)

    def name_and_tags(self, number: int) -> tuple[str, dict[str, str] | None]:
        """Measurement and tags of one series; no tags without GROUP BY tags."""
        key = self.groups.key(int(self.group[number]))
        return key.measurement, dict(zip(self.dimensions, key.tags, strict=True)) if self.dimensions else None

    def series(self, first: int, last: int) -> SeriesBlock:
        """The series from ``first`` up to, not including, ``last``, without copying their rows."""
        start = int(self.starts[first])
        stop = int(self.starts[last]) if last < len(self.starts) else len(self)
        data = slice_columns(self.data, start, stop)
        starts = self.starts[first:last] - start
        group = self.group[first:last]
        return SeriesBlock(self.groups, group, starts, self.dimensions, self.columns, data, self.timezone)


def each_series(series: Iterable[SeriesRows | SeriesBlock]) -> Iterator[SeriesRows]:
    """Every series by itself."""
    for rows in series:
        if isinstance(rows, SeriesBlock):
            yield from rows
        else:
            yield rows


def slice_columns(columns: tuple[Column, ...], start: int, stop: int) -> tuple[Column, ...]:
    """Rows start to stop of every column, without copying."""
    return tuple(
        Column(column.type, column.values[start:stop], None if column.valid is None else column.valid[start:stop])
        for column in columns
    )
