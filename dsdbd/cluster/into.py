"""SELECT INTO: the rows of an answer become points again, in columns, a bounded number at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from dsdbd import query
from dsdbd.cluster.acks import Consistency
from dsdbd.errors import PartialWrite, RequestError
from dsdbd.influxql import ast
from dsdbd.limits import INTO_ROWS, MAX_KEY_BYTES
from dsdbd.meta import views
from dsdbd.model.columns import Bools, Column, Int32s, Points
from dsdbd.model.series import Series
from dsdbd.model.types import FieldType
from dsdbd.query import SeriesBlock, SeriesRows
from dsdbd.query.columns import plain_strings
from dsdbd.query.ordering import number_rows
from dsdbd.query.plan_check_calls import PICKS
from dsdbd.query.rows import slice_columns

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import Cancellation, ReadPath
    from dsdbd.cluster.writes import WritePath

TIME = "time"


@dataclass(frozen=True, slots=True)
class Into:
    """What a SELECT INTO needs of a node to read and to write; ``consistency`` is that of its writes."""

    node: Node
    reads: ReadPath
    writes: WritePath
    consistency: Consistency = Consistency.ONE

    async def run(
        self,
        statement: ast.Select,
        *,
        database: str,
        policy: str = "",
        now_ns: int,
        cancelled: Cancellation,
    ) -> int:
        """Carry out a SELECT INTO now and give the number of points written.

        It may be run again after a failure, because equal points replace each other.

        Args:
            statement: with a target; where it names no database or policy, those below are meant.
            database: of the request, or of the continuous query.
            policy: of the request; empty for the default one of the database.
            now_ns: what ``now()`` is.
            cancelled: ends the reading; what was written stays.

        Raises:
            RequestError, NotFound, ShardUnavailable, QueryCancelled: as a SELECT and a write do.
            PartialWrite: some points could not be stored; with InfluxDB's text. Points before them are stored.

        """
        named = named_select(statement, database, default_policy(self.node, database, policy))
        target = named.target
        assert target is not None
        assert target.database is not None
        assert target.retention_policy is not None
        written = 0
        tags = picked_tags(named)
        if tags:
            named = replace(named, target=None)  # so that the answer has columns for them
        parts = await self.reads.select(without_empty_windows(named), now_ns, cancelled)
        async with contextlib.aclosing(parts):
            async for part in parts:
                for block in part.series:
                    assert isinstance(block, SeriesBlock)
                    pieces = points_of(block, target.name, tags)
                    while points := await cancelled.guard(self.reads.work(next, pieces, None)):
                        await self._store(target.database, target.retention_policy, points)
                        written += sum(map(len, points))
        return written

    async def _store(self, database: str, policy: str, points: list[Points]) -> None:
        dropped = await self.writes.write(database=database, policy=policy, points=points, consistency=self.consistency)
        if dropped:
            raise PartialWrite(f"partial write: {dropped[0].reason} dropped={sum(drop.count for drop in dropped)}")


def default_policy(node: Node, database: str, policy: str) -> Callable[[str], str]:
    """What policy is meant in a database where a statement names none: the request's own in the request's database."""

    def named(asked: str) -> str:
        return views.policy(node.metadata.state, asked, policy if asked == database else "").name

    return named


def named_select(statement: ast.Select, database: str, policy_of: Callable[[str], str]) -> ast.Select:
    """The statement with database and policy of its sources and of its target; raises RequestError, NotFound."""
    named = query.normalise(statement, database or None, policy_of)
    if named.target is None:
        return named
    place = named.target.database or database
    if not place:
        raise RequestError("database name required")
    policy = named.target.retention_policy
    known = policy_of(place)
    return replace(named, target=replace(named.target, database=place, retention_policy=policy or known))


def without_empty_windows(statement: ast.Select) -> ast.Select:
    """The statement whose rows are written: empty windows give no points, so that they need not be made."""
    if statement.fill is ast.FillKind.NULL and any(isinstance(one, ast.Call) for one in statement.dimensions):
        statement = replace(statement, fill=ast.FillKind.NONE)
    return statement


def picked_tags(statement: ast.Select) -> tuple[str, ...]:
    """The tags named inside ``top`` and ``bottom``, which are tags of the points written, too."""
    return tuple(
        arg.name
        for field in statement.fields
        if isinstance(field.expr, ast.Call) and field.expr.name in PICKS
        for arg in field.expr.args[1:-1]
        if isinstance(arg, ast.VarRef)
    )


def points_of(
    block: SeriesBlock, name: str, tags: Sequence[str] = (), most_rows: int = INTO_ROWS
) -> Iterator[list[Points]]:
    """The points of an answer, up to ``most_rows`` at a time; GROUP BY tags are tags, other columns fields.

    ``name``: their measurement, empty for each one's own. ``tags``: columns that are tags, too. As in InfluxDB 1.x rows
    are left out that have no value or an infinite one, or whose series has too long a key. Raises RequestError when the
    times have another title.
    """
    if block.columns[0] != TIME:
        raise RequestError("error finding time index in result")
    ends = np.append(block.starts[1:], len(block))
    for start in range(0, len(block), most_rows):
        stop = min(start + most_rows, len(block))
        first, last = (int(np.searchsorted(ends, row, side="right")) for row in (start, stop - 1))
        index = np.repeat(
            np.arange(last - first + 1, dtype=np.int32),
            np.diff(np.clip(np.append(block.starts[first : last + 1], ends[last]), start, stop)),
        )
        series = [_series(block, number, name) for number in range(first, last + 1)]
        times, *values = slice_columns(block.data, start, stop)
        columns = dict(zip(block.columns[1:], values, strict=True))
        for tag in tags:
            series, index = _with_tag(series, index, tag, columns.pop(tag, None))
        fields = _fields(columns.items())
        names = [one.measurement for one in series]
        points = Points("", [one.key() for one in series], index, times.values, fields)
        found = list(_by_measurement(names, points))
        if found:
            yield found


def _series(block: SeriesBlock, number: int, name: str) -> Series:
    measurement, tags = block.name_and_tags(number)
    return Series(name or measurement, tuple(sorted((key, text) for key, text in (tags or {}).items() if text)))


def _with_tag(series: list[Series], index: Int32s, tag: str, column: Column | None) -> tuple[list[Series], Int32s]:
    """The series with one more tag, whose value each row has in a column; what is no text is no tag."""
    if column is None or column.type is not FieldType.STRING:
        return series, index
    coded = column.to_arrow().fill_null("").dictionary_encode()
    codes, texts = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    one_each, number = number_rows([index, codes], [len(series), len(texts)], len(index))
    found = []
    for old, code in zip(index[one_each].tolist(), codes[one_each].tolist(), strict=True):
        others = [pair for pair in series[old].tags if pair[0] != tag]
        own = [(tag, texts[code])] if texts[code] else []
        found.append(Series(series[old].measurement, tuple(sorted(others + own))))
    return found, number


def _fields(columns: Iterable[tuple[str, Column]]) -> dict[str, Column]:
    """The columns in which some row has a value; a field named like the time cannot be."""
    return {
        title: plain_strings(column)
        for title, column in columns
        if title != TIME and (column.valid is None or bool(column.valid.any()))
    }


def _by_measurement(names: list[str], points: Points) -> Iterator[Points]:
    """Points for each measurement, those left out that cannot be stored; ``names``: the measurement of each series."""
    good = _storable(points)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    measurement = np.array([numbers[name] for name in names], dtype=np.int32)[points.series_index]
    for name, number in numbers.items():
        rows = np.flatnonzero(good & (measurement == number))
        if len(rows):
            whole = Points(name, points.series, points.series_index, points.time_ns, points.fields)
            part = whole if len(rows) == len(points) else whole.take(rows)
            yield Points(part.measurement, part.series, part.series_index, part.time_ns, _fields(part.fields.items()))


def _storable(points: Points) -> Bools:
    short = np.array([len(key) <= MAX_KEY_BYTES for key in points.series], dtype=np.bool_)
    some, good = np.zeros(len(points), dtype=np.bool_), short[points.series_index]
    for column in points.fields.values():
        valid = np.ones(len(points), dtype=np.bool_) if column.valid is None else column.valid
        some |= valid
        if column.type is FieldType.FLOAT:
            good = good & (np.isfinite(column.values) | ~valid)
    return some & good


def written_rows(count: int) -> SeriesRows:
    """The answer of a SELECT INTO."""
    data = tuple(Column(FieldType.INTEGER, np.array([value], dtype=np.int64)) for value in (0, count))
    return SeriesRows("result", None, (TIME, "written"), data)
