"""Three nodes under full load: how late their event loops wake up, and whether an election happens.

    python -m benchmarks.stalls [--seconds 60] [--hosts 100] [--connections 2]

Real daemons on loopback, a database with three copies. One process writes bodies of 5,000 rows at ``quorum`` as fast as
they are taken, another asks the other nodes the questions of the Time Series Benchmark Suite one after the other. What
the machine itself lets a waiting process wait is measured beside it: with more to run than processors, every wake-up is
late. Prints one line per figure.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import re
import statistics
import tempfile
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cluster_times import cpu_s, say
from benchmarks.tsbs.client import Connection
from benchmarks.tsbs.generator import Workload, cpu_bodies
from benchmarks.tsbs.loader import Load, Target, endless
from benchmarks.tsbs.queries import queries
from tests.cluster.daemons import Cluster, wait_until

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe

    from tests.cluster.daemons import Daemon

_DATABASE = "benchmark"
_KINDS = ("single-groupby-1-1-1", "double-groupby-1", "double-groupby-all", "high-cpu-all", "cpu-max-all-8")
_GAUGES = ("dsdb_loop_lag_seconds", "dsdb_raft_tick_lag_seconds", "dsdb_raft_term")


@dataclass
class Watched:
    """The greatest value of each gauge of one node, and the Raft terms that were seen."""

    worst_s: dict[str, float] = field(default_factory=dict)
    terms: set[int] = field(default_factory=set)

    def look(self, daemon: Daemon) -> None:
        """Read the node's metrics once."""
        text = daemon.get("/metrics", timeout_s=60).body.decode()
        for name in _GAUGES:
            found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
            assert found is not None, name
            value = float(found[1])
            if name == "dsdb_raft_term":
                self.terms.add(int(value))
            else:
                self.worst_s[name] = max(value, self.worst_s.get(name, 0.0))


def write(pipe: Pipe, address: str, workload: Workload, connections: int, seconds: float) -> None:
    """Load one node for a time; a process of its own, so that the bodies are not made in the way of the questions."""
    host, port = address.rsplit(":", 1)
    bodies = list(cpu_bodies(workload, 5_000))
    pipe.send("ready")
    span_ns = workload.end_ns - workload.start_ns
    target = Target(host, int(port), f"/write?db={_DATABASE}&consistency=quorum")
    load = Load(target, endless(bodies, span_ns), connections)
    time.sleep(seconds)
    pipe.send(load.stop().figures())


def ask(pipe: Pipe, addresses: list[str], workload: Workload, seconds: float) -> None:
    """Ask the nodes in turn for a time."""
    end_s = time.monotonic() + seconds
    taken_s: list[float] = []
    failed = 0
    asked = [query for kind in _KINDS for query in queries(kind, workload, 20)]
    opened = [Connection(*_split(address)) for address in addresses]
    for query, connection in zip(itertools.cycle(asked), itertools.cycle(opened), strict=False):
        began_s = time.monotonic()
        if began_s > end_s:
            break
        answer = connection.get("/query?" + urllib.parse.urlencode({"db": _DATABASE, "q": query.influxql}))
        failed += answer.status != 200 or b'"error"' in answer.body[-500:]
        taken_s.append(time.monotonic() - began_s)
    pipe.send({"asked": len(taken_s), "failed": failed, "median_s": statistics.median(taken_s), "max_s": max(taken_s)})


def wait_late(pipe: Pipe, seconds: float) -> None:
    """How late a process that does nothing wakes up."""
    end_s, worst_s = time.monotonic() + seconds, 0.0
    while (before_s := time.monotonic()) < end_s:
        time.sleep(0.25)
        worst_s = max(worst_s, time.monotonic() - before_s - 0.25)
    pipe.send(worst_s)


def _split(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)


def beside(function: Any, *arguments: Any) -> tuple[multiprocessing.Process, Pipe]:
    """Start a process that gets the end of a pipe as its first argument."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=function, args=(theirs, *arguments), daemon=True)
    process.start()
    return process, ours


def measure(cluster: Cluster, options: argparse.Namespace) -> None:
    """Load, ask and watch; print what was found."""
    nodes = cluster.grow(3)
    nodes[0].query(f"CREATE DATABASE {_DATABASE} WITH DURATION INF REPLICATION 3")
    wait_until(lambda: all([_DATABASE] in node.rows("SHOW DATABASES") for node in nodes), "the database is known")
    workload = Workload(options.hosts, 360)
    writer = beside(write, nodes[0].address, workload, options.connections, options.seconds)
    assert writer[1].recv() == "ready"
    others = [node.address for node in nodes[1:]]
    asker = beside(ask, others, Workload(options.hosts, 720), options.seconds)
    idler = beside(wait_late, options.seconds)
    watched = [Watched() for _ in nodes]
    before_s = [cpu_s(node) for node in nodes]
    end_s = time.monotonic() + options.seconds
    while time.monotonic() < end_s:
        for node, seen in zip(nodes, watched, strict=True):
            seen.look(node)
        time.sleep(1)
    loaded, asked, late_s = writer[1].recv(), asker[1].recv(), idler[1].recv()
    used_s = [cpu_s(node) - before for node, before in zip(nodes, before_s, strict=True)]
    for process, _ in (writer, asker, idler):
        process.join()
    rows, elapsed_s = loaded["rows"], loaded["elapsed_s"]
    say(
        f"written at quorum: {rows / elapsed_s:,.0f} rows/s, p99 {loaded['p99_ms']:.0f} ms, {loaded['retries']} retries"
    )
    say(f"questions: {asked['asked']}, failed {asked['failed']}, median {asked['median_s'] * 1e3:.0f} ms")
    say(f"processor time of the three nodes: {sum(used_s) / rows * 1e6:.1f} us a row, questions included")
    for number, seen in enumerate(watched, 1):
        lags = ", ".join(f"{name} {value * 1e3:.0f} ms" for name, value in seen.worst_s.items())
        say(f"node {number}: worst {lags}")
    say(f"a process that only waits woke up {late_s * 1e3:.0f} ms late at worst")
    say(f"elections: {len(set().union(*(seen.terms for seen in watched))) - 1}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--connections", type=int, default=2)
    options = parser.parse_args()
    say(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as name:
        cluster = Cluster(Path(name))
        try:
            measure(cluster, options)
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
