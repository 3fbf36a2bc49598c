"""Hinted handoff between real nodes: an owner that was away gets what it missed, without anybody's doing."""

from __future__ import annotations

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.cluster.test_points_failures import create, data_id

pytestmark = [pytest.mark.slow]
QUICK = {"hinted-handoff": ['retry-interval = "100ms"', 'retry-max-interval = "500ms"']}


def values(node: Daemon) -> set[int]:
    return {row[1] for row in node.rows("SELECT value FROM cpu", db="d", epoch="ns")}


def stat(node: Daemon, name: str) -> int:
    series = next(one for one in node.query("SHOW STATS")["results"][0]["series"] if one["name"] == "handoff")
    return dict(zip(series["columns"], series["values"][0], strict=True))[name]


def test_an_owner_that_was_away_gets_what_it_missed(cluster: Cluster) -> None:
    nodes = cluster.grow(3, settings=QUICK)
    create(nodes, "d", "REPLICATION 3")
    assert nodes[0].write("cpu value=0 0", db="d", consistency="all").status == 204
    away = next(node for node in nodes if not node.is_leader())
    others = [node for node in nodes if node is not away]
    owner = data_id(away)
    away.kill()
    for number in range(1, 40):
        assert others[number % 2].write(f"cpu value={number} {number}", db="d", consistency="quorum").status == 204
    for node in others:
        wait_until(lambda node=node: stat(node, "kept") >= 19, "the writes are kept")
        health = node.get("/health").json
        assert health["status"] == "warn"
        told = f"writes are kept for data node {owner}"
        assert any(told in check["message"] for check in health["checks"])
        wait_until(lambda node=node: stat(node, "oldestSeconds") > 0, "what is kept grows older", 60)
    # The queues are on disk: who keeps them may be killed as well.
    others[0].kill()
    others[0].start(wait=False)
    others[0].wait_ready()
    away.start(wait=False)
    away.wait_ready()
    for node in others:
        wait_until(lambda node=node: stat(node, "bytes") == 0, "everything is delivered")
        assert stat(node, "oldestSeconds") == 0
    # From its own files, alone.
    for node in others:
        node.kill()
    assert values(away) == set(range(40))


def test_any_is_answered_when_no_owner_is_there_and_is_kept_over_a_crash(cluster: Cluster) -> None:
    nodes = cluster.grow(3, settings=QUICK)
    create(nodes, "d", "REPLICATION 1")
    lines = "\n".join(f"cpu,host=h{number} value={number} {number}" for number in range(30))
    assert nodes[0].write(lines, db="d").status == 204
    away = next(node for node in nodes if not node.is_leader())
    first = next(node for node in nodes if node is not away)
    away.kill()
    answers = {
        number: (
            first.write(f"cpu,host=h{number} value={100 + number} {number}", db="d", consistency="one").status,
            first.write(f"cpu,host=h{number} value={200 + number} {number}", db="d", consistency="any").status,
        )
        for number in range(30)
    }
    assert set(answers.values()) == {(204, 204), (503, 204)}
    first.kill()
    first.start(wait=False)
    first.wait_ready()
    away.start(wait=False)
    away.wait_ready()
    wait_until(lambda: stat(first, "bytes") == 0, "everything is delivered")
    assert values(first) == set(range(200, 230)), "what was refused at one was not stored"


def test_what_could_not_be_kept_is_repaired_and_named_no_more(cluster: Cluster) -> None:
    small = {"hinted-handoff": [*QUICK["hinted-handoff"], "max-size = 4096"]}
    nodes = cluster.grow(3, settings=small)
    create(nodes, "d", "REPLICATION 3")
    assert nodes[0].write("cpu value=0 0", db="d", consistency="all").status == 204
    away = next(node for node in nodes if not node.is_leader())
    first = next(node for node in nodes if node is not away)
    away.kill()
    for number in range(1, 30):
        assert first.write(f"cpu value={number} {number}", db="d", consistency="quorum").status == 204
    wait_until(lambda: stat(first, "lostShards") == 1, "the shard is noted")
    away.start()
    wait_until(lambda: stat(first, "lostShards") == 0, "the shard is repaired", 60)
    wait_until(lambda: stat(first, "bytes") == 0, "everything is delivered", 60)
    for node in nodes:
        if node is not away:
            node.kill()
    assert values(away) == set(range(30))
    first.start(wait=False)
    first.wait_ready()
    assert stat(first, "lostShards") == 0


def test_what_cannot_be_kept_is_named_and_a_removed_node_is_forgotten(cluster: Cluster) -> None:
    small = {"hinted-handoff": [*QUICK["hinted-handoff"], "max-size = 4096"]}
    nodes = cluster.grow(3, settings=small)
    create(nodes, "d", "REPLICATION 3")
    assert nodes[0].write("cpu value=0 0", db="d", consistency="all").status == 204
    away = next(node for node in nodes if not node.is_leader())
    first = next(node for node in nodes if node is not away)
    owner = data_id(away)
    away.kill()
    for number in range(1, 30):
        assert first.write(f"cpu value={number} {number}", db="d", consistency="quorum").status == 204
    wait_until(lambda: stat(first, "lostShards") == 1, "the shard is noted")
    lacking = f"data node {owner} lacks points that nobody keeps for it, of shards "
    assert any(check["message"].startswith(lacking) for check in first.get("/health").json["checks"])
    assert (first.root / "hh" / owner).is_dir()
    first.kill()
    first.start(wait=False)
    first.wait_ready()
    assert any(check["message"].startswith(lacking) for check in first.get("/health").json["checks"]), "still known"
    first.query(f"DROP DATA SERVER {owner}")
    wait_until(lambda: not (first.root / "hh" / owner).exists(), "a removed node's queue is given up")
    assert first.get("/health").json["status"] != "fail"
