"""Numbers of copies that follow the cluster, and lost copies that come back by themselves, in real daemons."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
WAIT_S = 60.0
SETTINGS = {"cluster": ['restore-grace = "1s"']}
POINTS = 300


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def copies(daemon: Daemon, database: str) -> dict[str, int]:
    return {row[0]: row[3] for row in daemon.rows(f"SHOW RETENTION POLICIES ON {database}")}


def owners(daemon: Daemon) -> list[set[str]]:
    return [set(row[7].split(",")) for row in daemon.rows("SHOW SHARDS") if row[1] in ("d", "two")]


def data_id(daemon: Daemon) -> str:
    nodes = daemon.servers()["data_nodes"]
    return next(str(row[0]) for row in nodes if row[1] == daemon.address)


def count(daemon: Daemon, database: str) -> int:
    return int(daemon.rows("SELECT count(v) FROM m", db=database)[0][1])


def test_copies_follow_the_nodes_and_lost_ones_come_back(cluster: Cluster) -> None:
    (first,) = cluster.grow(1, settings=SETTINGS)
    first.query("CREATE DATABASE d")
    first.query("CREATE DATABASE one WITH REPLICATION 1")
    assert copies(first, "d") == {"autogen": 1}
    now_ns = time.time_ns()
    lines = "\n".join(f"m,s=s{number % 7} v={number} {now_ns - number}" for number in range(POINTS))
    assert first.write(lines, db="d").status == 204
    for _ in range(2):
        cluster.add(join=[first.meta_address], settings=SETTINGS).start()
    cluster.wait_servers(3)
    wait_until(lambda: copies(first, "d") == {"autogen": 3}, "three copies asked for", WAIT_S)
    assert copies(first, "one") == {"autogen": 1}
    wait_until(lambda: all(len(nodes) == 3 for nodes in owners(first)), "three copies there", WAIT_S)

    # Two copies on three of four nodes; then one of those is lost for longer than the grace.
    cluster.add(join=[first.meta_address], settings=SETTINGS).start()
    cluster.wait_servers(4)
    first.query("CREATE DATABASE two WITH REPLICATION 2")
    assert first.write(lines, db="two", consistency="all").status == 204
    lost = next(node for node in cluster.running() if node is not cluster.leader() and node is not first)
    gone = data_id(lost)
    lost.kill()
    wait_until(lambda: all(gone not in nodes for nodes in owners(first)), "no shard on the lost node", WAIT_S)
    alive = {str(row[0]) for row in first.servers()["data_nodes"]} - {gone}
    assert {len(nodes) for nodes in owners(first)} == {2, 3}
    assert all(nodes <= alive for nodes in owners(first))
    old_ns = now_ns - 300 * 24 * 3600 * 10**9
    assert first.write("\n".join(f"m,s=s{tag} v=1 {old_ns}" for tag in range(7)), db="two").status == 204
    assert all(nodes <= alive for nodes in owners(first)), "a new group avoids the lost node"
    for node in cluster.running():
        assert (count(node, "d"), count(node, "two")) == (POINTS, POINTS + 7)
