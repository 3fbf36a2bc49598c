"""Rows of an answer as points: which are left out, what is a tag and what a field, in pieces of any size."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.into import picked_tags, points_of
from dsdbd.errors import RequestError
from dsdbd.influxql.ast import Select
from dsdbd.model.series import parse_key
from dsdbd.query import finish, merge, merge_schemas, normalise, plan_select, run_partial, shard_schema
from tests.query.query_engine import MemoryShard, Row, parse_one
from tests.query.sample_data import ROWS, S

if TYPE_CHECKING:
    from dsdbd.model.columns import Points
    from dsdbd.query import SeriesBlock

Stored = dict[tuple[str, tuple[tuple[str, str], ...], int], dict[str, object]]
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def blocks(statement: str, rows: list[Row]) -> list[SeriesBlock]:
    select = parse_one(statement)
    assert isinstance(select, Select)
    shard = MemoryShard(rows)
    schemas = {("d", "autogen"): merge_schemas([shard_schema([shard])])}
    plan = plan_select(normalise(select, "d", lambda _: "autogen"), schemas, 60 * S)
    return list(finish(plan, merge(plan, [run_partial(plan, ("d", "autogen"), [shard], lambda: False)])))


def stored(parts: list[list[Points]]) -> Stored:
    found: Stored = {}
    for points in (one for part in parts for one in part):
        columns = {name: (column.to_arrow().to_pylist()) for name, column in points.fields.items()}
        for row, (index, time_ns) in enumerate(zip(points.series_index.tolist(), points.time_ns.tolist(), strict=True)):
            series = parse_key(points.series[index])
            assert series.measurement == points.measurement
            values = {name: column[row] for name, column in columns.items() if column[row] is not None}
            found.setdefault((series.measurement, series.tags, time_ns), {}).update(values)
    return found


def copied(statement: str, rows: list[Row], name: str = "", most_rows: int = 4) -> Stored:
    select = parse_one(statement)
    assert isinstance(select, Select)
    tags = picked_tags(select)
    return stored([part for block in blocks(statement, rows) for part in points_of(block, name, tags, most_rows)])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99), FLOATS, st.booleans()), min_size=1, max_size=30),
    st.integers(1, 9),
)
def test_a_copy_with_all_tags_is_what_was_read(rows: list[tuple[str, int, float, bool]], most_rows: int) -> None:
    points = [
        Row(f"m{host}", (("host", host),) if host != "c" else (), time, (("v", value),) if some else (("i", time),))
        for host, time, value, some in rows
    ]
    expected: Stored = {}
    for row in points:
        expected.setdefault((row.measurement, row.tags, row.time_ns), {}).update(row.fields)
    assert copied("select * from /m./ group by *", points, "", most_rows) == expected


def test_tags_that_are_not_grouped_by_become_fields() -> None:
    found = copied("select v, region from cpu where time < 2s", ROWS, "x")
    assert found == {
        ("x", (), S): {"v": 1.0, "region": "eu"},
        ("x", (), S + 1): {"v": 3.0, "region": "us"},
    }


def test_tags_that_top_picks_stay_tags() -> None:
    found = copied("select top(v, host, 2) from cpu", ROWS, "x")
    assert found == {
        ("x", (("host", "b"),), 11 * S): {"top": 4.0},
        ("x", (("host", "a"),), 41 * S): {"top": 8.125},
    }


def test_rows_without_values_and_with_infinite_ones_are_left_out() -> None:
    rows = [
        Row("m", (), 1, (("v", 1.0), ("w", 2.0))),
        Row("m", (), 2, (("v", math.inf), ("w", 2.0))),
        Row("m", (), 3, (("u", 1.0),)),
    ]
    assert copied("select v, w from m", rows, "x") == {("x", (), 1): {"v": 1.0, "w": 2.0}}
    assert copied("select mean(v) from m where time >= 0 and time < 10 group by time(1ns)", rows[:1], "x") == {
        ("x", (), 1): {"mean": 1.0}
    }


def test_the_column_of_times_must_have_its_name() -> None:
    (block,) = blocks("select time as t, v from cpu", ROWS)
    with pytest.raises(RequestError, match="error finding time index in result"):
        list(points_of(block, "x"))


def test_names_are_kept_where_no_name_is_given() -> None:
    names = {name for name, _, _ in copied("select v from cpu, mem", ROWS)}
    assert names == {"cpu", "mem"}, json.dumps(sorted(names))
