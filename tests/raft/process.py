"""A Raft node as a process, steered by JSON lines on a control port; its argument is its options, in JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path

from dsdbd.meta.raft import NotCommitted
from tests.raft.harness import Member
from tests.raft.machines import POISON, set_command


def spin(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass


async def handle(member: Member, request: dict) -> object:
    node = member.node
    match request["op"]:
        case "set":
            answer = await node.propose(
                set_command(request["id"], request["key"], request["value"]), request["timeout"]
            )
            return int.from_bytes(answer[-2:], "big")
        case "poison":
            return (await node.propose(POISON, 3)).hex()
        case "barrier":
            return await node.barrier(3)
        case "add":
            return await node.add_voter(request["address"], 10)
        case "remove":
            return await node.remove_voter(request["address"], 5)
        case "transfer":
            return await node.transfer_leadership(5)
        case "values":
            await node.barrier(5)
            return {
                key: [value[0] if len(str(value[0])) < 50 else "…", value[1]]
                for key, value in member.machine.values.items()
            }
        case "status":
            status = node.status()
            return {name: getattr(status, name) for name in status.__dataclass_fields__ if name != "peers"}
        case "cpu":
            return sum(os.times()[:2])
        case "block":
            spin(request["seconds"])
            return None
        case "bench":
            return await bench(member, **request["arguments"])
    raise ValueError(request["op"])


async def bench(member: Member, count: int, clients: int, size: int) -> dict:
    """Commit ``count`` commands of ``size`` bytes from ``clients`` concurrent callers."""
    latencies: list[float] = []
    numbers = iter(range(count))
    prefix = f"{member.address}-{time.monotonic_ns()}"

    async def client() -> None:
        for number in numbers:
            started_s = time.perf_counter()
            await member.node.propose(set_command(f"{prefix}-{number}", f"b{number % 500}", "x" * size), 10)
            latencies.append(time.perf_counter() - started_s)

    started_s = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    elapsed_s = time.perf_counter() - started_s
    latencies.sort()
    return {
        "per_s": count / elapsed_s,
        "p50_ms": latencies[count // 2] * 1e3,
        "p99_ms": latencies[int(count * 0.99)] * 1e3,
    }


async def serve() -> None:
    options = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    member = Member(options["address"], Path(options["directory"]), options["bootstrap"])
    await member.start()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            try:
                answer = {"ok": await handle(member, json.loads(line))}
            except NotCommitted as error:
                answer = {"error": error.reason, "unknown": error.outcome_unknown}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}", "unknown": True}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    host, port = options["control"].rsplit(":", 1)
    server = await asyncio.start_server(control, host, int(port), limit=1 << 24)
    async with server:
        await server.serve_forever()


def main() -> None:
    asyncio.run(serve())
