"""Nodes that join through anybody, are killed in the middle of it, are dropped, and come back."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.daemons import META_ONLY, free_port, wait_until

if TYPE_CHECKING:
    from tests.cluster.daemons import Cluster, Daemon

pytestmark = pytest.mark.slow
DATA_ONLY = {"meta": ["enabled = false"]}


def no_traceback(cluster: Cluster) -> None:
    for daemon in cluster.daemons:
        assert "Traceback" not in daemon.log, daemon.log
        assert "never retrieved" not in daemon.log, daemon.log


def meta_id(cluster: Cluster, daemon: Daemon) -> int:
    return next(row[0] for row in some(cluster).servers()["meta_nodes"] if row[2] == daemon.address)


def data_id(cluster: Cluster, daemon: Daemon) -> int:
    return next(row[0] for row in some(cluster).servers()["data_nodes"] if row[2] == daemon.address)


def some(cluster: Cluster) -> Daemon:
    return cluster.running()[0]


def error(document: Any) -> str:
    found = document.get("error") or document["results"][0].get("error", "")
    return str(found)


def empty(daemon: Daemon) -> None:
    for name in ("meta", "data", "wal", "hh"):
        shutil.rmtree(daemon.root / name, ignore_errors=True)


def numbers(daemon: Daemon) -> list[int]:
    return sorted(row[0] for rows in daemon.servers().values() for row in rows)


def test_a_fourth_and_fifth_join_through_followers(cluster: Cluster) -> None:
    cluster.grow(3)
    followers = [daemon for daemon in cluster.daemons if not daemon.is_leader()]
    fourth = cluster.add(join=[followers[0].meta_address]).start()
    cluster.add(join=[fourth.meta_address]).start()
    cluster.wait_servers(5)
    assert numbers(fourth) == list(range(1, 11))
    no_traceback(cluster)


def test_joining_while_the_leader_is_killed(cluster: Cluster) -> None:
    cluster.grow(3)
    leader = cluster.leader()
    others = [daemon for daemon in cluster.daemons if daemon is not leader]
    newcomer = cluster.add(join=[leader.meta_address, *(daemon.meta_address for daemon in others)])
    newcomer.start(wait=False)
    wait_until(lambda: (newcomer.root / "meta" / "node.json").exists(), "the newcomer begins to join")
    leader.kill()
    newcomer.wait_ready()
    leader.start()
    cluster.wait_servers(4)
    ids = numbers(newcomer)
    assert len(set(ids)) == 8, ids
    no_traceback(cluster)


@pytest.mark.parametrize("moment_s", [0.0, 0.05, 0.15, 0.4])
def test_a_joiner_killed_in_the_middle_joins_with_one_pair_of_ids(cluster: Cluster, moment_s: float) -> None:
    cluster.grow(3)
    joiner = cluster.add(join=[cluster.daemons[1].meta_address])
    joiner.start(wait=False)
    wait_until(lambda: (joiner.root / "meta" / "node.json").exists(), "it begins to join", pause_s=0.002)
    time.sleep(moment_s)
    joiner.kill()
    # The others are not held up by a newcomer that died.
    cluster.daemons[0].rows("CREATE DATABASE meanwhile")
    joiner.start()
    cluster.wait_servers(4)
    assert numbers(joiner) == list(range(1, 9))
    no_traceback(cluster)


def test_a_dead_joiner_does_not_hold_up_another(cluster: Cluster) -> None:
    first = cluster.add().start()
    dead = cluster.add(join=[first.meta_address])
    dead.start(wait=False)
    wait_until(lambda: (dead.root / "meta" / "node.json").exists(), "it begins to join", pause_s=0.002)
    dead.kill()
    if len(first.status()["nodes"]) > 1 or first.get("/health").status != 200:
        pytest.skip("the newcomer had its vote before it could be killed")
    began_s = time.monotonic()
    other = cluster.add(join=[first.meta_address]).start()
    # The leader gives up on a newcomer that does not connect after 25 s; nobody queues behind that.
    assert time.monotonic() - began_s < 20
    assert other.get("/ready").status == 200


def test_a_joiner_waits_for_its_cluster_beside_a_node_without_one(cluster: Cluster) -> None:
    """A listed node that has no cluster yet is no foreign cluster: the half-joined node goes on waiting."""
    founder = cluster.add().start()
    waits = cluster.add(join=[f"127.0.0.1:{free_port()}"])
    waits.start(wait=False)
    wait_until(lambda: "waiting for" in waits.log, "the other node waits")
    joiner = cluster.add(join=[founder.meta_address, waits.meta_address])
    joiner.start(wait=False)
    wait_until(lambda: (joiner.root / "meta" / "node.json").exists(), "it begins to join", pause_s=0.002)
    joiner.kill()
    founder.kill()
    before = len(joiner.log)
    joiner.start(wait=False)
    if '"joining"' in (joiner.root / "meta" / "node.json").read_text():
        wait_until(lambda: waits.address in joiner.log[before:], "it asked the node without a cluster", 30)
    founder.start(wait=False)
    joiner.wait_ready()
    assert numbers(joiner) == [1, 2, 3, 4]
    assert "Traceback" not in joiner.log


def test_two_join_at_once_through_different_members(cluster: Cluster) -> None:
    cluster.grow(2)
    newcomers = [cluster.add(join=[daemon.meta_address]) for daemon in cluster.daemons[:2]]
    for daemon in newcomers:
        daemon.start(wait=False)
    for daemon in newcomers:
        daemon.wait_ready()
    cluster.wait_servers(4)
    assert numbers(newcomers[0]) == list(range(1, 9))


def test_dropping_both_roles_of_a_follower_ends_it_for_good(cluster: Cluster) -> None:
    cluster.grow(3)
    leader = cluster.leader()
    gone = next(daemon for daemon in cluster.daemons if daemon is not leader)
    ids = meta_id(cluster, gone), data_id(cluster, gone)
    leader.rows(f"DROP META SERVER {ids[0]}")
    assert ids[0] not in numbers(leader)
    leader.rows(f"DROP DATA SERVER {ids[1]}")
    assert gone.wait_exit() == 13
    assert "removed from the cluster" in gone.log.strip().splitlines()[-1]
    # Not with -join still set, not once and not twice.
    gone.process = None
    gone.join = [leader.meta_address]
    for _ in range(2):
        gone.start(wait=False)
        assert gone.wait_exit() == 13
        gone.process = None
    cluster.wait_servers(2)
    empty(gone)
    gone.start()
    cluster.wait_servers(3)
    assert not set(ids) & set(numbers(gone))
    no_traceback(cluster)


def test_a_node_dropped_while_it_was_down_learns_it_when_it_comes_back(cluster: Cluster) -> None:
    cluster.grow(3)
    leader = cluster.leader()
    gone, other = (daemon for daemon in cluster.daemons if daemon is not leader)
    ids = meta_id(cluster, gone), data_id(cluster, gone)
    gone.kill()
    # Through the other follower: the answer comes when that one shows it, too.
    other.rows(f"DROP META SERVER {ids[0]}")
    assert ids[0] not in numbers(other)
    other.rows(f"DROP DATA SERVER {ids[1]}")
    assert ids[1] not in numbers(other)
    gone.start(wait=False)
    assert gone.wait_exit() == 13
    assert "Traceback" not in gone.log


def test_the_leader_can_be_dropped(cluster: Cluster) -> None:
    cluster.grow(3)
    leader = cluster.leader()
    others = [daemon for daemon in cluster.daemons if daemon is not leader]
    leader.rows(f"DROP META SERVER {meta_id(cluster, leader)}")
    new = wait_until(lambda: next((d for d in others if d.is_leader()), None), "a new leader")
    assert len(new.servers()["meta_nodes"]) == 2
    # It goes on as a data node: it serves, changes metadata through the others, and restarts as such.
    wait_until(lambda: "lost its vote" in leader.log, "the dropped leader goes on as a data node")
    leader.rows("CREATE DATABASE after")
    assert leader.write("cpu value=1 1", db="after", consistency="all").status == 204
    assert new.rows("SELECT * FROM cpu", db="after")
    assert leader.stop() == 0
    leader.start()
    assert leader.rows("SELECT * FROM cpu", db="after")
    leader.rows("CREATE DATABASE after2")
    no_traceback(cluster)


def test_a_node_that_loses_its_data_role_goes_on_as_a_meta_node(cluster: Cluster) -> None:
    cluster.grow(3)
    node = cluster.daemons[2]
    node.rows(f"DROP DATA SERVER {data_id(cluster, node)}")
    wait_until(lambda: "owns no shards" in node.log, "the node notices")
    assert len(node.servers()["data_nodes"]) == 2
    node.rows("CREATE DATABASE d")
    assert node.write("cpu value=1 1", db="d", consistency="all").status == 204
    assert node.rows("SELECT * FROM cpu", db="d") == [["1970-01-01T00:00:00.000000001Z", 1]]
    assert node.stop() == 0
    # The role may be switched off in the configuration now.
    node.settings = META_ONLY
    node.start()
    wait_until(lambda: node.rows("SELECT * FROM cpu", db="d"), "it answers queries")
    no_traceback(cluster)


def test_drops_that_are_refused(cluster: Cluster) -> None:
    first = cluster.add().start()
    assert "final node" in error(first.query("DROP META SERVER 1"))
    assert error(first.query("DROP DATA SERVER 2"))
    assert "node not found: no meta node has the number 99" in error(first.query("DROP META SERVER 99"))
    assert "node not found: no meta node has the number 2" in error(first.query("DROP META SERVER 2"))
    assert "node not found: no node has the number 99" in error(first.query("DROP SERVER 99"))
    second = cluster.add(join=[first.meta_address]).start()
    first.rows("CREATE DATABASE d WITH REPLICATION 1")
    for day in range(6):
        assert first.write(f"cpu value=1 {day * 8 * 86400}", db="d", precision="s").status == 204
    document = first.query(f"DROP DATA SERVER {data_id(cluster, second)}")
    assert "shard not replicated: " in error(document)
    assert any(char.isdigit() for char in error(document).split("shard not replicated: ")[1])
    assert f"dsdb node remove {data_id(cluster, second)}" in error(document)
    assert len(first.servers()["data_nodes"]) == 2
    gone = data_id(cluster, second)
    first.rows(f"DROP SERVER {gone} FORCE")
    assert len(first.servers()["data_nodes"]) == 1
    assert first.write("cpu value=2 691200", db="d", precision="s").status == 204


def test_dropping_a_vote_that_is_needed_is_refused(cluster: Cluster) -> None:
    cluster.grow(3)
    leader = cluster.leader()
    dead, alive = (daemon for daemon in cluster.daemons if daemon is not leader)
    dead.kill()
    needed, lost = meta_id(cluster, alive), meta_id(cluster, dead)

    def refused() -> str:
        return error(leader.query(f"DROP META SERVER {needed}"))

    said = refused()
    assert dead.address in said, said
    assert "FORCE" in said
    assert "FORCE" in error(leader.query(f"DROP META SERVER {meta_id(cluster, leader)}"))
    assert len(leader.servers()["meta_nodes"]) == 3
    # The dead one may go; then the two that live are enough for one to go, too.
    leader.rows(f"DROP META SERVER {lost}")
    leader.rows(f"DROP META SERVER {needed}")
    assert [row[2] for row in leader.servers()["meta_nodes"]] == [leader.address]
    leader.rows("CREATE DATABASE d")
    no_traceback(cluster)


@pytest.fixture
def mixed(cluster: Cluster) -> list[Daemon]:
    """A meta-only, a hybrid and a data-only node."""
    hybrid = cluster.add().start()
    meta = cluster.add(join=[hybrid.meta_address], settings=META_ONLY)
    data = cluster.add(join=[hybrid.meta_address], settings=DATA_ONLY)
    for daemon in (meta, data):
        daemon.start(wait=False)
    for daemon in (meta, data):
        daemon.wait_ready()
    cluster.wait_servers(2)
    return [meta, hybrid, data]


def test_nodes_with_one_role(cluster: Cluster, mixed: list[Daemon]) -> None:
    meta, hybrid, data = mixed
    data.rows("CREATE DATABASE d WITH REPLICATION 2")
    told = data.status()
    assert min(told["term"], told["commit_index"]) > 0, "which a node without a vote has from the others"
    for position, daemon in enumerate(mixed):
        wait_until(lambda daemon=daemon: ["d"] in daemon.rows("SHOW DATABASES"), "the database is everywhere")
        assert (
            daemon.write(f"cpu,n={position} value={position} {position + 1}", db="d", consistency="all").status == 204
        )
    for daemon in mixed:
        assert len(daemon.rows("SELECT * FROM cpu", db="d")) == 3
    meta.rows("CREATE RETENTION POLICY r ON d DURATION 30d REPLICATION 1")
    assert any(row[0] == "r" for row in data.rows("SHOW RETENTION POLICIES ON d")) or wait_until(
        lambda: any(row[0] == "r" for row in data.rows("SHOW RETENTION POLICIES ON d")), "the policy arrives"
    )
    for daemon in mixed:
        assert daemon.stop() == 0
    # The data node starts from its copy of the metadata while no meta node runs, and serves what it has.
    data.start(wait=False)
    wait_until(lambda: answers(data, "/ready", **{"for": "query"}), "it is ready for queries")
    assert len(data.rows("SELECT * FROM cpu", db="d")) == 3
    assert data.get("/ready").status == 503
    refused = data.query("CREATE DATABASE e", timeout_s=30)
    assert error(refused)
    for daemon in (meta, hybrid):
        daemon.start(wait=False)
    for daemon in mixed:
        daemon.wait_ready()
    data.rows("CREATE DATABASE e")
    no_traceback(cluster)


def answers(daemon: Daemon, path: str, **params: str) -> bool:
    try:
        return daemon.get(path, **params).status == 200
    except OSError:
        return False


def test_nodes_with_one_role_are_dropped(cluster: Cluster, mixed: list[Daemon]) -> None:
    meta, hybrid, data = mixed
    hybrid.rows(f"DROP META SERVER {meta_id(cluster, meta)}")
    assert meta.wait_exit() == 13
    hybrid.rows(f"DROP SERVER {data_id(cluster, data)}")
    assert data.wait_exit() == 13
    no_traceback(cluster)


def test_stopping_does_not_wait_for_long_polls(cluster: Cluster, mixed: list[Daemon]) -> None:
    for daemon in (mixed[1], mixed[0], mixed[2]):
        began_s = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began_s < 8
    no_traceback(cluster)


def test_changes_while_nodes_come_and_go_reach_everybody(cluster: Cluster) -> None:
    cluster.grow(3)
    made: list[str] = []
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            name = f"d{number}"
            number += 1
            if not error({"results": [{}], **cluster.daemons[0].query(f"CREATE DATABASE {name}", timeout_s=30)}):
                made.append(name)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        fourth = cluster.add(join=[cluster.daemons[1].meta_address]).start()
        victim = cluster.daemons[2]
        cluster.daemons[1].rows(f"DROP META SERVER {meta_id(cluster, victim)}")
        cluster.daemons[1].rows(f"DROP DATA SERVER {data_id(cluster, victim)}")
        assert victim.wait_exit() == 13
    finally:
        stop.set()
        worker.join()
    assert made
    for daemon in cluster.running():
        wait_until(lambda daemon=daemon: {row[0] for row in daemon.rows("SHOW DATABASES")} >= set(made), "all is there")
    assert fourth in cluster.running()
