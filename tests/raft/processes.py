"""Starts and steers tests.raft.process; shared by the live tests and benchmarks/meta_commit.py."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.preloaded import ForkedProcess, start_module
from tests.raft.harness import eventually, free_address


class Refused(Exception):
    def __init__(self, reason: str, unknown: bool) -> None:
        super().__init__(reason)
        self.reason, self.unknown = reason, unknown


class Process:
    def __init__(self, host: str, directory: Path) -> None:
        self.address, self.control = free_address(host), free_address(host)
        self.directory = directory
        self.process: ForkedProcess | None = None

    def start(self, bootstrap: Sequence[str]) -> None:
        options = {
            "address": self.address,
            "control": self.control,
            "directory": str(self.directory),
            "bootstrap": list(bootstrap),
        }
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            self.process = start_module("tests.raft.process", [json.dumps(options)], log, log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wipe(self) -> None:
        shutil.rmtree(self.directory)

    async def ask(self, op: str, timeout_s: float = 15.0, **arguments: object) -> object:
        """One request; raises Refused, or OSError when the process does not answer."""
        host, port = self.control.rsplit(":", 1)
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
            try:
                writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        if not line:
            raise ConnectionError("no answer")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"], answer["unknown"])
        return answer["ok"]

    async def status(self) -> dict | None:
        try:
            return await self.ask("status", 2)
        except (OSError, TimeoutError):
            return None


async def leader_among(processes: Sequence[Process], timeout_s: float = 15.0) -> Process:
    async def agreed() -> Process | None:
        views = [(process, await process.status()) for process in processes]
        leaders = [process for process, view in views if view and view["role"] == "leader"]
        same = len(leaders) == 1 and all(view and view["leader"] == leaders[0].address for _, view in views)
        return leaders[0] if same else None

    return await eventually(agreed, timeout_s)


async def grow(processes: Sequence[Process]) -> None:
    """Found a cluster on the first, let the others join one after the other."""
    first = processes[0]
    first.start([first.address])
    await leader_among([first])
    for process in processes[1:]:
        process.start([first.address])
        await first.ask("add", address=process.address)

        async def votes(process: Process = process) -> bool:
            view = await process.status()
            return bool(view and view["is_voter"])

        await eventually(votes)
