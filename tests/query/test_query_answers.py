"""Answers that differ from InfluxDB 1.x on purpose, refusals of our own, and bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dsdbd.errors import NotFound, RequestError
from dsdbd.influxql.ast import Select
from dsdbd.limits import MAX_QUERY_BUCKETS
from dsdbd.model.scan import Piece, ScanRequest
from dsdbd.query import QueryCancelled, normalise, plan_select, run_partial, shard_schema, sources_of
from tests.query.query_engine import MemoryShard, Row, json_answer, parse_one
from tests.query.sample_data import ROWS, S

NODES = [[MemoryShard(ROWS)]]
NOW = 60 * S


def values(statement: str) -> list[list[object]]:
    answer = json.loads(json_answer(statement, NODES, NOW))
    rows: list[list[object]] = answer["results"][0]["series"][0]["values"]
    return rows


def error(statement: str, now_ns: int = NOW) -> str:
    answer = json.loads(json_answer(statement, NODES, now_ns))
    return str(answer["results"][0]["error"])


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        # 1.x stops after one row when OFFSET stands without LIMIT.
        ("select v from cpu offset 5", [["1970-01-01T00:00:26Z", 0.75], ["1970-01-01T00:00:41Z", 8.125]]),
        # 1.x puts the number itself into string and boolean columns of raw points.
        (
            "select v, s, b from cpu where time >= 26s fill(3)",
            [["1970-01-01T00:00:26Z", 0.75, "z z", False], ["1970-01-01T00:00:41Z", 8.125, "", False]],
        ),
        # 1.x leaves negative whole numbers negative.
        ("select abs(i) from cpu where i < 0", [["1970-01-01T00:00:26Z", 3]]),
        # 1.x shifts the missing lower bound by one bucket, which overflows, and finds nothing.
        (
            "select difference(sum(v)) from cpu where time < 30s group by time(10s)",
            [["1970-01-01T00:00:10Z", 0], ["1970-01-01T00:00:20Z", -5.75]],
        ),
    ],
)
def test_intended_differences(statement: str, expected: list[list[object]]) -> None:
    assert values(statement) == expected


def test_too_many_buckets_are_refused_before_anything_is_read() -> None:
    text = error("select mean(v) from cpu where time > 0 and time < 3650d group by time(1ns)")
    assert str(MAX_QUERY_BUCKETS) in text
    assert "longer" in text


def test_buckets_of_all_groups_together_are_bounded() -> None:
    width = 3 * 10**6
    text = error(
        f"select mean(v) from cpu where time >= 0 and time < {MAX_QUERY_BUCKETS * width * 3 // 4} "
        f"group by time({width}ns), host"
    )
    assert "groups and buckets" in text


def test_an_open_lower_bound_is_bounded_by_the_data() -> None:
    assert "groups and buckets" in error("select mean(v) from cpu group by time(1ns)")
    assert len(values("select mean(v) from cpu group by time(10s)")) == 7


def test_rows_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdbd.query.run.MAX_QUERY_ROWS", 3)
    assert "3" in error("select v from cpu")
    assert values("select mean(v) from cpu") == [["1970-01-01T00:00:00Z", pytest.approx(21.875 / 7)]]


def plan_of(text: str) -> object:
    select = parse_one(text)
    assert isinstance(select, Select)
    schemas = {("d", "autogen"): shard_schema(NODES[0])}
    return plan_select(normalise(select, "d", lambda _: "autogen"), schemas, NOW)


class CountingShard(MemoryShard):
    scans = 0

    def scan(self, request: ScanRequest) -> Iterator[Piece]:
        self.scans += 1
        return super().scan(request)


def test_a_cancelled_query_stops_between_shards() -> None:
    shards = [CountingShard(ROWS, number) for number in range(3)]
    answers = iter([False, True])
    plan = plan_of("select v from cpu")
    with pytest.raises(QueryCancelled):
        run_partial(plan, ("d", "autogen"), shards, lambda: next(answers))  # type: ignore[arg-type]
    assert [shard.scans for shard in shards] == [1, 0, 0]


def test_shards_outside_the_range_are_not_read() -> None:
    shards = [CountingShard(ROWS, 1, 0, 10 * S), CountingShard(ROWS, 2, 10 * S, 20 * S)]
    plan = plan_of("select v from cpu where time >= 12s and time < 15s")
    run_partial(plan, ("d", "autogen"), shards, lambda: False)  # type: ignore[arg-type]
    assert [shard.scans for shard in shards] == [0, 1]


def test_fields_a_shard_lacks_are_missing_values() -> None:
    shards = [
        MemoryShard([Row("m", (), 1, (("a", 1.0),))], 1),
        MemoryShard([Row("m", (), 2, (("b", 2),))], 2),
    ]
    answer = json.loads(json_answer("select a, b from m", [shards], NOW))
    assert [row[1:] for row in answer["results"][0]["series"][0]["values"]] == [[1, None], [None, 2]]


def test_sources_are_filled_in_and_named() -> None:
    select = parse_one('select v from cpu, x..mem, "db"."rp"./^c/')
    assert isinstance(select, Select)
    filled = normalise(select, "d", lambda database: f"{database}_rp")
    places = [source[:2] for source in sources_of(filled)]
    assert places == [("d", "d_rp"), ("x", "x_rp"), ("db", "rp")]
    name = sources_of(filled)[2][2]
    assert not isinstance(name, str)
    assert name.search("cpu")
    with pytest.raises(RequestError, match="database name required"):
        normalise(select, None, lambda _: "autogen")

    def unknown(database: str) -> str:
        raise NotFound(f"database not found: {database}")

    with pytest.raises(NotFound):
        normalise(select, "d", unknown)
