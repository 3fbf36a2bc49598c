"""Deletions in a cluster of three nodes: at every owner, at once or later, or an error that says what is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.cluster.digests import are_equal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow]
HOUR_NS = 3600 * 10**9
DONE = {"results": [{"statement_id": 0}]}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def create(nodes: list[Daemon], name: str, policy: str) -> None:
    assert nodes[0].query(f"CREATE DATABASE {name} WITH {policy}") == DONE
    wait_until(lambda: all([name] in node.rows("SHOW DATABASES") for node in nodes), "the database is known everywhere")


def fill(node: Daemon, database: str) -> None:
    lines = "\n".join(f"cpu,host=h{host} v={hour} {hour * HOUR_NS}" for host in range(6) for hour in range(4))
    assert node.write(lines + "\nmem,host=h0 f=1i 5", db=database, consistency="all").status == 204


def counts(node: Daemon, database: str) -> dict[str, int]:
    """Points by host."""
    answer = node.query("SELECT count(v) FROM cpu GROUP BY host", db=database)
    series = answer["results"][0].get("series", [])
    return {one["tags"]["host"]: one["values"][0][1] for one in series}


def test_deletions_show_at_every_node_and_last(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    for replication in (1, 3):
        name = f"d{replication}"
        create(nodes, name, f"REPLICATION {replication} SHARD DURATION 1h")
        fill(nodes[0], name)
        assert nodes[1].query("DELETE FROM cpu WHERE host = 'h1'", db=name) == DONE
        assert nodes[2].query(f"DELETE FROM cpu WHERE time < {2 * HOUR_NS}", db=name) == DONE
        assert nodes[0].query("DROP SERIES FROM /c/ WHERE host =~ /h[23]/", db=name) == DONE
        # What is written at any node after a deletion is newer than it.
        for number, node in enumerate(nodes):
            assert node.write(f"cpu,host=h{number} v=1 {number}", db=name, consistency="all").status == 204
        expected = {"h0": 3, "h1": 1, "h2": 1, "h4": 2, "h5": 2}
        for node in nodes:
            assert counts(node, name) == expected
            assert node.rows("SHOW TAG VALUES FROM cpu WITH KEY = host", db=name) == [["host", one] for one in expected]
        assert nodes[1].query("DROP MEASUREMENT cpu", db=name) == DONE
        for node in nodes:
            assert node.rows("SHOW MEASUREMENTS", db=name) == [["mem"]]
            assert node.rows("SHOW FIELD KEYS", db=name) == [["f", "integer"]]
        assert nodes[2].write('cpu,host=h9 v="text" 1', db=name, consistency="all").status == 204
    for node in nodes:
        node.kill()
    for node in nodes:
        node.start(wait=False)
    for node in nodes:
        node.wait_ready()
    for name in ("d1", "d3"):
        wait_until(
            lambda name=name: all(
                node.query("SELECT * FROM cpu", db=name, epoch="ns")
                .get("results", [{}])[0]
                .get("series", [{}])[0]
                .get("values")
                == [[1, "h9", "text"]]
                for node in nodes
            ),
            "all nodes answer with what is left",
        )
        assert nodes[0].rows("SHOW SERIES", db=name) == [["cpu,host=h9"], ["mem,host=h0"]]


def test_an_owner_that_was_away_deletes_when_it_is_back(cluster: Cluster) -> None:
    nodes = cluster.grow(3, settings={"hinted-handoff": ['retry-interval = "100ms"', 'retry-max-interval = "500ms"']})
    create(nodes, "d", "REPLICATION 3")
    fill(nodes[0], "d")
    victim = next(node for node in nodes if not node.is_leader())
    first, second = (node for node in nodes if node is not victim)
    victim.kill()
    assert first.query("DELETE FROM cpu WHERE host = 'h1'", db="d") == DONE
    assert second.query("DROP MEASUREMENT mem", db="d") == DONE
    left = {f"h{host}": 4 for host in (0, 2, 3, 4, 5)}
    assert counts(first, "d") == counts(second, "d") == left
    # The types are gone with the points: new ones may have others.
    assert second.write('mem,host=h1 f="text" 1', db="d").status == 204
    # What is kept is on disk: who keeps it may be killed as well.
    for node in (first, second):
        node.kill()
    for node in nodes:
        node.start(wait=False)
    for node in nodes:
        node.wait_ready()
    wait_until(lambda: counts(victim, "d") == left, "the owner that was away has deleted", 30)
    wait_until(lambda: victim.rows("SELECT f FROM mem", db="d", epoch="ns") == [[1, "text"]], "the new type", 30)
    # Until then others may have answered for it.
    wait_until(lambda: are_equal(nodes, "d"), "all hold the same", 30)
    for node in (first, second):
        node.kill()
    assert counts(victim, "d") == left, "from its own files, alone"


def test_a_shard_whose_only_owner_is_away_makes_the_statement_fail(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", "REPLICATION 1")
    fill(nodes[0], "d")
    victim = next(node for node in nodes if not node.is_leader())
    first = next(node for node in nodes if node is not victim)
    victim.kill()
    answer = first.get("/query", db="d", q="DROP MEASUREMENT cpu")
    assert (answer.status, answer.json["code"]) == (504, "outcome_unknown")
    assert "shards, no owner of the others has confirmed: data node " in answer.json["error"]
    assert f"cannot reach {victim.address}" in answer.json["error"]
    # The types stay as long as points of them may be there.
    answer = first.write('cpu,host=h1 v="text" 1', db="d")
    assert answer.status == 400 and "already exists as type float" in answer.json["error"]
    victim.start()
    wait_until(lambda: first.query("DROP MEASUREMENT cpu", db="d") == DONE, "the owner takes part again")
    for node in nodes:
        assert node.rows("SHOW MEASUREMENTS", db="d") == [["mem"]]


def test_dropping_a_shard_takes_its_points_and_files(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", "REPLICATION 3 SHARD DURATION 1h")
    fill(nodes[0], "d")
    shards = {row[0]: row[4] for row in nodes[0].rows("SHOW SHARDS") if row[1] == "d"}
    assert len(shards) == 4
    gone = min(shards)
    assert nodes[1].query(f"DROP SHARD {gone}") == DONE
    wait_until(lambda: all(counts(node, "d") == {f"h{n}": 3 for n in range(6)} for node in nodes), "the shard is gone")
    wait_until(
        lambda: not any((node.root / "data" / "d" / "autogen" / str(gone)).exists() for node in nodes),
        "the files are gone",
    )
    assert gone not in {row[0] for row in nodes[2].rows("SHOW SHARDS") if row[1] == "d"}
