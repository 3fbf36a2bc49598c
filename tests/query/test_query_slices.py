"""A query divided into small slices answers as the whole does, and reads no more than it must."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.influxql.ast import Select
from dsdbd.model.scan import Edge, Extent, Piece, ScanRequest
from dsdbd.query import (
    Ask,
    Partial,
    SeriesRows,
    TooManyRows,
    decode_partial,
    decode_plan,
    decode_schema,
    divide,
    encode_partial,
    encode_plan,
    encode_schema,
    finish,
    merge,
    merge_schemas,
    normalise,
    plan_select,
    run_groups,
    run_partial,
    shard_schema,
)
from dsdbd.query.rows import each_series
from dsdbd.query.slicing import Density
from tests.examples import examples
from tests.query.query_engine import MemoryShard, Row, parse_one

SOURCE = ("d", "autogen")


class Told(MemoryShard):
    """A shard that counts the rows it gives, and makes use of the edge hint as a real one may."""

    def __init__(self, rows: Sequence[Row], shard_id: int = 1) -> None:
        super().__init__(rows, shard_id)
        self.given = 0

    def scan(self, request: ScanRequest) -> Iterator[Piece]:
        for whole in super().scan(request):
            piece = whole if request.edge is None else cut(whole, request.edge, request.fields)
            self.given += len(piece)
            yield piece


def cut(piece: Piece, edge: Edge, fields: Sequence[str]) -> Piece:
    """The rows of a piece that the hint asks for; only rows with a value count."""
    kept: list[int] = []
    starts = []
    columns = [piece.fields[name] for name in fields if name in piece.fields]
    for start, length in zip(piece.run_starts.tolist(), piece.run_lengths().tolist(), strict=True):
        starts.append(len(kept))
        rows = range(start, start + length)
        wanted: list[int] = []
        count = 0
        for row in reversed(rows) if edge.newest else rows:
            if count == edge.count:
                break
            wanted.append(row)
            count += any(column.valid is None or bool(column.valid[row]) for column in columns)
        kept += sorted(wanted)
    rows_kept = np.array(kept, dtype=np.int64)
    taken = {name: column.take(rows_kept) for name, column in piece.fields.items()}
    return Piece(piece.series, piece.run_series, np.array(starts), piece.time_ns[rows_kept], taken)


@dataclass
class Answered:
    rows: dict[Any, list[list[object]]]
    order: list[Any]
    asked: int
    refused: int


def select(text: str, nodes: Sequence[Sequence[MemoryShard]], goal: int = 0) -> Answered:
    """The answer by the steps of ``divide``, everything crossing the wire; goal 0 asks for all at once."""
    statement = parse_one(text)
    assert isinstance(statement, Select)
    schemas = {SOURCE: merge_schemas([decode_schema(encode_schema(shard_schema(shards))) for shards in nodes])}
    plan = plan_select(normalise(statement, "d", lambda _: "autogen"), schemas, 0)
    found = Answered({}, [], 0, 0)
    if goal == 0:
        whole = merge(plan, [run_partial(plan, SOURCE, shards, lambda: False) for shards in nodes])
        add(found, each_series(finish(plan, whole)), continues=False)
        return found
    steps = divide(plan, schemas, goal)
    reply: Partial | None = None
    last = False
    while True:
        try:
            step = steps.send(reply)
        except StopIteration:
            return found
        assert not last, "nothing follows the last part"
        if isinstance(step, Ask):
            found.asked += 1
            reply = answer(step, nodes)
            found.refused += reply is None
        else:
            reply = None
            last = step.last
            add(found, each_series(finish(step.plan, step.partial)), continues=step.continues)


def answer(step: Ask, nodes: Sequence[Sequence[MemoryShard]]) -> Partial | None:
    plan = decode_plan(encode_plan(step.plan))
    parts = [] if step.onto is None else [step.onto]
    for shards in nodes:
        if step.groups:
            part = run_groups(plan, SOURCE, shards, lambda: False)
        else:
            try:
                part = run_partial(plan, SOURCE, shards, lambda: False, step.most_rows)
            except TooManyRows:
                return None
        parts.append(decode_partial(plan, encode_partial(part)))
    return merge(plan, parts)


def add(found: Answered, series: Iterator[SeriesRows], *, continues: bool) -> None:
    for rows in series:
        key = (rows.name, *(rows.tags or {}).items())
        lines = [list(row) for row in zip(*(column.to_arrow().to_pylist() for column in rows.data), strict=True)]
        assert lines
        if continues:
            assert found.order[-1] == key
            found.rows[key] += lines
        else:
            assert key not in found.rows
            found.rows[key] = lines
            found.order.append(key)
        continues = False


rows_drawn = st.builds(
    lambda name, host, rack, time, x, s: Row(
        name,
        tuple((key, value) for key, value in (("host", host), ("rack", rack)) if value),
        time,
        tuple((key, value) for key, value in (("x", x), ("s", s)) if value is not None),
    ),
    st.sampled_from("mmmn"),
    st.sampled_from(("a", "b", "c", "d", "")),
    st.sampled_from(("r", "q", "")),
    st.one_of(st.integers(-20, 20), st.integers(0, 3), st.sampled_from((-1_000_000, 1_000_000))),
    st.none() | st.integers(-9, 9),
    st.none() | st.sampled_from(("u", "v")),
).filter(lambda row: row.fields)


@st.composite
def clusters(draw: st.DrawFn) -> list[list[Told]]:
    """Points, each series and time once, dealt out to shards on up to three nodes."""
    drawn = draw(st.lists(rows_drawn, max_size=60))
    unique = {(row.measurement, row.tags, row.time_ns): row for row in drawn}
    shards: dict[int, list[Row]] = defaultdict(list)
    for row in unique.values():
        shards[draw(st.integers(0, 5))].append(row)
    return [[Told(shards[number], number) for number in range(node, 6, 3)] for node in range(3)]


CONDITIONS = st.sampled_from(
    (
        "",
        "where host = 'a'",
        "where host =~ /[ab]/ and time > -15",
        "where x > 0",
        "where x > 0 and time >= -10 and time < 12",
        "where time >= -20 and time <= 20",
        "where host != '' or s = 'u'",
    )
)
GROUPS = st.sampled_from(("", "group by host", "group by rack, host", "group by *"))
LIMITS = st.sampled_from(("", "limit 1", "limit 3", "limit 4 offset 2", "offset 3", "limit 100 offset 1"))
SERIES_LIMITS = st.sampled_from(("", "", "slimit 1", "slimit 2 soffset 1", "soffset 1"))


@settings(max_examples=examples(250), deadline=None)
@given(
    clusters(),
    st.sampled_from(("x", "x, s", "*", "x, host", "s, x::float", "x + 1")),
    st.sampled_from(("m", "m, n", "/./")),
    CONDITIONS,
    GROUPS,
    st.sampled_from(("", "order by time desc")),
    LIMITS,
    SERIES_LIMITS,
    st.sampled_from((1, 2, 5, 20)),
)
def test_slices_answer_as_the_whole(
    nodes: list[list[Told]],
    fields: str,
    source: str,
    condition: str,
    group: str,
    order: str,
    limit: str,
    series_limit: str,
    goal: int,
) -> None:
    if fields == "*" and group == "group by *":
        fields = "x"
    text = f"select {fields} from {source} {condition} {group} {order} {limit} {series_limit}"
    whole = select(text, nodes)
    sliced = select(text, nodes, goal)
    assert sliced.rows == whole.rows
    assert sliced.order == whole.order


@settings(max_examples=examples(250), deadline=None)
@given(
    clusters(),
    st.sampled_from(("max(x)", "count(s)", "mean(x), count(s)", "first(x), host", "last(s)", "sum(x) + count(x)")),
    st.sampled_from(("m", "m, n")),
    CONDITIONS,
    st.sampled_from(("", "fill(none)", "fill(previous)", "fill(7)", "fill(linear)")),
    st.sampled_from(("", "order by time desc")),
    st.sampled_from(("limit 1", "limit 2 offset 1", "limit 5", "limit 30")),
    st.sampled_from((1, 4)),
)
def test_buckets_in_slices_answer_as_the_whole(
    nodes: list[list[Told]], call: str, source: str, condition: str, fill: str, order: str, limit: str, goal: int
) -> None:
    text = f"select {call} from {source} {condition} group by time(7ns) {fill} {order} {limit}"
    # Without an upper bound the range ends now, which is 0 here.
    whole = select(text, nodes)
    sliced = select(text, nodes, goal)
    assert sliced.rows == whole.rows
    assert sliced.order == whole.order


def grid(hosts: int, times: int, step: int = 1) -> list[Row]:
    return [
        Row("m", (("host", f"h{host:03}"),), time * step, (("x", host * times + time),))
        for host in range(hosts)
        for time in range(times)
    ]


def asked(text: str, rows: Sequence[Row], goal: int) -> tuple[Answered, int]:
    shard = Told(rows)
    found = select(text, [[shard]], goal)
    given_rows = shard.given
    assert found.rows == select(text, [[Told(rows)]]).rows
    return found, given_rows


def test_a_limit_reads_little_of_either_end() -> None:
    rows = grid(hosts=4, times=1000)
    for order in ("", "order by time desc"):
        _, given_rows = asked(f"select x from m {order} limit 5", rows, 1000)
        assert given_rows <= 100


def test_a_limit_of_groups_reads_the_edge_of_each_series_at_once() -> None:
    found, given_rows = asked("select x from m group by host order by time desc limit 1", grid(20, 100), 100)
    assert (found.asked, given_rows) == (1, 20)


def test_a_limit_of_series_stops_at_the_last_one() -> None:
    _, given_rows = asked("select x from m group by host slimit 2 soffset 3", grid(20, 100), 100)
    assert given_rows <= 3 + 2 * 100


def test_the_newest_buckets_are_read_only() -> None:
    rows = grid(hosts=4, times=1000)
    text = "select max(x) from m where time < 1000 group by time(10ns) order by time desc limit 5"
    found, given_rows = asked(text, rows, 1000)
    assert (found.asked, given_rows) == (1, 200)


def test_a_last_value_reads_one_row_of_each_series() -> None:
    assert asked("select last(x) from m group by host", grid(20, 50), 1000)[1] == 20


def test_what_is_small_is_asked_for_once() -> None:
    for text in ("select * from m", "select x from m group by host limit 3", "select x from m where x > 3"):
        assert asked(text, grid(5, 20), 100)[0].asked == 1


def test_a_small_answer_of_many_rows_is_asked_for_once() -> None:
    for text in ("select x from m where host = 'h001'", "select x from m where x > 900 group by host"):
        assert asked(text, grid(10, 100), 150)[0].asked == 1


def test_a_crowd_in_a_long_stretch_is_divided() -> None:
    rows = [*grid(4, 500), Row("m", (("host", "early"),), -(10**12), (("x", 0),))]
    found, given_rows = asked("select x from m", rows, 100)
    assert 0 < found.refused < 30
    assert given_rows < 5 * len(rows)


def test_a_gap_behind_a_crowd_is_not_crossed_a_nanosecond_at_a_time() -> None:
    rows = [Row("m", (("host", "a"),), time, (("x", 1),)) for time in (*range(-20, 20), 1_000_000)]
    found = select("select x from m where x > 0", [[Told(rows)]], 1)
    assert sum(map(len, found.rows.values())) == 41 and found.asked < 200


def test_slices_grow_where_little_is_found() -> None:
    rows = [Row("m", (), time, (("x", time % 1000),)) for time in range(20_000)]
    found, _ = asked("select x from m where x = 7 limit 30", rows, 500)
    assert found.asked < 12


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(-100, 100), st.integers(0, 60)), max_size=6),
    st.integers(-120, 120),
    st.integers(0, 150),
    st.integers(1, 30),
)
def test_density_counts_and_cuts(parts: list[tuple[int, int, int]], low: int, width: int, rows: int) -> None:
    density = Density([Extent(count, start, start + length) for count, start, length in parts], low, low + width)
    times = range(low, low + width + 1)
    exact = sum(
        count / (length + 1) for count, start, length in parts for time in times if start <= time <= start + length
    )
    assert density.rows == pytest.approx(exact)
    if not density.parts:
        assert density.low > density.high
        return
    assert low <= density.low <= density.high <= low + width
    per_ns = sum(count / (length + 1) for count, _, length in parts)
    for ascending in (True, False):
        at, seen = (density.low, 0.0) if ascending else (density.high, 0.0)
        while density.low <= at <= density.high:
            until = density.cut(at, rows, ascending=ascending)
            first, last = min(at, until), max(at, until)
            assert density.low <= first
            assert last <= density.high
            inside = density.between(first, last)
            assert inside <= rows + per_ns + 1e-6
            seen += inside
            at = until + 1 if ascending else until - 1
        assert seen == pytest.approx(density.rows, abs=1e-6)
