"""Each fault has its verdict in /health, /ready and the picture of the cluster, and loses it when it heals."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.daemons import Daemon

pytestmark = pytest.mark.slow
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Three nodes with shards of one and of three owners."""
    made = Cluster(tmp_path_factory.mktemp("verdicts"))
    try:
        found = made.grow(3, settings={"hinted-handoff": ['retry-interval = "200ms"']})
        found[0].query("CREATE DATABASE one WITH REPLICATION 1")
        found[0].query("CREATE DATABASE three WITH REPLICATION 3")
        lines = "\n".join(f"m,host=h{number} v=1 1" for number in range(60))
        for database in ("one", "three"):
            assert found[0].write(lines, db=database, consistency="all").status == 204
        yield found
    finally:
        made.close()


@pytest.fixture(autouse=True)
def healed(nodes: list[Daemon]) -> Iterator[None]:
    """Every test begins and ends with a whole cluster."""
    wait_whole(nodes)
    yield
    wait_whole(nodes)


def wait_whole(nodes: list[Daemon]) -> None:
    for node in nodes:
        wait_until(lambda node=node: checks(node) == {}, f"{node.address} finds nothing wrong", DEADLINE_S)
        wait_until(lambda node=node: node.status()["status"] == "pass", f"{node.address} sees a whole", DEADLINE_S)


def checks(node: Daemon) -> dict[str, list[str]]:
    """Messages of the failed checks of a node's /health, by name."""
    found: dict[str, list[str]] = {}
    for check in node.get("/health").json["checks"]:
        found.setdefault(check["name"], []).append(check["message"])
    return found


def ready(node: Daemon, purpose: str) -> int:
    return node.get("/ready", **{"for": purpose}).status


def peer_figures(node: Daemon, peer: Daemon) -> dict[str, float]:
    """What a node's metrics say of another one."""
    found = re.findall(
        rf'^dsdb_peer{{name="(\w+)",peer="{peer.address}"}} (\S+)$', node.get("/metrics").body.decode(), re.MULTILINE
    )
    return {name: float(value) for name, value in found}


def test_a_node_that_ended(nodes: list[Daemon]) -> None:
    first, second, third = nodes
    third.kill()
    for node in (first, second):
        wait_until(lambda node=node: {"peers", "shards"} <= checks(node).keys(), "the node is missed", DEADLINE_S)
        found = checks(node)
        assert any(third.address in message for message in found["peers"])
        assert any("no owner that answers" in message for message in found["shards"])
        assert any("fewer copies that answer" in message for message in found["shards"])
        wait_until(lambda node=node: ready(node, "write") == ready(node, "query") == 200, "it serves", DEADLINE_S)
    picture = first.status()
    assert picture["status"] == "fail"
    assert picture["shards"] | {"groups": 0} == {"groups": 0, "total": 4, "unavailable": 1, "under_replicated": 1}
    assert {one["tcp_addr"]: one["state"] for one in picture["nodes"]}[third.address] == "down"
    third.start()


def test_a_node_that_hangs(nodes: list[Daemon]) -> None:
    first, second, third = nodes
    assert third.process is not None
    os.kill(third.process.pid, signal.SIGSTOP)
    try:
        for node in (first, second):
            wait_until(lambda node=node: "peers" in checks(node), "the node is missed", DEADLINE_S)
            wait_until(lambda node=node: ready(node, "write") == 200, "a leader that runs", DEADLINE_S)
        # What it owns with others is stored and read without waiting for it.
        assert second.write("m,host=later v=1 2", db="three", consistency="quorum").status == 204
        assert len(first.rows("SELECT v FROM m WHERE host = 'later'", db="three", consistency="quorum")) == 1
        wait_until(lambda: "handoff" in checks(second), "a write waits for it", DEADLINE_S)
        picture = first.status()
        assert picture["status"] == "fail"
        assert any(third.address in problem for problem in picture["problems"])
        figures = peer_figures(first, third)
        assert figures["up"] == 0 and figures["downs"] >= 1 and figures["seenSecondsAgo"] > 1
        assert peer_figures(first, second)["up"] == 1
        counters = first.rows("SHOW STATS FOR 'detector'")
        assert counters
    finally:
        os.kill(third.process.pid, signal.SIGCONT)
    wait_until(lambda: peer_figures(first, third)["up"] == 1, "it is back", DEADLINE_S)
    wait_until(lambda: peer_figures(first, third)["breakersOpen"] == 0, "it is asked anything", DEADLINE_S)
    # A node that did not run finds nobody down because of that.
    wait_until(lambda: checks(third) == {}, "it finds nothing wrong", DEADLINE_S)
    wait_until(
        lambda: len(third.rows("SELECT v FROM m WHERE host = 'later'", db="three")) == 1, "it has it", DEADLINE_S
    )


def test_a_node_without_the_others(nodes: list[Daemon]) -> None:
    first, second, third = nodes
    second.kill()
    third.kill()
    wait_until(lambda: {"leader", "partition", "peers"} <= checks(first).keys(), "no majority", DEADLINE_S)
    found = checks(first)
    assert found["partition"] == ["this node reaches 0 of 2 other nodes: it is cut off, or they are down"]
    assert len(found["peers"]) == 2
    health = first.get("/health")
    assert (health.status, health.json["status"]) == (503, "fail")
    assert ready(first, "write") == 503
    assert ready(first, "query") == 503, "shards of one owner are out of reach, and others may reach them"
    assert first.status()["status"] == "fail"
    for node in (second, third):
        node.start(wait=False)
    for node in (second, third):
        node.wait_ready()


def test_a_cluster_without_a_leader_answers_queries(nodes: list[Daemon]) -> None:
    """With every shard at hand a node without a majority is ready for queries, and for nothing else."""
    first = nodes[0]
    first.query("DROP DATABASE one")
    for node in nodes[1:]:
        node.kill()
    wait_until(lambda: "leader" in checks(first) and "partition" in checks(first), "no majority", DEADLINE_S)
    assert (ready(first, "write"), ready(first, "query")) == (503, 200)
    assert len(first.rows("SELECT v FROM m", db="three")) >= 60
    for node in nodes[1:]:
        node.start(wait=False)
    for node in nodes[1:]:
        node.wait_ready()
