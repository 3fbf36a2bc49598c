"""Listener, ports and nodes for tests: the same hand-over of an accepted stream that the daemon's listener makes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from dsdbd.meta.raft import PREAMBLE, RaftNode, RaftTimings
from tests.cluster.daemons import free_port
from tests.raft.machines import MapMachine

CLUSTER = "cluster-1"
SECRET = b"a secret of the tests"


def free_address(host: str = "127.0.0.1") -> str:
    return f"{host}:{free_port(host)}"


async def eventually(what: Callable[[], object], timeout_s: float = 10.0, period_s: float = 0.01) -> object:
    deadline = time.monotonic() + timeout_s
    while True:
        value = what()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(period_s)


class Listener:
    """Accepts on the caller's loop, consumes the preamble, hands the socket to the Raft thread's loop."""

    def __init__(self, address: str, node: RaftNode) -> None:
        host, port = address.rsplit(":", 1)
        self.node = node
        host = host.strip("[]")
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, int(port)))
        self.socket.listen(64)
        self.socket.setblocking(False)
        self.task = asyncio.create_task(self._accept())
        self.handed_over: set[asyncio.Task] = set()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self.socket)
            task = loop.create_task(self._hand_over(accepted))
            self.handed_over.add(task)
            task.add_done_callback(self.handed_over.discard)

    async def _hand_over(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        accepted.setblocking(False)
        try:
            head = b""
            while len(head) < len(PREAMBLE) and PREAMBLE.startswith(head):
                part = await loop.sock_recv(accepted, len(PREAMBLE) - len(head))
                if not part:
                    break
                head += part
            if head != PREAMBLE:
                accepted.close()
                return
            connect = self.node.loop.connect_accepted_socket(self.node.protocol_factory, accepted)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(connect, self.node.loop))
        except (OSError, asyncio.CancelledError):
            accepted.close()

    async def close(self) -> None:
        self.task.cancel()
        for task in list(self.handed_over):
            task.cancel()
        await asyncio.gather(self.task, *self.handed_over, return_exceptions=True)
        self.socket.close()


class Member:
    """A node with its listener, machine and everything it reported."""

    def __init__(
        self,
        address: str,
        directory: Path,
        bootstrap: Sequence[str],
        *,
        secret: bytes = SECRET,
        cluster_id: str = CLUSTER,
        timings: RaftTimings | None = None,
        machine: MapMachine | None = None,
        listen: str | None = None,
    ) -> None:
        self.address = address
        self.listen = listen or address
        self.machine = machine or MapMachine()
        self.fatal: list[Exception] = []
        self.refused: list[tuple[str, str]] = []
        self.changes: list[object] = []
        self.listener: Listener | None = None
        self.node = RaftNode(
            self_address=address,
            data_dir=directory,
            bootstrap=bootstrap,
            machine=self.machine,
            secret=secret,
            cluster_id=cluster_id,
            timings=timings,
            on_fatal=self.fatal.append,
            on_change=self.changes.append,
            on_refused=lambda peer, sentence: self.refused.append((peer, sentence)),
        )

    async def start(self) -> Member:
        await self.node.start()
        self.listener = Listener(self.listen, self.node)
        return self

    async def stop(self) -> None:
        if self.listener is not None:
            await self.listener.close()
        await self.node.stop()


async def leader_of(members: Sequence[Member], timeout_s: float = 10.0) -> Member:
    def one() -> Member | None:
        leaders = [member for member in members if member.node.status().role == "leader"]
        agreed = leaders and all(member.node.status().leader == leaders[0].address for member in members)
        return leaders[0] if len(leaders) == 1 and agreed else None

    found = await eventually(one, timeout_s)
    assert isinstance(found, Member)
    return found
