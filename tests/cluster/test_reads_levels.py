"""Reads while owners are away: partial answers where they are asked for, and which forms say so."""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, request, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.daemons import Answer, Daemon

pytestmark = pytest.mark.slow
SERIES = 60


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Three nodes with points at one owner each, of which one node is gone."""
    root: Path = tmp_path_factory.mktemp("reads_levels")
    made = Cluster(root)
    try:
        found = made.grow(3)
        found[0].query("CREATE DATABASE one WITH REPLICATION 1")
        found[0].query("CREATE DATABASE three WITH REPLICATION 3")
        lines = "\n".join(f"m,host=h{number} v=1 1" for number in range(SERIES))
        for database in ("one", "three"):
            assert found[0].write(lines, db=database, consistency="all").status == 204
        found[2].kill()
        yield found
    finally:
        made.close()


def ask(node: Daemon, statement: str, headers: dict[str, str] | None = None, **params: str) -> Answer:
    body = urllib.parse.urlencode({"q": statement, "db": "one", **params}).encode()
    return request("POST", node.url("/query"), body, headers=headers)


def test_an_answer_without_some_shards_is_an_error(nodes: list[Daemon]) -> None:
    for node in nodes[:2]:
        answer = ask(node, "SELECT count(v) FROM m")
        assert (answer.status, answer.json["code"]) == (503, "shard_unavailable"), answer
        assert "X-DSDB-Partial" not in answer.headers


def test_a_partial_answer_is_marked_and_names_the_shards(nodes: list[Daemon]) -> None:
    for node in nodes[:2]:
        answer = ask(node, "SELECT count(v) FROM m", partial="true")
        assert (answer.status, answer.headers["X-DSDB-Partial"]) == (200, "true"), answer
        (result,) = answer.json["results"]
        assert result["partial"] is True
        ((_, count),) = result["series"][0]["values"]
        assert 0 < count < SERIES
        (message,) = result["messages"]
        assert message["level"] == "warning"
        assert message["text"].startswith("partial result: 1 shards could not be read: ")
        hosts = ask(node, "SHOW TAG VALUES FROM m WITH KEY = host", partial="true")
        assert hosts.json["results"][0]["partial"] is True
        assert len(hosts.json["results"][0]["series"][0]["values"]) == count


def test_a_statement_says_it_for_itself_in_every_form(nodes: list[Daemon]) -> None:
    node = nodes[0]
    both = ask(node, "SELECT count(v) FROM three..m; SELECT count(v) FROM m", partial="true")
    whole, part = both.json["results"]
    assert ("partial" in whole, "messages" in whole, part["partial"]) == (False, False, True)
    assert whole["series"][0]["values"][0][1] == SERIES
    chunks = ask(node, "SELECT v FROM m", partial="true", chunked="true")
    assert chunks.headers["X-DSDB-Partial"] == "true"
    documents = [json.loads(line) for line in chunks.body.splitlines()]
    assert all("partial result" in one["results"][0]["messages"][0]["text"] for one in documents)
    csv = ask(node, "SELECT count(v) FROM m", {"Accept": "application/csv"}, partial="true")
    assert (csv.headers["X-DSDB-Partial"], csv.body.count(b"\n")) == ("true", 2)
    packed = ask(node, "SELECT count(v) FROM m", {"Accept": "application/x-msgpack"}, partial="true")
    assert packed.headers["X-DSDB-Partial"] == "true"
    assert b"partial result" in packed.body


def test_a_whole_answer_is_not_marked(nodes: list[Daemon]) -> None:
    for statement in ("SELECT count(v) FROM three..m", "SHOW DATABASES", "SHOW MEASUREMENTS ON three"):
        answer = ask(nodes[1], statement, partial="true")
        assert answer.status == 200
        assert "X-DSDB-Partial" not in answer.headers
        assert "partial" not in answer.json["results"][0]


def test_nothing_is_stored_of_a_part(nodes: list[Daemon]) -> None:
    answer = ask(nodes[0], "SELECT v INTO three..copy FROM one..m", partial="true")
    assert (answer.status, answer.json["code"]) == (503, "shard_unavailable"), answer
    assert nodes[0].rows("SELECT * FROM copy", db="three") == []


def test_schema_statements_see_the_whole_cluster(nodes: list[Daemon]) -> None:
    """With an owner of every shard there each node lists everything; without one the list is refused, not short."""
    for node in nodes[:2]:
        for statement in ("SHOW SERIES", "SHOW TAG VALUES FROM m WITH KEY = host"):
            assert len(node.rows(statement, db="three")) == SERIES
            assert ask(node, statement).status == 503
        assert node.rows("SHOW FIELD KEYS", db="three") == [["v", "float"]]


def test_a_quorum_read_needs_a_quorum(nodes: list[Daemon]) -> None:
    assert wait_until(
        lambda: ask(nodes[0], "SELECT count(v) FROM m", db="three", consistency="quorum").status == 200, "two of three"
    )
    answer = ask(nodes[0], "SELECT count(v) FROM m", db="three", consistency="quorum")
    assert answer.json["results"][0]["series"][0]["values"][0][1] == SERIES
    assert ask(nodes[0], "SELECT count(v) FROM m", consistency="most").status == 400
    nodes[1].kill()
    lone = ask(nodes[0], "SELECT count(v) FROM m", db="three", consistency="quorum")
    assert lone.status == 503, lone
    assert "consistency=quorum needs 2 of its 3 owners" in lone.json["error"]
    assert ask(nodes[0], "SELECT count(v) FROM m", db="three").status == 200
