"""Three real processes on loopback: kill -9 under load, removal, wiped re-join, transfer, poison, busy loops."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.raft.harness import eventually
from tests.raft.processes import Process, Refused, grow, leader_among

pytestmark = pytest.mark.slow


class Load:
    """Clients that repeat each command with the same request id until it is acknowledged."""

    def __init__(self, processes: list[Process]) -> None:
        self.processes = processes
        self.acked: dict[str, int] = {}
        self.slowest_s = 0.0
        self.count = 0
        self.ended = False
        self.tasks: list[asyncio.Task] = []

    def start(self, clients: int = 6) -> None:
        self.tasks = [asyncio.create_task(self._client()) for _ in range(clients)]

    async def _client(self) -> None:
        while not self.ended:
            await self.put(random.choice(self.processes))

    async def put(self, process: Process) -> None:
        self.count += 1
        number, started_s = self.count, time.monotonic()
        for _ in range(200):
            try:
                arguments = {"id": f"r{number}", "key": f"k{number}", "value": number, "timeout": 2}
                await process.ask("set", 4, **arguments)
                self.acked[f"k{number}"] = number
                self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
                return
            except (Refused, OSError, TimeoutError):
                process = random.choice(self.processes)
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        self.ended = True
        await asyncio.gather(*self.tasks)

    async def judge(self, processes: list[Process]) -> None:
        """Every acknowledged command is everywhere, once, and all states are the same."""
        states = [await process.ask("values") for process in processes]
        for state in states:
            assert [key for key in self.acked if key not in state] == []
            assert [key for key, value in state.items() if value[1] != 1] == []
        assert all(state == states[0] for state in states)


@pytest.fixture
def processes(tmp_path: Path):
    made = [Process(f"127.0.0.{number}", tmp_path / f"node{number}") for number in (1, 2, 3)]
    yield made
    for process in made:
        process.kill()


def test_kill_9_of_leaders_and_of_all_loses_nothing(processes):
    async def body() -> None:
        await grow(processes)
        load = Load(processes)
        load.start()
        elections_s = []
        for _ in range(2):
            leader = await leader_among(processes)
            before = len(load.acked)
            await eventually(lambda before=before: len(load.acked) > before + 100, 20)
            leader.kill()
            killed_s = time.monotonic()
            await leader_among([process for process in processes if process is not leader])
            elections_s.append(time.monotonic() - killed_s)
            # What is on disk counts, not the list given here.
            leader.start([leader.address])
            await leader_among(processes)
        for process in processes:
            process.kill()
        for process in processes:
            process.start([process.address])
        await leader_among(processes)
        before = len(load.acked)
        await eventually(lambda: len(load.acked) > before + 100, 20)
        await load.end()
        await load.judge(processes)
        print(f"elections {elections_s}, acked {len(load.acked)}")
        assert len(load.acked) > 300

    asyncio.run(body())


def test_members_leave_come_back_empty_and_hand_over(processes):
    async def body() -> None:
        await grow(processes)
        load = Load(processes)
        for _ in range(40):
            await load.put(processes[0])
        leader = await leader_among(processes)
        gone = next(process for process in processes if process is not leader)
        rest = [process for process in processes if process is not gone]
        await leader.ask("remove", address=gone.address)

        async def knows() -> bool:
            return (await gone.status())["removed"]

        await eventually(knows)
        assert (await gone.status())["role"] == "learner"
        with pytest.raises(Refused, match="TRANSFER_FIRST"):
            await leader.ask("remove", address=leader.address)
        term = (await leader.status())["term"]
        for _ in range(20):
            await load.put(leader)
        gone.kill()
        gone.wipe()
        gone.start([process.address for process in rest])
        await leader.ask("add", address=gone.address)
        await load.judge(processes)
        assert (await leader.status())["term"] == term, "neither leaving nor joining costs an election"
        started_s = time.monotonic()
        await leader.ask("transfer")
        print(f"transfer {time.monotonic() - started_s:.3f} s")
        assert await leader_among(processes) is not leader
        for process in processes:
            with pytest.raises(Refused, match="refused the command"):
                await process.ask("poison")
        await load.put(gone)
        await load.judge(processes)

    asyncio.run(body())


def test_a_busy_main_loop_costs_no_election_and_idle_costs_little(processes):
    async def body() -> None:
        await grow(processes)
        leader = await leader_among(processes)
        followers = [process for process in processes if process is not leader]
        term = (await leader.status())["term"]
        load = Load(followers)
        load.start(2)
        await asyncio.gather(leader.ask("block", seconds=3), followers[0].ask("block", seconds=1))
        await load.end()
        status = await leader.status()
        print(f"tick lag {status['tick_lag_max_s']:.3f} s, slowest write {load.slowest_s:.3f} s")
        assert (status["role"], status["term"]) == ("leader", term)
        assert status["tick_lag_max_s"] < 0.5
        before = [await process.ask("cpu") for process in processes]
        await asyncio.sleep(4)  # measures use over a time, waits for nothing
        used = [await process.ask("cpu") - start for process, start in zip(processes, before, strict=True)]
        print(f"idle cpu {[f'{value / 4:.2%}' for value in used]}")
        assert max(used) / 4 < 0.04

    asyncio.run(body())
