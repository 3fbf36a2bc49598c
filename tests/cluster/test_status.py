"""The picture of the cluster that ``dsdb status`` prints, and what its exit status says."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import wait_until

if TYPE_CHECKING:
    from tests.cluster.daemons import Cluster, Daemon

pytestmark = pytest.mark.slow


def shown(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dsdb_cli.main", "status", "-host", daemon.host, "-port", str(daemon.http_port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_status_tells_a_whole_cluster_from_a_damaged_one(cluster: Cluster) -> None:
    first, second, third = cluster.grow(3)
    first.query("CREATE DATABASE one WITH REPLICATION 1")
    lines = "\n".join(f"m,host=h{number} v=1 1" for number in range(60))
    assert first.write(lines, db="one").status == 204
    wait_until(lambda: first.status()["status"] == "pass", "a whole cluster")
    document = first.status()
    others = [node for node in document["nodes"] if node["tcp_addr"] != first.address]
    assert [node["state"] for node in document["nodes"]] == ["up"] * 3
    assert all(0 <= node["last_contact_s"] < 5 for node in others)
    assert document["shards"] == {"groups": 1, "total": 3, "unavailable": 0, "under_replicated": 0}
    whole = shown(first)
    assert (whole.returncode, "status   pass" in whole.stdout) == (0, True), whole

    number_of_third = next(row["data_id"] for row in document["nodes"] if row["tcp_addr"] == third.address)
    third.kill()
    wait_until(lambda: first.status()["status"] == "fail", "a shard without an owner")
    document = first.status()
    assert document["shards"]["unavailable"] == 1
    assert any(third.address in problem for problem in document["problems"])
    lost = {int(row[0]) for row in first.rows("SHOW SHARDS") if row[-1] == str(number_of_third)}
    named = next(one for one in document["problems"] if "no owner that answers" in one)
    assert {int(named.rpartition(": ")[2])} == lost
    damaged = shown(first)
    assert (damaged.returncode, "status   fail" in damaged.stdout) == (1, True), damaged

    second.kill()
    wait_until(lambda: first.status()["leader"] is None, "no leader")
    assert any("2 of 3" in problem or "1 of 3" in problem for problem in first.status()["problems"])
    second.start(wait=False)
    third.start()
    second.wait_ready()
    wait_until(lambda: first.status()["status"] == "pass", "a whole cluster again")
    first.kill()
    assert shown(first).returncode == 2
