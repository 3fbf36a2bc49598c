"""Restarts, kills, signals: ids and acknowledged points stay, a majority suffices, a stop is quick in any phase."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import free_port, wait_until

if TYPE_CHECKING:
    from tests.cluster.daemons import Cluster, Daemon

pytestmark = pytest.mark.slow
STOP_S = 8.0
"""A few seconds; more on a machine that is busy with other tests."""


def three_with_lists(cluster: Cluster) -> list[Daemon]:
    daemons = [cluster.add() for _ in range(3)]
    for daemon in daemons:
        daemon.join = [other.meta_address for other in daemons]
        daemon.start(wait=False)
    for daemon in daemons:
        daemon.wait_ready()
    cluster.wait_servers(3)
    return daemons


def fill(daemon: Daemon, count: int = 20) -> None:
    daemon.rows("CREATE DATABASE d WITH REPLICATION 3")
    lines = "\n".join(f"cpu,n={number} value={number} {number + 1}" for number in range(count))
    assert daemon.write(lines, db="d", consistency="all").status == 204


def check(daemons: list[Daemon], count: int = 20) -> None:
    for daemon in daemons:
        wait_until(lambda daemon=daemon: ["d"] in daemon.rows("SHOW DATABASES"), "the metadata is there")
        assert daemon.rows("SELECT count(value) FROM cpu", db="d") == [["1970-01-01T00:00:00Z", count]]
        assert "Traceback" not in daemon.log, daemon.log


def test_restart_all_with_join_still_set(cluster: Cluster) -> None:
    daemons = three_with_lists(cluster)
    fill(daemons[0])
    before = daemons[0].servers()
    for daemon in daemons:
        assert daemon.stop() == 0
    for daemon in reversed(daemons):
        daemon.start(wait=False)
    for daemon in daemons:
        daemon.wait_ready()
    cluster.wait_servers(3)
    assert daemons[0].servers() == before
    assert all("-join is ignored" in daemon.log for daemon in daemons)
    check(daemons)


@pytest.mark.parametrize("stays", [0, 1, 2])
def test_restart_any_two_with_join_still_set(cluster: Cluster, stays: int) -> None:
    daemons = three_with_lists(cluster)
    fill(daemons[0])
    before = daemons[0].servers()
    two = [daemon for number, daemon in enumerate(daemons) if number != stays]
    for daemon in two:
        daemon.kill()
    for daemon in two:
        daemon.start(wait=False)
    for daemon in two:
        daemon.wait_ready()
    cluster.wait_servers(3)
    assert daemons[stays].servers() == before
    check(daemons)


def test_kill_all_and_start_two(cluster: Cluster) -> None:
    daemons = three_with_lists(cluster)
    fill(daemons[0])
    before = daemons[0].servers()
    for daemon in daemons:
        daemon.kill()
    two = daemons[1:]
    for daemon in two:
        daemon.start(wait=False)
    for daemon in two:
        daemon.wait_ready()
    cluster.wait_servers(3)
    assert two[0].servers() == before
    check(two)
    two[0].rows("CREATE DATABASE after")
    daemons[0].start()
    check(daemons)


def test_one_of_three_started_alone_serves_what_it_has(cluster: Cluster) -> None:
    daemons = three_with_lists(cluster)
    fill(daemons[0])
    wait_until(lambda: ["d"] in daemons[2].rows("SHOW DATABASES"), "the metadata is everywhere")
    for daemon in daemons:
        assert daemon.stop() == 0
    alone = daemons[2]
    alone.start(wait=False)

    def ready() -> bool:
        try:
            return alone.get("/ready", **{"for": "query"}).status == 200
        except OSError:
            return False

    wait_until(ready, "it is ready for queries")
    check([alone])
    assert len(alone.servers()["meta_nodes"]) == 3
    assert alone.get("/ready").status == 503


def test_without_a_quorum(cluster: Cluster) -> None:
    daemons = three_with_lists(cluster)
    fill(daemons[0])
    survivor, *dead = daemons
    wait_until(lambda: ["d"] in survivor.rows("SHOW DATABASES"), "the metadata is there")
    for daemon in dead:
        daemon.kill()
    wait_until(lambda: survivor.get("/health").status == 503, "the node sees that the leader is gone")

    def leaderless() -> bool:
        answer = survivor.get("/health")
        return all(daemon.address in answer.json["message"] for daemon in dead)

    wait_until(leaderless, "its health names who is missing")
    began_s = time.monotonic()
    answer = survivor.get("/query", q="CREATE DATABASE x", timeout_s=30)
    assert time.monotonic() - began_s < 15
    if answer.status != 503:
        answer = survivor.get("/query", q="CREATE DATABASE y", timeout_s=30)
    assert answer.status == 503, answer.body
    assert answer.json["code"] == "no_leader", answer.body
    for daemon in dead:
        assert daemon.address in answer.json["error"], answer.body
    # Stored shards: this node is an owner, so reading and writing go on at the level it can reach alone.
    assert survivor.rows("SELECT count(value) FROM cpu", db="d") == [["1970-01-01T00:00:00Z", 20]]
    assert survivor.write("cpu,n=0 value=5 100", db="d", consistency="one").status == 204
    assert survivor.rows("SELECT count(value) FROM cpu", db="d") == [["1970-01-01T00:00:00Z", 21]]
    assert len(survivor.servers()["meta_nodes"]) == 3
    assert survivor.rows("SHOW RETENTION POLICIES ON d")
    assert survivor.get("/ready", **{"for": "query"}).status == 200
    assert survivor.get("/ready", **{"for": "write"}).status == 503
    assert survivor.get("/ping").status == 204
    refused = survivor.query(f"DROP META SERVER {survivor.servers()['meta_nodes'][1][0]}", timeout_s=30)
    assert "error" in refused or "error" in refused["results"][0]
    dead[0].start()
    wait_until(lambda: survivor.get("/health").status == 200, "it recovers when a node returns")
    survivor.rows("CREATE DATABASE back")
    assert survivor.get("/ready").status == 200
    assert "Traceback" not in survivor.log


def test_a_new_leader_after_kill(cluster: Cluster) -> None:
    cluster.grow(3)
    leader = cluster.leader()
    rest = [daemon for daemon in cluster.daemons if daemon is not leader]
    leader.kill()
    wait_until(lambda: any(daemon.is_leader() for daemon in rest), "a new leader", 10)
    rest[0].rows("CREATE DATABASE d")


def waits(daemon: Daemon) -> bool:
    try:
        return "waiting for" in daemon.get("/health").json["message"]
    except OSError:
        return False


def stops(daemon: Daemon) -> None:
    began_s = time.monotonic()
    assert daemon.stop() == 0, daemon.log
    took_s = time.monotonic() - began_s
    assert took_s < STOP_S, f"{took_s:.1f} s:\n{daemon.log}"
    assert "Traceback" not in daemon.log, daemon.log
    assert "never retrieved" not in daemon.log, daemon.log
    assert "never awaited" not in daemon.log, daemon.log


def test_sigterm_while_waiting(cluster: Cluster) -> None:
    daemon = cluster.add(join=[f"127.0.0.1:{free_port()}"])
    daemon.start(wait=False)
    wait_until(lambda: waits(daemon), "it waits")
    stops(daemon)


def test_sigterm_while_joining(cluster: Cluster) -> None:
    first, second, third = cluster.grow(3)
    third.kill()
    # One of two followers is gone; with the other one stopped nobody can be admitted.
    follower = second if first.is_leader() else first
    leader = first if follower is second else second
    assert follower.process is not None
    joiner = cluster.add(join=[leader.meta_address])
    joiner.start(wait=False)
    wait_until(lambda: (joiner.root / "meta" / "node.json").exists(), "it begins to join", pause_s=0.005)
    follower.process.send_signal(signal.SIGSTOP)
    try:
        stops(joiner)
        stops(leader)
    finally:
        follower.process.send_signal(signal.SIGCONT)


def test_sigterm_of_members_with_and_without_quorum(cluster: Cluster) -> None:
    daemons = cluster.grow(3)
    stops(daemons[1])
    daemons[0].rows("CREATE DATABASE d")
    stops(daemons[2])
    stops(daemons[0])


@pytest.mark.parametrize(
    ("installed", "delay_s"), [(True, 0.4), (True, 1.2), (False, 0.02), (False, 0.05), (False, 0.1), (False, 0.2)]
)
def test_sigterm_at_any_moment_of_a_start(cluster: Cluster, installed: bool, delay_s: float) -> None:
    daemon = cluster.add(installed=installed)
    daemon.start(wait=False)
    time.sleep(delay_s)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    code = daemon.process.wait(STOP_S)
    # Before the daemon has set its handler the signal ends it as it ends any process.
    assert code in (0, -signal.SIGTERM), daemon.log
    assert "Traceback" not in daemon.log, daemon.log
    daemon.process = None
    daemon.start()
    assert daemon.servers()["meta_nodes"][0][0] == 1


def test_a_second_sigterm_ends_at_once(cluster: Cluster) -> None:
    daemon = cluster.add().start()
    assert daemon.process is not None
    daemon.rows("CREATE DATABASE d")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGTERM)
    try:
        code = daemon.process.wait(3)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(daemon.log) from error
    # The kernel may merge two signals that arrive together into one.
    assert code in (0, 1), daemon.log
    assert "Traceback" not in daemon.log, daemon.log
