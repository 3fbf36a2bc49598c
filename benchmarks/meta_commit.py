"""Commit rate and latency of the metadata Raft: three processes on loopback, every command synced on a majority.

``python -m benchmarks.meta_commit [--size BYTES] [--count N]`` prints a table. The processes are those of tests/raft.
The last column is the CPU time of all three processes for one command: it hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.raft.processes import Process, grow, leader_among

IDLE_S = 5.0


async def cpu_s(processes: Sequence[Process]) -> list[float]:
    """Return the CPU time that each process has used."""
    return [await process.ask("cpu") for process in processes]


async def measure(directory: Path, size: int, count: int) -> list[str]:
    """Return the lines of the report."""
    processes = [Process(f"127.0.0.{number}", directory / f"node{number}") for number in (1, 2, 3)]
    try:
        await grow(processes)
        leader = await leader_among(processes)
        follower = next(process for process in processes if process is not leader)
        await leader.ask("bench", 60, arguments={"count": 200, "clients": 8, "size": size})
        lines = [f"{f'commands of {size} bytes':<34}{'per second':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}"]
        for name, process, clients, number in (
            ("1 client at the leader", leader, 1, count // 4),
            ("1 client via a follower", follower, 1, count // 4),
            ("64 clients at the leader", leader, 64, count * 2),
            ("64 clients via a follower", follower, 64, count * 2),
        ):
            before_s = await cpu_s(processes)
            result = await process.ask("bench", 120, arguments={"count": number, "clients": clients, "size": size})
            lines.append(
                f"{name:<34}{result['per_s']:>12.0f}{result['p50_ms']:>9.2f}{result['p99_ms']:>9.2f}"
                f"{(sum(await cpu_s(processes)) - sum(before_s)) / number * 1e3:>9.2f}"
            )
        before_s = await cpu_s(processes)
        await asyncio.sleep(IDLE_S)
        used = [end_s - start_s for end_s, start_s in zip(await cpu_s(processes), before_s, strict=True)]
        idle = ", ".join(
            f"{'leader' if process is leader else 'follower'} {cpu / IDLE_S:.1%}"
            for process, cpu in zip(processes, used, strict=True)
        )
        return [*lines, f"idle CPU: {idle}"]
    finally:
        for process in processes:
            process.kill()


def main() -> None:
    """Run the benchmark on a temporary directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="meta-commit-") as directory:
        print("\n".join(asyncio.run(measure(Path(directory), arguments.size, arguments.count))))


if __name__ == "__main__":
    main()
