"""Points in a cluster of three nodes of which some are down, full, busy, or killed in the middle."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow]
HOUR_NS = 3600 * 10**9


def create(nodes: list[Daemon], name: str, policy: str) -> None:
    assert nodes[0].query(f"CREATE DATABASE {name} WITH {policy}") == {"results": [{"statement_id": 0}]}
    wait_until(lambda: all([name] in node.rows("SHOW DATABASES") for node in nodes), "the database is known everywhere")


def data_id(node: Daemon) -> str:
    return next(str(row[0]) for row in node.servers()["data_nodes"] if row[2] == node.address)


def owned(node: Daemon, database: str) -> dict[str, set[str]]:
    """Shard id to the ids of its owners."""
    return {str(row[0]): set(row[7].split(",")) for row in node.rows("SHOW SHARDS") if row[1] == database}


def count(node: Daemon, database: str) -> int:
    rows = node.rows("SELECT count(value) FROM cpu", db=database)
    return rows[0][1] if rows else 0


def parquet_files(node: Daemon, *names: str) -> list[str]:
    """Files below a directory that the node may be removing meanwhile (``Path.glob`` fails on that)."""
    below = os.walk(node.root.joinpath("data", *names))
    return [name for _, _, files in below for name in files if name.endswith(".parquet")]


def test_levels_with_owners_down_claim_nothing_that_is_not_stored(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", "REPLICATION 3")
    first, second, third = nodes
    assert first.write("cpu value=0 0", db="d", consistency="all").status == 204
    third.kill()
    assert first.write("cpu value=1 1", db="d", consistency="one").status == 204
    assert second.write("cpu value=2 2", db="d", consistency="quorum").status == 204
    answer = first.write("cpu value=3 3", db="d", consistency="all")
    assert (answer.status, answer.json["code"]) == (504, "outcome_unknown")
    assert answer.json["error"].startswith("partial write: 2 of 3 owners of shard ")
    second.kill()
    # No leader any more, yet the shard exists and this node owns it.
    assert first.write("cpu value=4 4", db="d", consistency="one").status == 204
    answer = first.write("cpu value=5 5", db="d", consistency="quorum")
    assert (answer.status, answer.json["code"]) == (504, "outcome_unknown")
    assert first.rows("SELECT value FROM cpu", db="d", epoch="ns") == [[n, n] for n in range(6)]
    second.start(wait=False)
    second.wait_ready()
    # What was acknowledged at quorum is there at once, from its own files.
    stored = {row[0] for row in second.rows("SELECT value FROM cpu", db="d", epoch="ns")}
    assert {0, 2} <= stored


def test_shard_whose_only_owner_is_down_refuses_by_name(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", "REPLICATION 1")
    series = [f"cpu,host=h{number} value={number} {number}" for number in range(30)]
    assert nodes[0].write("\n".join(series), db="d").status == 204
    shards = owned(nodes[0], "d")
    assert len(shards) == 3
    victim = next(node for node in nodes if not node.is_leader())
    others = [node for node in nodes if node is not victim]
    lost = next(shard for shard, owners in shards.items() if owners == {data_id(victim)})
    victim.kill()
    for node in others:
        answer = node.get("/query", db="d", q="SELECT count(value) FROM cpu")
        assert (answer.status, answer.json["code"]) == (503, "shard_unavailable")
        assert answer.json["error"].startswith(f"shard {lost} of d cannot be read: ")
        assert "Retry-After" in answer.headers
    stored, refused = [], []
    for number in range(30, 60):
        answer = others[0].write(f"cpu,host=h{number} value={number} {number}", db="d")
        (stored if answer.status == 204 else refused).append(number)
        if answer.status != 204:
            assert (answer.status, answer.json["code"]) == (503, "shard_unavailable")
            assert answer.json["error"].startswith(f"write failed: no owner of shard {lost} stored the points: ")
    assert stored
    assert refused
    # A batch that only partly found owners is not claimed, and not denied either.
    answer = others[0].write("\n".join(f"cpu,host=h{n} value={n} {n}" for n in range(60, 90)), db="d")
    assert (answer.status, answer.json["code"]) == (504, "outcome_unknown")
    victim.start()
    wait_until(lambda: others[0].get("/query", db="d", q="SELECT value FROM cpu").status == 200, "the shard is back")
    times = {row[0] for row in others[0].rows("SELECT value FROM cpu WHERE time < 60", db="d", epoch="ns")}
    assert times == set(range(30)) | set(stored)


def test_next_owner_answers_when_one_is_down(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", "REPLICATION 2 SHARD DURATION 1h")
    lines = "\n".join(f"cpu,host=h{n % 5} value={n} {n * HOUR_NS // 4}" for n in range(100))
    assert nodes[0].write(lines, db="d", consistency="all").status == 204
    for victim in nodes:
        victim.kill()
        for node in cluster.running():
            assert count(node, "d") == 100
            assert len(node.rows("SHOW SERIES", db="d")) == 5
        victim.start()
        cluster.wait_servers(3)
    nodes[0].kill()
    nodes[1].kill()
    answer = nodes[2].get("/query", db="d", q="SELECT value FROM cpu")
    assert (answer.status, answer.json["code"]) == (503, "shard_unavailable")


class Writer(threading.Thread):
    """Writes one point a request through the nodes in turn, and remembers what was acknowledged."""

    def __init__(self, nodes: list[Daemon], first: int, consistency: str) -> None:
        super().__init__(daemon=True)
        self.nodes = nodes
        self.next = first
        self.consistency = consistency
        self.acknowledged: set[int] = set()
        self.statuses: set[int] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            number, self.next = self.next, self.next + 1
            node = self.nodes[number % len(self.nodes)]
            try:
                line = f"cpu,host=h{number % 7} value={number} {number}"
                answer = node.write(line, db="d", consistency=self.consistency, timeout_s=20)
            except (OSError, http.client.HTTPException):
                continue
            self.statuses.add(answer.status)
            if answer.status == 204:
                self.acknowledged.add(number)


@pytest.mark.parametrize(("replication", "consistency"), [(1, "one"), (3, "quorum")])
def test_kill_under_load_loses_no_acknowledged_point(cluster: Cluster, replication: int, consistency: str) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", f"REPLICATION {replication}")
    writers = [Writer(nodes, number * 1_000_000, consistency) for number in range(4)]
    for writer in writers:
        writer.start()
    for victim in (nodes[2], cluster.leader()):
        before = sum(len(writer.acknowledged) for writer in writers)
        wait_until(lambda before=before: sum(len(w.acknowledged) for w in writers) > before + 100, "writes go on")
        victim.kill()
        if replication == 3:
            before = sum(len(writer.acknowledged) for writer in writers)
            wait_until(lambda before=before: sum(len(w.acknowledged) for w in writers) > before + 50, "quorum writes")
            # At once, without the killed node. A node that was down before may lack what was written meanwhile, so
            # the union of the two others counts.
            promised = {number for writer in writers for number in tuple(writer.acknowledged)}
            found: set[int] = set()
            for node in cluster.running():
                found |= {row[0] for row in node.rows("SELECT value FROM cpu", db="d", epoch="ns", timeout_s=60)}
            assert not promised - found
        victim.start()
        cluster.wait_servers(3)
    for writer in writers:
        writer.stop.set()
    for writer in writers:
        writer.join(30)
    promised = {number for writer in writers for number in writer.acknowledged}
    assert len(promised) > 200
    assert set().union(*(writer.statuses for writer in writers)) <= {204, 503, 504}
    found = set()
    for node in nodes:
        found |= {row[0] for row in node.rows("SELECT value FROM cpu", db="d", epoch="ns", timeout_s=60)}
    assert not promised - found


def test_drop_reaches_a_node_that_was_down(cluster: Cluster) -> None:
    nodes = cluster.grow(3, settings={"data": ['cache-snapshot-write-cold-duration = "1s"']})
    for name in ("gone", "kept"):
        create(nodes, name, "REPLICATION 3")
        nodes[0].query(f"CREATE RETENTION POLICY other ON {name} DURATION INF REPLICATION 3")
        for policy in ("autogen", "other"):
            assert nodes[1].write("cpu value=1 1", db=name, rp=policy, consistency="all").status == 204
    away = next(node for node in nodes if not node.is_leader())
    others = [node for node in nodes if node is not away]
    wait_until(lambda: parquet_files(away, "gone"), "there are files to remove")
    away.stop()
    others[0].query("DROP DATABASE gone")
    others[1].query("DROP RETENTION POLICY other ON kept")
    others[0].query("CREATE DATABASE gone WITH REPLICATION 3")
    others[0].query("CREATE RETENTION POLICY other ON kept DURATION INF REPLICATION 3")
    away.start()
    wait_until(lambda: ["gone"] in away.rows("SHOW DATABASES"), "the node has the new metadata")
    wait_until(lambda: not parquet_files(away, "gone"), "no files of gone")
    wait_until(lambda: not parquet_files(away, "kept", "other"), "no files of other")
    for node in nodes:
        assert node.rows("SELECT * FROM cpu", db="gone") == []
        assert node.rows("SELECT * FROM kept.other.cpu") == []
        assert count(node, "kept") == 1
    assert nodes[0].write("cpu value=2 2", db="gone", consistency="all").status == 204
    for node in nodes:
        assert node.rows("SELECT value FROM cpu", db="gone", epoch="ns") == [[2, 2]]


def test_query_of_a_client_that_goes_away_is_cancelled(cluster: Cluster) -> None:
    nodes = cluster.grow(2)
    create(nodes, "d", "REPLICATION 1")
    for start in range(0, 900_000, 300_000):
        lines = "\n".join(f"cpu,host=h{n % 50} value={n % 977} {n * 1000}" for n in range(start, start + 300_000))
        assert nodes[0].write(lines, db="d", timeout_s=120).status == 204
    text = "; ".join(["SELECT stddev(value), median(value) FROM cpu GROUP BY time(1ms), host fill(none)"] * 40)
    connection = http.client.HTTPConnection(nodes[0].address, timeout=60)
    connection.request("POST", "/query", urllib.parse.urlencode({"db": "d", "q": text}))
    time.sleep(0.5)
    connection.close()

    def idle() -> bool:
        before = [cpu_s(node) for node in nodes]
        time.sleep(0.5)
        return all(cpu_s(node) - was < 0.15 for node, was in zip(nodes, before, strict=True))

    wait_until(idle, "both nodes are idle again", 30)
    assert "Traceback" not in nodes[0].log + nodes[1].log


def cpu_s(node: Daemon) -> float:
    assert node.process is not None
    with open(f"/proc/{node.process.pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB, for which root is needed."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.root
def test_full_disk_refuses_writes_serves_reads_and_recovers_by_itself(cluster: Cluster, small_disk: Path) -> None:
    node = cluster.add()
    node.root.mkdir(parents=True)
    for name in ("data", "wal"):
        (small_disk / name).mkdir()
        (node.root / name).symlink_to(small_disk / name)
    node.start()
    create([node], "d", "REPLICATION 1")
    assert node.write("cpu value=1 1", db="d").status == 204
    ballast = small_disk / "ballast"
    fill(ballast)

    def refused() -> bool:
        lines = "\n".join(f'big,host=h{n} text="{"x" * 200}" {n}' for n in range(1000))
        answer = node.write(lines, db="d", timeout_s=30)
        if answer.status == 204:
            return False
        assert (answer.status, answer.json["code"]) == (503, "disk_full"), answer
        assert int(answer.headers["Retry-After"]) > 0
        return True

    wait_until(refused, "a write is refused", 30)
    assert node.rows("SELECT value FROM cpu", db="d", epoch="ns") == [[1, 1]]
    assert node.get("/health").json["status"] in ("warn", "fail")
    ballast.unlink()
    wait_until(lambda: node.write("cpu value=2 2", db="d").status == 204, "writes go on", 30)
    assert node.rows("SELECT value FROM cpu", db="d", epoch="ns") == [[1, 1], [2, 2]]
    node.kill()
    node.start()
    assert node.rows("SELECT value FROM cpu", db="d", epoch="ns") == [[1, 1], [2, 2]]


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue


BUSY = """
import pathlib, signal, time
def busy(*_):
    pathlib.Path({marker!r}).touch()
    end = time.monotonic() + 5.0
    while time.monotonic() < end:
        pass
signal.signal(signal.SIGUSR1, busy)
"""


def test_busy_loop_in_the_http_thread_of_the_leader_costs_no_election(cluster: Cluster, tmp_path: Path) -> None:
    marker = tmp_path / "busy"
    (tmp_path / "sitecustomize.py").write_text(BUSY.format(marker=str(marker)))
    nodes = cluster.grow(3, environ={"PYTHONPATH": str(tmp_path)})
    create(nodes, "d", "REPLICATION 3")
    leader = cluster.leader()
    other = next(node for node in nodes if node is not leader)
    before = terms(nodes)
    assert leader.process is not None
    leader.process.send_signal(signal.SIGUSR1)
    wait_until(marker.exists, "the loop is busy")
    with ThreadPoolExecutor() as threads:
        ping = threads.submit(leader.get, "/ping", timeout_s=30)
        # The others can still change the metadata through the busy leader.
        assert other.query("CREATE DATABASE meanwhile") == {"results": [{"statement_id": 0}]}
        assert not ping.done(), "the loop was not busy"
        assert ping.result().status == 204
    assert terms(nodes) == before
    assert leader.is_leader()


def terms(nodes: list[Daemon]) -> list[int]:
    return [row[0] for node in nodes for row in [term_of(node)]]


def term_of(node: Daemon) -> list[int]:
    series = next(s for s in node.query("SHOW STATS")["results"][0]["series"] if s["name"] == "raft")
    return [series["values"][0][series["columns"].index("term")]]


CLI = shutil.which("influx")


@pytest.mark.debian
@pytest.mark.skipif(CLI is None, reason="influx of Debian's influxdb-client is not installed")
def test_influx_shell_of_debian_through_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    nodes = cluster.grow(3)

    def influx(node: Daemon, *arguments: str) -> str:
        command = ["influx", "-host", node.host, "-port", str(node.http_port), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": "/tmp"})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for node in nodes:
        lines = [line.split() for line in influx(node, "-execute", "SHOW SERVERS").splitlines()]
        tables = node.servers()
        for table in ("data_nodes", "meta_nodes"):
            assert ["name:", table] in lines
            for row in tables[table]:
                assert [str(cell) for cell in row] in lines
    influx(nodes[0], "-execute", "CREATE DATABASE shell WITH REPLICATION 2")
    influx(nodes[1], "-database", "shell", "-execute", "INSERT cpu,host=a value=1 1000000000")
    text = influx(nodes[2], "-database", "shell", "-precision", "rfc3339", "-execute", "SELECT * FROM cpu")
    assert [line.split() for line in text.splitlines()][-1] == ["1970-01-01T00:00:01Z", "a", "1"]
    csv = influx(nodes[0], "-database", "shell", "-format", "csv", "-execute", "SELECT * FROM cpu")
    assert csv.split() == ["name,time,host,value", "cpu,1000000000,a,1"]
    text = influx(nodes[0], "-database", "shell", "-format", "json", "-execute", "SELECT value FROM cpu")
    assert '"values":[[1000000000,1]]' in text.replace(" ", "").replace("\n", "")
    script = tmp_path / "import.txt"
    points = "".join(f"cpu,host=h{n} value={n} {n + 2_000_000_000}\n" for n in range(12_000))
    script.write_text(
        "# DDL\nCREATE DATABASE imported WITH REPLICATION 2\n# DML\n# CONTEXT-DATABASE: imported\n" + points
    )
    influx(nodes[1], "-import", "-path", str(script), "-precision", "ns")
    for node in nodes:
        assert count(node, "imported") == 12_000
    wrong = subprocess.run(
        ["influx", "-host", nodes[0].host, "-port", str(nodes[0].http_port), "-execute", "SELECT"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": "/tmp"},
    )
    assert "error parsing query" in wrong.stdout + wrong.stderr
