"""How long the cluster's own steps take: start, join, fail-over after kill -9; and what idle nodes cost.

    python -m benchmarks.cluster_times [--rounds 5] [--idle-s 10]

Starts real daemons on loopback in a temporary directory and prints one line per figure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.daemons import Cluster, wait_until

if TYPE_CHECKING:
    from tests.cluster.daemons import Daemon


def say(*words: str) -> None:
    """Print one line now: a later round may fail."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def median_max(values_s: list[float]) -> str:
    """``median … s, max … s`` of some durations."""
    return f"median {statistics.median(values_s):.2f} s, max {max(values_s):.2f} s ({len(values_s)} rounds)"


def cpu_s(daemon: Daemon) -> float:
    """Processor time a daemon has used, in seconds."""
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_times(root: Path, rounds: int) -> list[float]:
    """Seconds from the start of a process to ``/ready`` of a new single node."""
    taken_s: list[float] = []
    for number in range(rounds):
        single = Cluster(root / f"single{number}")
        try:
            began_s = time.monotonic()
            single.add().start()
            taken_s.append(time.monotonic() - began_s)
        finally:
            single.close()
    return taken_s


def join_times(daemons: list[Daemon]) -> tuple[list[float], list[float]]:
    """Seconds from process start to ``/ready``, and from the node's first question to its ids (by its own log)."""
    whole_s: list[float] = []
    own_s: list[float] = []
    for daemon in daemons:
        began_s = time.monotonic()
        daemon.start(wait=False)
        wait_until(lambda daemon=daemon: "listening" in daemon.log, "it listens", pause_s=0.005)
        listening_s = time.monotonic()
        daemon.wait_ready()
        whole_s.append(time.monotonic() - began_s)
        own_s.append(time.monotonic() - listening_s)
    return whole_s, own_s


def failover_times(cluster: Cluster, rounds: int) -> list[float]:
    """Seconds from kill -9 of the leader until another node says it leads."""
    taken_s: list[float] = []
    for _ in range(rounds):
        leader = cluster.leader()
        rest = [daemon for daemon in cluster.running() if daemon is not leader]
        began_s = time.monotonic()
        leader.kill()
        wait_until(lambda rest=rest: any(daemon.is_leader() for daemon in rest), "a new leader", 30, 0.01)
        taken_s.append(time.monotonic() - began_s)
        leader.start()
        cluster.wait_servers(3)
    return taken_s


def idle_shares(cluster: Cluster, idle_s: float) -> list[float]:
    """Percent of one processor that each node uses while nobody asks it anything."""
    time.sleep(3)
    before = [cpu_s(daemon) for daemon in cluster.running()]
    began_s = time.monotonic()
    time.sleep(idle_s)
    elapsed_s = time.monotonic() - began_s
    after = [cpu_s(daemon) for daemon in cluster.running()]
    return [100 * (late - early) / elapsed_s for early, late in zip(before, after, strict=True)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-s", type=float, default=10.0)
    options = parser.parse_args()
    say(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        say("single node, process start to ready:", median_max(start_times(root, options.rounds)))
        cluster = Cluster(root / "cluster")
        try:
            first = cluster.add().start()
            whole_s, own_s = join_times([cluster.add(join=[first.meta_address]) for _ in range(2)])
            cluster.wait_servers(3)
            say("join, process start to ready:", median_max(whole_s))
            say("join, listening to ready:", median_max(own_s))
            say("kill -9 of the leader to a new one:", median_max(failover_times(cluster, options.rounds)))
            shares = idle_shares(cluster, options.idle_s)
            say("idle processor use of each node:", ", ".join(f"{share:.1f} %" for share in shares))
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
