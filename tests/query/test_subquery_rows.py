"""Rows of a subquery as a shard, and what a statement and its subqueries hand to each other."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.errors import RequestError
from dsdbd.influxql.ast import Select
from dsdbd.limits import MAX_QUERY_NESTING
from dsdbd.model.columns import Column
from dsdbd.model.predicate import EVERY_SERIES, TagEquals, TagPredicate
from dsdbd.model.scan import ScanRequest, SeriesSet
from dsdbd.model.series import Series
from dsdbd.model.types import FieldType
from dsdbd.query import (
    NestedPlan,
    SeriesBlock,
    derived_shards,
    merge_schemas,
    normalise,
    plan_nested,
    shard_schema,
)
from dsdbd.query.groups import group_series
from dsdbd.query.ordering import run_starts
from dsdbd.query.plan_types import OutputColumn, SelectPlan, Slot
from tests.query.query_engine import MemoryShard, json_answer, parse_one
from tests.query.sample_data import ROWS, S

NODES = [[MemoryShard(ROWS)]]
HOSTS = ("", "a", "b")


def block_of(rows: list[tuple[int, int, int]], *, ascending: bool) -> SeriesBlock:
    """Rows of (host, time, value) as an answer grouped by host."""
    tags = [(("host", host),) if host else () for host in HOSTS]
    groups, number = group_series(SeriesSet.of("cpu", [Series("cpu", one) for one in tags]), ["host"])
    ordered = sorted(rows, key=lambda row: (row[0], row[1]))
    if not ascending:
        ordered.reverse()
    group = np.array([number[row[0]] for row in ordered], dtype=np.int32)
    times = np.array([row[1] for row in ordered], dtype=np.int64)
    values = np.array([row[2] for row in ordered], dtype=np.int64)
    starts = run_starts(group)
    data = (Column(FieldType.INTEGER, times), Column(FieldType.INTEGER, values))
    return SeriesBlock(groups, group[starts], starts, ("host",), ("time", "v"), data)


def wanting(
    measurement: str, fields: list[str], predicate: TagPredicate = EVERY_SERIES, max_ns: int = 0
) -> ScanRequest:
    return ScanRequest(measurement=measurement, predicate=predicate, min_ns=0, max_ns=max_ns, fields=fields)


def nested_of(*, ascending: bool) -> NestedPlan:
    column = OutputColumn("v", Slot("ref", 0))
    plan = SelectPlan(-(2**62), 2**62, [], [column], [], [], dimensions=["host"], ascending=ascending)
    return NestedPlan(plan, (), ("v",))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 3), st.integers(0, 99)), min_size=1, max_size=40),
    st.booleans(),
    st.integers(1, 9),
)
def test_every_row_is_read_once_and_each_series_has_each_time_once(
    rows: list[tuple[int, int, int]], ascending: bool, most_rows: int
) -> None:
    seen: list[tuple[str, int, int]] = []
    moments: Counter[tuple[bytes, int]] = Counter()
    block = block_of(rows, ascending=ascending)
    for shard in derived_shards([block], nested_of(ascending=ascending), 0, most_rows):
        for piece in shard.scan(wanting("cpu", ["v", "host"])):
            index = piece.spread(np.arange(len(piece.series), dtype=np.int32))
            keys = piece.series.series_keys()
            hosts = piece.series.texts("host")
            assert piece.fields["host"].values.to_pylist() == [hosts[at] for at in index.tolist()]
            values = piece.fields["v"].values.tolist()
            for at, time_ns, value in zip(index.tolist(), piece.time_ns.tolist(), values, strict=True):
                seen.append((hosts[at], time_ns, value))
                moments[keys[at], time_ns] += 1
            for start, length in zip(piece.run_starts.tolist(), piece.run_lengths().tolist(), strict=True):
                assert bool((np.diff(piece.time_ns[start : start + length]) > 0).all())
    assert sorted(seen) == sorted((HOSTS[host], time_ns, value) for host, time_ns, value in rows)
    assert set(moments.values()) == {1}


def test_a_shard_of_a_subquery_knows_only_its_measurements_and_its_columns() -> None:
    (shard,) = derived_shards([block_of([(1, 1, 7)], ascending=True)], nested_of(ascending=True), 0, 10)
    assert shard.measurements() == ["cpu"]
    assert not list(shard.scan(wanting("mem", ["v"], max_ns=9)))
    absent = TagEquals("region", "", negated=True)
    assert not list(shard.scan(wanting("cpu", ["v"], predicate=absent, max_ns=9)))
    (piece,) = shard.scan(wanting("cpu", ["v", "nothing"], max_ns=9))
    assert list(piece.fields) == ["v"]


def plans(statement: str) -> NestedPlan:
    select = parse_one(statement)
    assert isinstance(select, Select)
    schema = merge_schemas([shard_schema(shards) for shards in NODES])
    return plan_nested(normalise(select, "d", lambda _: "autogen"), {("d", "autogen"): schema}, 60 * S)


def test_range_grouping_and_direction_are_handed_on() -> None:
    nested = plans(
        "select max(m) from (select mean(v) as m from cpu where time < 40s group by host) "
        "where time >= 10s and time < 50s group by time(10s), region order by time desc"
    )
    inner = nested.inner[0].plan
    assert (inner.min_ns, inner.max_ns) == (10 * S, 40 * S - 1)
    assert (inner.dimensions, inner.interval_ns, inner.ascending, inner.fill) == (
        ["host", "region"],
        10 * S,
        False,
        "none",
    )


def test_only_columns_that_are_read_are_asked_for() -> None:
    assert [ref.name for ref in plans("select mean(v) from (select v, i, s from cpu)").inner[0].plan.refs] == ["v"]
    assert len(plans("select v from (select v, i, s from cpu)").inner[0].plan.refs) == 3
    assert len(plans("select mean(v) from (select v, i, s from cpu limit 2)").inner[0].plan.refs) == 3
    two = plans("select max(a) from (select mean(v) as a, sum(i) as b from cpu group by host)").inner[0].plan
    assert [call.function for call in two.calls] == ["mean"]


@pytest.mark.parametrize(
    ("statement", "limit"),
    [
        ("select v from (select v from cpu) limit 3 offset 1", 4),
        ("select v from (select v from cpu limit 2) limit 3", 2),
        ("select v from (select v from cpu) where v > 1 limit 3", 0),
        ("select max(v) from (select v from cpu) limit 3", 0),
    ],
)
def test_a_limit_reaches_a_subquery_of_points_where_nothing_is_filtered(statement: str, limit: int) -> None:
    assert plans(statement).inner[0].plan.limit == limit


def values(statement: str) -> list[list[object]]:
    answer = json.loads(json_answer(statement, NODES, 60 * S))
    rows: list[list[object]] = answer["results"][0]["series"][0]["values"]
    return rows


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        # LIMIT in a subquery counts rows of each series of it; 1.x begins anew wherever the series changes.
        ("select sum(v) from (select v from cpu group by host limit 1)", [["1970-01-01T00:00:00Z", 4]]),
        # SLIMIT in a subquery counts its series; 1.x counts those of the outermost statement.
        ("select sum(s) from (select sum(v) as s from cpu group by host slimit 1)", [["1970-01-01T00:00:00Z", 14.125]]),
        # Windows that begin before the time range count; in 1.x the answer is empty.
        (
            "select count(c) from (select count(v) as c from cpu group by time(10s)) where time >= 1s and time < 30s",
            [["1970-01-01T00:00:01Z", 3]],
        ),
        # fill() gives each series its own windows; 1.x begins anew wherever the series changes.
        (
            (
                "select count(c) from (select count(v) as c from cpu group by time(10s), host fill(0)) "
                "where time >= 0s and time < 50s"
            ),
            [["1970-01-01T00:00:00Z", 10]],
        ),
        # Rows of points are ordered by time; in 1.x those of selectors are ordered by the tags of the subquery.
        (
            "select m from (select max(v) as m from cpu group by region)",
            [["1970-01-01T00:00:11Z", 4], ["1970-01-01T00:00:41Z", 8.125]],
        ),
        # A tag that is a column of a subquery and a tag of another source is one column of *; in 1.x it comes twice.
        ("select * from (select v, host from cpu), mem where v > 7", [["1970-01-01T00:00:41Z", "a", None, 8.125]]),
        # A missing boolean is neither equal nor unequal, as in stored points; 1.x takes it for false.
        (
            "select s from (select s, b from cpu) where s =~ /x|y/ and b != true",
            [["1970-01-01T00:00:01.000000001Z", "y"]],
        ),
    ],
)
def test_differences_from_influxdb_are_as_written_down(statement: str, expected: list[list[object]]) -> None:
    assert values(statement) == expected


def test_subqueries_are_read_at_any_depth_up_to_a_bound() -> None:
    def deep(levels: int) -> str:
        return "select v from (" * levels + "select v from cpu" + ")" * levels

    assert values(deep(30)) == values("select v from cpu")
    answer = json.loads(json_answer(deep(MAX_QUERY_NESTING + 1), NODES, 60 * S))
    assert "nest" in str(answer)


def test_a_type_error_in_the_outermost_statement_is_told() -> None:
    with pytest.raises(RequestError, match=r"type error: v::float \+ s::string: incompatible types: float and string"):
        plans("select v + s from (select v, s from cpu)")
