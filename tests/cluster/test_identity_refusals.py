"""Wrong set-ups: each ends the daemon with its own exit code and a sentence that says what to do, never a traceback."""

from __future__ import annotations

import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import free_port, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.daemons import Cluster, Daemon

pytestmark = pytest.mark.slow


def refused(daemon: Daemon, code: int, *words: str) -> None:
    """The daemon ends by itself with ``code`` and says all of ``words``."""
    if daemon.process is None:
        daemon.start(wait=False)
    assert daemon.wait_exit() == code, daemon.log
    said = daemon.log
    assert "Traceback" not in said, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("dsdbd: "), last
    for word in words:
        assert word in last, (word, last)


def empty(daemon: Daemon) -> None:
    for name in ("meta", "data", "wal", "hh"):
        shutil.rmtree(daemon.root / name, ignore_errors=True)


def write_secret(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def with_secret(path: Path) -> dict[str, list[str]]:
    return {"meta": [f'cluster-secret-file = "{path}"']}


def test_a_wiped_disk_under_a_known_address(cluster: Cluster) -> None:
    first, second = cluster.grow(2)
    # A third keeps the majority while the second is away.
    cluster.add(join=[first.meta_address]).start()
    cluster.wait_servers(3)
    numbers = {row[2]: row[0] for row in first.servers()["meta_nodes"]}
    second.kill()
    empty(second)
    refused(second, 12, "node already exists", f"DROP META SERVER {numbers[second.address]}", "DROP DATA SERVER")
    # A second try ends the same way: nothing was left behind that looks like an identity.
    second.process = None
    refused(second, 12, "node already exists")
    assert not (second.root / "meta" / "node.json").exists()


def test_a_cloned_directory_under_another_address(cluster: Cluster) -> None:
    first = cluster.add().start()
    clone = cluster.add()
    shutil.copytree(first.root / "meta", clone.root / "meta", ignore=shutil.ignore_patterns("*.lock"))
    refused(clone, 12, first.address, clone.address, "copy")
    assert first.get("/ready").status == 200


def test_the_same_directories_at_the_same_address(cluster: Cluster) -> None:
    first = cluster.add().start()
    twin = cluster.add(http_port=first.http_port, meta_port=first.meta_port)
    for name in ("meta", "data", "wal"):
        shutil.copytree(first.root / name, twin.root / name)
    refused(twin, 14, "in use")
    assert first.get("/ready").status == 200


def test_two_processes_in_one_directory(cluster: Cluster) -> None:
    first = cluster.add().start()
    other = cluster.add()
    other.root.mkdir(parents=True, exist_ok=True)
    (other.root / "meta").symlink_to(first.root / "meta")
    refused(other, 12, first.address)


def test_a_lone_cluster_whose_list_leads_to_another(cluster: Cluster) -> None:
    first = cluster.add().start()
    lone = cluster.add().start()
    ids = [first.status()["cluster_id"], lone.status()["cluster_id"]]
    assert lone.stop() == 0
    lone.join = [first.meta_address]
    refused(lone, 12, *ids, "-join")
    # Without -join it is its own cluster as before.
    lone.process, lone.join = None, []
    lone.start()
    assert lone.status()["cluster_id"] == ids[1]


def test_a_list_that_leads_to_two_clusters(cluster: Cluster) -> None:
    first, second = cluster.add().start(), cluster.add().start()
    lost = cluster.add(join=[first.meta_address, second.meta_address])
    refused(lost, 12, first.status()["cluster_id"], second.status()["cluster_id"], "different clusters")


def test_a_foreign_cluster_at_a_members_address(cluster: Cluster) -> None:
    first, second, third = cluster.grow(3)
    own = first.status()["cluster_id"]
    third.kill()
    empty(third)
    third.join = []
    third.start()
    foreign = third.status()["cluster_id"]
    assert foreign != own

    def named() -> bool:
        health = first.get("/health").json
        return any(third.address in check["message"] and own in check["message"] for check in health["checks"])

    wait_until(named, "the health of a member names the foreign node")
    assert any(foreign in check["message"] for check in first.get("/health").json["checks"]), first.get("/health").json
    # The old cluster goes on, and neither takes anything from the other.
    first.rows("CREATE DATABASE kept")
    wait_until(lambda: ["kept"] in second.rows("SHOW DATABASES"), "the database is everywhere")
    assert third.rows("SHOW DATABASES") == []
    assert len(third.servers()["meta_nodes"]) == 1
    # Members whose list names the foreign node restart all the same: they are no lone cluster.
    second.join = [third.meta_address, first.meta_address]
    assert second.stop() == 0
    second.start()
    wait_until(lambda: second.status()["leader"], "the restarted member finds its leader")
    for daemon in cluster.daemons:
        assert "Traceback" not in daemon.log


def test_raft_data_without_an_identity(cluster: Cluster) -> None:
    daemon = cluster.add().start()
    assert daemon.stop() == 0
    (daemon.root / "meta" / "node.json").unlink()
    refused(daemon, 12, "node.json", str(daemon.root / "meta"))


def test_an_identity_without_its_raft_data(cluster: Cluster) -> None:
    """A member whose Raft directory is gone would vote anew: it must not start as if nothing had happened."""
    daemon = cluster.add().start()
    daemon.rows("CREATE DATABASE d")
    assert daemon.stop() == 0
    shutil.rmtree(daemon.root / "meta" / "raft")
    refused(daemon, 11, "Raft", str(daemon.root / "meta"), "DROP META SERVER 1")


@pytest.mark.parametrize("content", [b"", b"{", b'{"uuid": 1}', b"\x00" * 300])
def test_a_damaged_identity(cluster: Cluster, content: bytes) -> None:
    daemon = cluster.add()
    (daemon.root / "meta").mkdir(parents=True)
    (daemon.root / "meta" / "node.json").write_bytes(content)
    refused(daemon, 11, "node.json", "DROP META SERVER")


def test_a_bit_flip_in_the_raft_journal(cluster: Cluster) -> None:
    daemon = cluster.add().start()
    for number in range(5):
        daemon.rows(f"CREATE DATABASE d{number}")
    assert daemon.stop() == 0
    journal = daemon.root / "meta" / "raft" / "raft.journal"
    raw = bytearray(journal.read_bytes())
    place = raw.find(b"d1")
    assert place > 0
    raw[place] ^= 1
    journal.write_bytes(raw)
    refused(daemon, 11, "raft.journal")


def test_a_wrong_configuration(cluster: Cluster) -> None:
    daemon = cluster.add(settings={"meta": ["heartbeat-timeout = 7"], "http": ['bind-adress = ":1"']})
    daemon.start(wait=False)
    assert daemon.wait_exit() == 2
    assert "heartbeat-timeout" in daemon.log
    assert "bind-adress" in daemon.log
    assert "Traceback" not in daemon.log


def test_a_port_in_use(cluster: Cluster) -> None:
    first = cluster.add().start()
    second = cluster.add(http_port=first.http_port)
    refused(second, 14, first.address, "in use")


def test_a_name_that_does_not_resolve(cluster: Cluster) -> None:
    daemon = cluster.add()
    daemon.host = "no-such-host.invalid"
    refused(daemon, 14, "no-such-host.invalid", "does not resolve")


def test_a_data_node_alone(cluster: Cluster) -> None:
    daemon = cluster.add(settings={"meta": ["enabled = false"]})
    refused(daemon, 2, "-join")


def test_joining_without_or_with_another_secret(cluster: Cluster, tmp_path: Path) -> None:
    right = write_secret(tmp_path / "right", "r" * 32)
    wrong = write_secret(tmp_path / "wrong", "w" * 32)
    first = cluster.add(settings=with_secret(right)).start()
    refused(cluster.add(join=[first.meta_address]), 15, "cluster.secret", "Copy", first.address)
    refused(cluster.add(join=[first.meta_address], settings=with_secret(wrong)), 15, "cluster.secret", "Copy")
    cluster.add(join=[first.meta_address], settings=with_secret(right)).start()
    assert len(first.servers()["meta_nodes"]) == 2


@pytest.mark.parametrize(("text", "mode", "word"), [("short", 0o600, "16"), ("r" * 32, 0o644, "chmod")])
def test_a_secret_that_is_none(cluster: Cluster, tmp_path: Path, text: str, mode: int, word: str) -> None:
    daemon = cluster.add(settings=with_secret(write_secret(tmp_path / "secret", text, mode)))
    refused(daemon, 15, word, str(tmp_path / "secret"))


def test_a_founder_on_all_interfaces_makes_a_secret_and_a_joiner_is_told_to_copy_it(cluster: Cluster) -> None:
    port, meta = free_port(), free_port()
    settings = {"": ['hostname = "127.0.0.1"'], "meta": []}
    founder = cluster.add(http_port=port, meta_port=meta, settings=settings)
    founder.host = ""
    founder.write_config()
    founder.host = "0.0.0.0"
    founder.start(wait=False)
    founder.host = "127.0.0.1"
    founder.wait_ready()
    secret = founder.root / "meta" / "cluster.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    joiner = cluster.add(join=[founder.meta_address])
    refused(joiner, 15, "cluster.secret")
    (joiner.root / "meta").mkdir(exist_ok=True)
    shutil.copy(secret, joiner.root / "meta" / "cluster.secret")
    joiner.process = None
    joiner.start()
    assert len(joiner.servers()["meta_nodes"]) == 2


def test_a_member_with_a_wrong_secret_says_so(cluster: Cluster, tmp_path: Path) -> None:
    right = write_secret(tmp_path / "right", "r" * 32)
    first = cluster.add(settings=with_secret(right)).start()
    second = cluster.add(join=[first.meta_address], settings=with_secret(right)).start()
    second.kill()
    second.settings = with_secret(write_secret(tmp_path / "wrong", "w" * 32))
    second.start(wait=False)

    def told() -> bool:
        try:
            return any("secret" in check["message"] for check in second.get("/health").json["checks"])
        except OSError:
            return False

    wait_until(told, "its health names the secret")
    assert "Traceback" not in second.log
