"""Expired shard groups vanish and the next ones appear, in real daemons."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
HOUR_NS = 3600 * 10**9
SETTINGS = {
    "retention": ['check-interval = "1s"'],
    # Longer than any shard group of an hour has left, so that its successor is always due.
    "shard-precreation": ['check-interval = "1s"', 'advance-period = "1h"'],
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def shard_directories(daemon: Daemon, policy: str) -> set[str]:
    root = daemon.root / "data" / "d" / policy
    return {path.name for path in root.iterdir()} if root.exists() else set()


def groups(daemon: Daemon, policy: str) -> list[list[str]]:
    return [row for row in daemon.rows("SHOW SHARD GROUPS") if row[1:3] == ["d", policy]]


def stats(daemon: Daemon, module: str) -> dict[str, int]:
    (series,) = daemon.query(f"SHOW STATS FOR '{module}'")["results"][0]["series"]
    return dict(zip(series["columns"], series["values"][0], strict=True))


def test_expired_groups_go_with_their_directories_on_every_owner(cluster: Cluster) -> None:
    nodes = cluster.grow(3, settings={**SETTINGS, "data": ['cache-snapshot-write-cold-duration = "1s"']})
    now_ns = time.time_ns()
    nodes[0].query("CREATE DATABASE d WITH DURATION INF REPLICATION 3 SHARD DURATION 1h NAME p")
    ages = (0, 5, 50)
    lines = "\n".join(f"m,age=a{hours} v={hours} {now_ns - hours * HOUR_NS}" for hours in ages)
    assert nodes[1].write(lines, db="d", consistency="all").status == 204
    for node in nodes:
        wait_until(lambda node=node: len(shard_directories(node, "p")) >= len(ages), "three shards on disk")
        assert len(node.rows("SELECT v FROM m", db="d")) == len(ages)
    nodes[2].query("ALTER RETENTION POLICY p ON d DURATION 1h SHARD DURATION 1h")
    for node in nodes:
        wait_until(lambda node=node: [row[1] for row in node.rows("SELECT v FROM m", db="d")] == [0], "one point left")
        live = {row[0] for row in node.rows("SHOW SHARDS") if row[1] == "d"}
        wait_until(
            lambda node=node, live=live: shard_directories(node, "p") <= {str(shard) for shard in live},
            "files are gone",
        )
    leader = cluster.leader()
    assert "expired shard group deleted" in leader.log
    assert stats(leader, "retention")["groupsDeleted"] == 2
    page = leader.get("/metrics").body.decode()
    assert 'dsdb_services{name="groupsDeleted",service="retention"} 2.0' in page
    for node in nodes:
        if node is not leader:
            assert stats(node, "retention")["groupsDeleted"] == 0
            assert "expired shard group deleted" not in node.log


def test_disabled_services_leave_everything(tmp_path: Path) -> None:
    off = {name: [*lines, "enabled = false"] for name, lines in SETTINGS.items()}
    on = Daemon(tmp_path / "on", settings=SETTINGS).start()
    still = Daemon(tmp_path / "off", settings=off).start()
    try:
        old_ns = time.time_ns() - 9 * HOUR_NS
        for daemon in (on, still):
            daemon.query("CREATE DATABASE d WITH DURATION INF REPLICATION 1 SHARD DURATION 1h NAME p")
            assert daemon.write(f"m v=1 {old_ns}\nm v=2", db="d").status == 204
            daemon.query("ALTER RETENTION POLICY p ON d DURATION 1h SHARD DURATION 1h")
        # The daemon beside it has done both by now, with the same intervals.
        wait_until(lambda: len(on.rows("SELECT v FROM m", db="d")) == 1, "the old point goes where it is on")
        wait_until(lambda: stats(on, "shardPrecreation")["groupsCreated"] >= 1, "a successor where it is on")
        assert len(still.rows("SELECT v FROM m", db="d")) == 2
        assert len(groups(still, "p")) == 2
        assert still.query("SHOW STATS FOR 'retention'") == {"results": [{"statement_id": 0}]}
    finally:
        on.kill()
        still.kill()


def test_the_next_group_is_there_before_its_first_point(cluster: Cluster) -> None:
    (node,) = cluster.grow(1, settings=SETTINGS)
    node.query("CREATE DATABASE d WITH DURATION INF REPLICATION 1 SHARD DURATION 1h NAME used")
    node.query("CREATE RETENTION POLICY loaded ON d DURATION INF REPLICATION 1 SHARD DURATION 1h")
    assert node.write("m v=1", db="d", rp="used").status == 204
    assert node.write(f"m v=1 {time.time_ns() - 20 * HOUR_NS}", db="d", rp="loaded").status == 204
    used = wait_until(lambda: found if len(found := groups(node, "used")) >= 2 else None, "a successor")
    assert used[0][4] == used[1][3], "it begins where the newest ends"
    checks = stats(node, "shardPrecreation")["checks"]
    wait_until(lambda: stats(node, "shardPrecreation")["checks"] >= checks + 2, "two more looks")
    # An hour may end while the test runs; then one more is due.
    assert len(groups(node, "used")) <= 3
    assert len(groups(node, "loaded")) == 1
    assert "shard group created ahead of time" in node.log
