"""SELECT INTO, subqueries and EXPLAIN in three nodes, each of which holds only a part of the points."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.query.influx_reference import line_of, same
from tests.query.sample_data import random_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("into-cluster")]
HOURS = 5
"""The points of ``random_rows``, which are of one hour, are spread over so many, each with a shard."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    cluster = Cluster(tmp_path_factory.mktemp("into"))
    nodes = cluster.grow(3)
    statement = "CREATE DATABASE d WITH REPLICATION 1 SHARD DURATION 1h; CREATE DATABASE other WITH REPLICATION 2"
    assert "error" not in str(nodes[0].query(statement))
    wait_until(lambda: all(["other"] in node.rows("SHOW DATABASES") for node in nodes), "all know the databases")
    lines = [line_of(replace(row, time_ns=row.time_ns * HOURS)) for row in random_rows(1)]
    assert nodes[0].write("\n".join(lines), db="d", consistency="all").status == 204
    yield nodes
    cluster.close()


# What is written by one node is read at another: there, one owner's confirmation is not enough to see it.
def written(node: Daemon, statement: str) -> int:
    document = node.query(statement, db="d")
    (series,) = document["results"][0]["series"]
    assert (series["name"], series["columns"]) == ("result", ["time", "written"])
    ((time, count),) = series["values"]
    assert time == "1970-01-01T00:00:00Z"
    return int(count)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT mean(m) FROM (SELECT mean(load) AS m FROM sys GROUP BY host, rack) GROUP BY host",
        "SELECT max(m), host FROM (SELECT mean(load) AS m FROM sys GROUP BY host, rack)",
        "SELECT load, host FROM (SELECT load FROM sys WHERE jobs > 3 GROUP BY host) WHERE host != 'h1' LIMIT 20",
        "SELECT sum(n) FROM (SELECT count(*) FROM sys GROUP BY host), (SELECT count(load) AS n FROM sys GROUP BY rack)",
        (
            "SELECT median(d) FROM (SELECT difference(load) AS d FROM sys GROUP BY host) "
            "WHERE time >= 0 AND time < 5h GROUP BY time(1h)"
        ),
        "SELECT count(v) FROM (SELECT load AS v FROM sys), (SELECT jobs AS v FROM sys)",
    ],
)
def test_every_node_answers_subqueries_alike(nodes: list[Daemon], statement: str) -> None:
    answers = [node.query(statement, db="d") for node in nodes]
    assert answers[0]["results"][0]["series"]
    assert same(answers[1], answers[0])
    assert same(answers[2], answers[0])


def test_what_one_node_writes_all_nodes_read(nodes: list[Daemon]) -> None:
    for number, node in enumerate(nodes):
        count = written(node, f"SELECT load, jobs INTO other.autogen.copy{number} FROM sys GROUP BY *")
        expected = node.query("SELECT load, jobs FROM sys GROUP BY *", db="d")
        assert count == sum(len(series["values"]) for series in expected["results"][0]["series"])
        for reader in nodes:
            copied = reader.query(f"SELECT load, jobs FROM copy{number} GROUP BY *", db="other", consistency="quorum")
            assert _without_names(copied) == _without_names(expected)


def _without_names(document: Any) -> list[tuple[Any, Any]]:
    return [(series["tags"], series["values"]) for series in document["results"][0]["series"]]


def test_aggregates_of_subqueries_are_written(nodes: list[Daemon]) -> None:
    select = "SELECT max(m) AS top {into} FROM (SELECT mean(load) AS m FROM sys GROUP BY host, rack) GROUP BY host"
    assert written(nodes[1], select.format(into="INTO other..tops")) == 4
    expected = nodes[0].query(select.format(into=""), db="d")
    found = nodes[2].query("SELECT top FROM tops GROUP BY host", db="other", consistency="quorum")
    assert same(_without_names(found), _without_names(expected))


def test_more_points_than_are_written_at_a_time(nodes: list[Daemon]) -> None:
    lines = "\n".join(f"many,host=h{row % 7} v={row}i {row * 1_000_000}" for row in range(50_000))
    # Another owner is read next, and it has to have them.
    assert nodes[0].write(lines, db="other", consistency="all").status == 204
    assert written(nodes[1], "SELECT v * 2 AS w INTO other..doubled FROM other..many GROUP BY host") == 50_000
    assert nodes[2].rows("SELECT count(w), sum(w) FROM doubled", db="other", consistency="quorum") == [
        ["1970-01-01T00:00:00Z", 50_000, 2 * sum(range(50_000))]
    ]


def test_a_field_of_another_type_is_told_and_nothing_of_it_stored(nodes: list[Daemon]) -> None:
    assert written(nodes[0], "SELECT load AS v INTO other..typed FROM sys") > 0
    document = nodes[1].query("SELECT state AS v INTO other..typed FROM sys", db="d")
    assert document["results"][0]["error"].startswith(
        'partial write: field type conflict: input field "v" on measurement "typed" is type string, '
        "already exists as type float dropped="
    )
    (row,) = nodes[2].query("SHOW FIELD KEYS FROM typed", db="other")["results"][0]["series"][0]["values"]
    assert row == ["v", "float"]


def test_a_get_request_is_told_that_into_belongs_into_a_post(nodes: list[Daemon]) -> None:
    answer = nodes[0].get("/query", q="SELECT last(load) INTO other.autogen.warned FROM sys", db="d").json
    assert answer["results"][0]["messages"] == [
        {
            "level": "warning",
            "text": "deprecated use of 'SELECT last(load) INTO other.autogen.warned FROM d.autogen.sys' in a read only "
            "context, please use a POST request instead",
        }
    ]
    assert answer["results"][0]["series"][0]["values"] == [["1970-01-01T00:00:00Z", 1]]


def test_a_database_or_policy_that_is_not_there_is_named(nodes: list[Daemon]) -> None:
    assert "database not found: nowhere" in str(nodes[0].query("SELECT load INTO nowhere..x FROM sys", db="d"))
    assert "retention policy not found: none" in str(nodes[0].query("SELECT load INTO d.none.x FROM sys", db="d"))


def test_explain_names_the_owners_and_analyze_what_they_did(nodes: list[Daemon]) -> None:
    select = "SELECT mean(m) FROM (SELECT mean(load) AS m FROM sys GROUP BY host)"
    (series,) = nodes[0].query(f"EXPLAIN {select}", db="d")["results"][0]["series"]
    lines = [row[0] for row in series["values"]]
    assert series["columns"] == ["QUERY PLAN"]
    assert "name" not in series
    shards = {row[0]: row[7] for row in nodes[0].rows("SHOW SHARDS") if row[1] == "d"}
    told = [line.split() for line in lines if line.strip().startswith("shard ")]
    assert {int(words[1].rstrip(",")): words[-1] for words in told} == shards
    assert any("about" in line and "rows" in line for line in lines)
    assert any(line.strip() == "computes: mean(load)" for line in lines)

    (series,) = nodes[0].query(f"EXPLAIN ANALYZE {select}", db="d")["results"][0]["series"]
    lines = [row[0] for row in series["values"]]
    assert series["columns"] == ["EXPLAIN ANALYZE"]
    assert any("answer: 1 rows of 1 series" in line for line in lines)
    asked = {line.split(":")[0].removesuffix(" (this one)").strip() for line in lines if "select asked" in line}
    assert asked == {f"node {owner}" for owner in shards.values()}


def test_explaining_into_writes_nothing(nodes: list[Daemon]) -> None:
    assert "series" in nodes[0].query("EXPLAIN ANALYZE SELECT load INTO other..never FROM sys", db="d")["results"][0]
    assert nodes[0].query("SELECT * FROM never", db="other") == {"results": [{"statement_id": 0}]}
