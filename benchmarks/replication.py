"""What three copies cost, and what a node that fails, owns nothing or is replaced does to writes and reads.

    python -m benchmarks.replication [--only cpu,switch,owner,copy] [--seconds 10] [--hosts 100] [--copy-rows 5000000]

Real daemons on loopback. Prints one line per figure:

``cpu``     processor time of all daemons for a row: one node alone, and three nodes with three copies at ``quorum``
``switch``  one of three nodes is paused, then another one killed, under writes at ``quorum`` and questions
``owner``   the same questions asked of the owner, and of a node that owns nothing
``copy``    a node is killed, wiped and replaced by a new one while writes go on
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cluster_times import cpu_s, say
from benchmarks.stalls import beside
from benchmarks.tsbs.bodies import moved
from benchmarks.tsbs.client import BadAnswer, Connection
from benchmarks.tsbs.generator import Workload, cpu_bodies
from benchmarks.tsbs.loader import Load, Target, endless
from benchmarks.tsbs.queries import queries
from tests.cluster.daemons import Cluster, request, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection as Pipe

    from benchmarks.tsbs.bodies import Body
    from tests.cluster.daemons import Daemon

_DATABASE = "benchmark"
_WRITE = f"/write?db={_DATABASE}&consistency=quorum"
_NORMAL = 2.0
"""Writes are back to normal when the p99 of half a second is at most so many times that of the time before."""
_WINDOW_S = 0.5
_PARTS = ("cpu", "switch", "owner", "copy")


def make_database(node: Daemon, nodes: list[Daemon], copies: int) -> None:
    """Create the database and wait until every node knows it."""
    node.query(f"CREATE DATABASE {_DATABASE} WITH DURATION INF REPLICATION {copies}")
    wait_until(lambda: all([_DATABASE] in one.rows("SHOW DATABASES") for one in nodes), "the database is known")


def load_for(pipe: Pipe, address: str, hosts: int, seconds: float, rows: int) -> None:
    """Write to one node for a time; a process of its own, whose time is nobody else's."""
    host, port = address.rsplit(":", 1)
    workload = Workload(hosts, 360)
    bodies = list(cpu_bodies(workload, rows))
    pipe.send("ready")
    pipe.recv()
    target = Target(host, int(port), _WRITE)
    load = Load(target, endless(bodies, workload.end_ns - workload.start_ns), 2)
    time.sleep(seconds)
    pipe.send(load.stop().figures())


def settled(nodes: list[Daemon]) -> None:
    """Wait until the nodes use next to no processor: stragglers and what is written out count, too."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        before_s = sum(map(cpu_s, nodes))
        time.sleep(1)
        if sum(map(cpu_s, nodes)) - before_s < 0.05 * len(nodes):
            return


def cost_per_row(nodes: list[Daemon], options: argparse.Namespace) -> tuple[float, float]:
    """Microseconds of all nodes together for a row, and rows per second."""
    before_s = sum(map(cpu_s, nodes))
    process, pipe = beside(load_for, nodes[0].address, options.hosts, options.seconds, 5_000)
    assert pipe.recv() == "ready"
    pipe.send("go")
    figures = pipe.recv()
    process.join()
    settled(nodes)
    return (sum(map(cpu_s, nodes)) - before_s) / figures["rows"] * 1e6, figures["rows"] / figures["elapsed_s"]


def measure_cpu(root: Path, options: argparse.Namespace) -> None:
    """One node, then three with three copies, the same load."""
    found: list[float] = []
    for count in (1, 3):
        cluster = Cluster(root / f"cpu{count}")
        try:
            nodes = cluster.grow(count) if count > 1 else [cluster.add().start()]
            make_database(nodes[0], nodes, count)
            cost_us, rate = cost_per_row(nodes, options)
        finally:
            cluster.close()
        found.append(cost_us)
        say(f"cpu: {count} node(s), {count} copies: {cost_us:.2f} us a row, {rate:,.0f} rows/s acknowledged")
    say(f"cpu: three copies at quorum take {found[1] / found[0]:.2f} times the processor time of one node")


@dataclass
class Sample:
    """One request: when it began, how long it took, and whether it succeeded."""

    began_s: float
    took_s: float
    good: bool


class Caller:
    """A thread that makes one request after another and notes each; a failed write is written again."""

    def __init__(self, node: Daemon, make: Callable[[int], tuple[str, bytes | None]], pause_s: float) -> None:
        self.samples: list[Sample] = []
        self._node, self._make, self._pause_s = node, make, pause_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[Sample]:
        """End, and what was noted."""
        self._stopped.set()
        self._thread.join()
        return self.samples

    def _run(self) -> None:
        number, connection = 0, None
        while not self._stopped.is_set():
            path, body = self._make(number)
            began_s = time.monotonic()
            try:
                if connection is None:
                    connection = Connection(self._node.host, self._node.http_port, 30.0)
                answer = connection.get(path) if body is None else connection.post(path, body)
                good = answer.status in (200, 204) and b'"error"' not in answer.body[-500:]
            except (OSError, BadAnswer):
                good = False
                if connection is not None:
                    connection.close()
                connection = None
            self.samples.append(Sample(began_s, time.monotonic() - began_s, good))
            number += good
            self._stopped.wait(self._pause_s)
        if connection is not None:
            connection.close()


def ms(values_s: list[float], share: float) -> float:
    """A percentile in milliseconds; 0 of nothing."""
    return float(np.percentile(values_s, share)) * 1e3 if values_s else 0.0


def back_to_normal_s(samples: list[Sample], fault_s: float, normal_ms: float) -> float:
    """Seconds from the fault to the end of the last half second whose p99 was not normal, or that had a failure."""
    last_s = 0.0
    windows: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.began_s >= fault_s:
            windows.setdefault(int((sample.began_s - fault_s) / _WINDOW_S), []).append(sample)
    for number, window in windows.items():
        slow = ms([sample.took_s for sample in window], 99) > _NORMAL * normal_ms
        if slow or not all(sample.good for sample in window):
            last_s = max(last_s, (number + 1) * _WINDOW_S)
    return last_s


def tell_switch(what: str, fault_s: float, end_s: float, writes: list[Sample], reads: list[Sample]) -> None:
    """The figures of one fault."""
    before = [one.took_s for one in writes if one.began_s < fault_s]
    during = [one for one in writes if fault_s <= one.began_s < end_s]
    asked = [one for one in reads if fault_s <= one.began_s < end_s]
    failed_writes, failed_reads = (sum(not one.good for one in some) for some in (during, asked))
    normal_ms = ms(before, 99)
    say(
        f"switch: a node is {what}: writes at quorum p99 {ms([one.took_s for one in during], 99):.0f} ms, "
        f"longest {ms([one.took_s for one in during], 100):.0f} ms ({normal_ms:.0f} ms before), "
        f"{failed_writes} of {len(during)} failed, normal after {back_to_normal_s(during, fault_s, normal_ms):.1f} s"
    )
    say(
        f"switch: a node is {what}: reads p99 {ms([one.took_s for one in asked], 99):.0f} ms "
        f"({ms([one.took_s for one in reads if one.began_s < fault_s], 99):.0f} ms before), "
        f"{failed_reads} of {len(asked)} failed"
    )


def measure_switch(root: Path, options: argparse.Namespace) -> None:
    """Pause one of three nodes, then kill it, under writes and questions through the other two."""
    cluster = Cluster(root / "switch")
    try:
        nodes = cluster.grow(3)
        make_database(nodes[0], nodes, 3)
        bodies = list(cpu_bodies(Workload(options.hosts, 60), 200))
        for body in bodies:
            assert nodes[0].write(bytes(body.data), db=_DATABASE, consistency="all").status == 204
        asked = [one.influxql for one in queries("single-groupby-1-1-1", Workload(options.hosts, 360), 20)]
        for what in ("paused", "killed"):
            leader = cluster.leader()
            victim = next(node for node in nodes if node is not leader)
            others = [node for node in nodes if node is not victim]
            writers = [Caller(node, lambda n: (_WRITE, bytes(bodies[n % len(bodies)].data)), 0.02) for node in others]
            readers = [Caller(node, lambda n: (_question(asked[n % len(asked)]), None), 0.02) for node in others]
            time.sleep(options.seconds / 2)
            fault_s = time.monotonic()
            assert victim.process is not None
            if what == "paused":
                os.kill(victim.process.pid, signal.SIGSTOP)
            else:
                victim.kill()
            time.sleep(options.seconds)
            end_s = time.monotonic()
            writes = [sample for caller in writers for sample in caller.stop()]
            reads = [sample for caller in readers for sample in caller.stop()]
            if what == "paused":
                os.kill(victim.process.pid, signal.SIGCONT)
                wait_until(lambda: nodes[0].status()["status"] == "pass", "all is well again", 60)
            tell_switch(what, fault_s, end_s, writes, reads)
    finally:
        cluster.close()


def _question(text: str) -> str:
    return "/query?" + urllib.parse.urlencode({"db": _DATABASE, "q": text})


def measure_owner(root: Path, options: argparse.Namespace) -> None:
    """The same questions, in turn, to the node that has the points and to one that has none."""
    cluster = Cluster(root / "owner")
    try:
        owner = cluster.add().start()
        other = cluster.add(join=[owner.meta_address], settings={"data": ["enabled = false"]}).start()
        make_database(owner, [owner, other], 1)
        workload = Workload(options.hosts, 1_440)
        for body in cpu_bodies(workload, 5_000):
            assert owner.write(bytes(body.data), db=_DATABASE).status == 204
        for kind in ("single-groupby-1-1-1", "cpu-max-all-8", "double-groupby-1", "double-groupby-all"):
            taken: dict[str, list[float]] = {"owner": [], "other": []}
            for one in queries(kind, workload, 20):
                for name, node in (("owner", owner), ("other", other)):
                    with Connection(node.host, node.http_port) as connection:
                        connection.get("/ping")
                        began_s = time.perf_counter()
                        answer = connection.get(_question(one.influxql))
                        taken[name].append(time.perf_counter() - began_s)
                    assert answer.status == 200 and b'"error"' not in answer.body[-500:], answer.body[:200]
            here, there = (statistics.median(taken[name]) * 1e3 for name in ("owner", "other"))
            say(f"owner: {kind}: {here:.1f} ms at the owner, {there:.1f} ms elsewhere, {there / here:.2f} times")
    finally:
        cluster.close()


def measure_copy(root: Path, options: argparse.Namespace) -> None:
    """Fill three nodes, take one away for good, and let a new one take its place while writes go on."""
    cluster = Cluster(root / "copy")
    try:
        nodes = cluster.grow(3, settings={"transfer": ['max-throughput = "0"']} if options.unlimited else {})
        make_database(nodes[0], nodes, 3)
        filled = fill(nodes, options)
        settled(nodes)
        lost = nodes[2]
        rows = {row["tcp_addr"]: row["data_id"] for row in nodes[0].status()["nodes"]}
        lost_id = rows[lost.address]
        lost.kill()
        fresh = cluster.add(join=[nodes[0].meta_address], settings=lost.settings).start()
        wait_until(lambda: fresh.address in {row["tcp_addr"] for row in nodes[0].status()["nodes"]}, "it is a member")
        fresh_id = next(row["data_id"] for row in nodes[0].status()["nodes"] if row["tcp_addr"] == fresh.address)
        bodies = list(cpu_bodies(after(filled), 500))
        process, pipe = beside(write_for, nodes[0].address, bodies, after(filled), options.live_rate)
        assert pipe.recv() == "ready"
        writer = Caller(nodes[1], small_bodies(filled), 0.01)
        pipe.send("go")
        time.sleep(options.seconds)
        used_s = {node.address: cpu_s(node) for node in (*nodes[:2], fresh)}
        began_s = time.monotonic()
        order(nodes[0], {"op": "replace", "node": lost_id, "to": fresh_id})
        wait_until(lambda: nodes[0].status()["moves"]["copies"] > 0, "it has begun", 60)
        found = watch_moves(nodes[0], began_s)
        used_s = {node.address: cpu_s(node) - used_s[node.address] for node in (*nodes[:2], fresh)}
        pipe.send("stop")
        figures = pipe.recv()
        process.join()
        tell_copy(found, used_s.values(), [lost.root / "data", fresh.root / "data"])
        tell_slowing(writer.stop(), began_s, found, figures)
    finally:
        cluster.close()


@dataclass
class Moved:
    """Bytes of the files that were copied, and seconds from the order until all were there, and until all counted."""

    file_bytes: int
    files_s: float
    owners_s: float


def watch_moves(node: Daemon, began_s: float) -> Moved:
    """Wait until no copy is under way any more."""
    sizes: dict[int, int] = {}
    files_s, deadline_s = 0.0, time.monotonic() + 1_800
    while time.monotonic() < deadline_s:
        moves = node.get("/cluster/moves").json["moves"]
        sizes.update({one["shard"]: one["total_bytes"] for one in moves if one["total_bytes"]})
        if any(one["state"] in ("waiting", "copying", "failed") for one in moves):
            files_s = time.monotonic() - began_s
        if not moves:
            return Moved(sum(sizes.values()), files_s, time.monotonic() - began_s)
        time.sleep(0.2)
    raise AssertionError("the copy does not come to its end")


def tell_copy(moved: Moved, used_s: Iterable[float], directories: list[Path]) -> None:
    """The figures of the copy; ``directories``: of a node that had the shards and of the one that has them now."""
    size_mb = moved.file_bytes / 1e6
    on_disk = [sum(one.stat().st_size for one in there.rglob("*.parquet")) / 1e6 for there in directories]
    say(
        f"copy: {size_mb:.0f} MB of files were there after {moved.files_s:.1f} s, {size_mb / moved.files_s:.0f} MB/s, "
        f"and counted after {moved.owners_s:.1f} s, {size_mb / moved.owners_s:.0f} MB/s, beside live writes"
    )
    say(
        f"copy: processor time of the two owners and of the new node meanwhile: "
        f"{', '.join(f'{used:.1f}' for used in used_s)} s; files of the lost node {on_disk[0]:.0f} MB, "
        f"of the new one {on_disk[1]:.0f} MB"
    )


def tell_slowing(samples: list[Sample], began_s: float, moved: Moved, figures: dict[str, Any]) -> None:
    """What the copy did to the writes."""
    before = [one.took_s for one in samples if one.began_s < began_s]
    during = [one.took_s for one in samples if began_s <= one.began_s < began_s + moved.owners_s]
    say(
        f"copy: live writes at quorum: median {ms(before, 50):.1f} ms before, {ms(during, 50):.1f} ms meanwhile, "
        f"{ms(during, 50) / ms(before, 50):.2f} times; p99 {ms(before, 99):.0f} and {ms(during, 99):.0f} ms; "
        f"{figures['rows'] / figures['elapsed_s']:,.0f} rows/s beside, "
        f"{sum(not one.good for one in samples)} of {len(samples)} failed"
    )


def fill(nodes: list[Daemon], options: argparse.Namespace) -> Workload:
    """Write so many rows; no value repeats, because a file of repeated ones is small whatever the rows."""
    workload = Workload(options.hosts, -(-options.copy_rows // options.hosts))
    for number, body in enumerate(cpu_bodies(workload, 5_000)):
        answer = nodes[number % 3].write(bytes(body.data), timeout_s=60, db=_DATABASE, consistency="quorum")
        assert answer.status == 204, answer
    return workload


def after(filled: Workload, offset_ns: int = 0) -> Workload:
    """What is written next: rows as new as those of clients are."""
    return Workload(filled.hosts, 360, start_ns=filled.end_ns + offset_ns, seed=filled.seed + 1)


def write_for(pipe: Pipe, address: str, bodies: list[Body], workload: Workload, rate: float) -> None:
    """Write to one node until told to stop; a process of its own."""
    host, port = address.rsplit(":", 1)
    pipe.send("ready")
    pipe.recv()
    load = Load(Target(host, int(port), _WRITE), endless(bodies, workload.end_ns - workload.start_ns), 2, rate)
    pipe.recv()
    pipe.send(load.stop().figures())


def small_bodies(filled: Workload) -> Callable[[int], tuple[str, bytes | None]]:
    """A row of each host, at times of its own, later each time."""
    workload = after(filled, 10**9)
    bodies = list(cpu_bodies(workload, workload.hosts))
    span_ns = workload.end_ns - workload.start_ns
    return lambda number: (
        _WRITE,
        bytes(moved(bodies[number % len(bodies)], number // len(bodies) * span_ns).data),
    )


def order(node: Daemon, what: dict[str, Any]) -> None:
    """Give an order about shards. Raises AssertionError with the reason when it is refused."""
    answer = request("POST", node.url("/cluster/apply"), json.dumps(what).encode(), timeout_s=60)
    assert answer.status == 200, answer.body


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(_PARTS), help="of " + ", ".join(_PARTS))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--copy-rows", type=int, default=5_000_000, help="rows that are stored before the copy")
    parser.add_argument("--live-rate", type=float, default=5_000.0, help="rows a second that are written meanwhile")
    parser.add_argument("--unlimited", action="store_true", help="copy as fast as it goes")
    options = parser.parse_args()
    say(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    measures = {"cpu": measure_cpu, "switch": measure_switch, "owner": measure_owner, "copy": measure_copy}
    with tempfile.TemporaryDirectory() as name:
        for part in options.only.split(","):
            measures[part](Path(name), options)


if __name__ == "__main__":
    main()
