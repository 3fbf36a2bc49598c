"""Requests to a peer that is slow, down or back: kinds of requests keep out of each other's way, and nothing waits."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from dsdbd import limits
from dsdbd.cluster.breaker import FAILURES_TO_OPEN
from dsdbd.cluster.peer_lines import Lane, lane_of
from dsdbd.cluster.peers import PeerClient, PeerUnreachable
from tests.cluster.daemons import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DEADLINE_S = 60.0
"""For what would hang otherwise."""
WRITE, READ, BULK, CONTROL = "/internal/shards/1?index=1", "/internal/read", "/internal/files/1", "/cluster/state"


@dataclass
class Peer:
    """A server that answers, or does not, by path."""

    address: str
    hanging: set[str] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked[request.path] = self.asked.get(request.path, 0) + 1
        if request.path in self.hanging:
            await self.released.wait()
        return web.Response(body=b"done")


@asynccontextmanager
async def peer_and_client(write_connections: int = 2) -> AsyncIterator[tuple[Peer, PeerClient]]:
    peer = Peer(f"127.0.0.1:{free_port()}")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", peer.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(peer.address.split(":")[1])).start()
    client = PeerClient(b"secret" * 6, lambda: ("cluster", "node"), write_connections=write_connections)
    try:
        yield peer, client
    finally:
        peer.released.set()
        await client.close()
        await runner.cleanup()


def call(client: PeerClient, peer: Peer, path: str, timeout_s: float = DEADLINE_S) -> Awaitable[bytes]:
    return client.call(peer.address, "POST", path, b"body", timeout_s=timeout_s)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def test_paths_have_lanes() -> None:
    assert [lane_of(path) for path in (WRITE, READ, BULK, CONTROL, "/cluster/pulse", "/?index=3")] == [
        Lane.WRITE,
        Lane.READ,
        Lane.BULK,
        Lane.CONTROL,
        Lane.PULSE,
        Lane.CONTROL,
    ]


def test_writes_that_hang_hold_up_nothing_else() -> None:
    async def scenario() -> None:
        async with peer_and_client() as (peer, client):
            peer.hanging.add("/internal/shards/1")
            writes = [asyncio.ensure_future(call(client, peer, WRITE)) for _ in range(10)]
            await until(lambda: peer.asked.get("/internal/shards/1", 0) == 2)
            for path in (READ, BULK, CONTROL):
                assert await asyncio.wait_for(call(client, peer, path), DEADLINE_S) == b"done"
            assert peer.asked["/internal/shards/1"] == 2, "two connections carry writes, the others wait"
            peer.released.set()
            assert await asyncio.gather(*writes) == [b"done"] * 10

    asyncio.run(scenario())


def test_what_waits_for_a_slow_peer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PEER_REQUESTS_WAITING", 3)

    async def scenario() -> None:
        async with peer_and_client() as (peer, client):
            peer.hanging.add("/internal/shards/1")
            writes = [asyncio.ensure_future(call(client, peer, WRITE)) for _ in range(5)]
            await until(lambda: peer.asked.get("/internal/shards/1", 0) == 2)
            with pytest.raises(PeerUnreachable, match=r"3 requests wait for .* already") as refused:
                await call(client, peer, WRITE)
            assert not refused.value.sent
            with pytest.raises(PeerUnreachable, match="too busy") as late:
                writes.pop().cancel()
                await asyncio.sleep(0)
                await call(client, peer, WRITE, timeout_s=0.05)
            assert not late.value.sent
            assert client.open_breakers() == [], "a queue says nothing of the peer"
            peer.released.set()
            assert await asyncio.gather(*writes) == [b"done"] * 4

    asyncio.run(scenario())


def test_nothing_waits_for_a_peer_that_is_down() -> None:
    async def scenario() -> None:
        async with peer_and_client() as (peer, client):
            peer.hanging |= {"/internal/shards/1", "/internal/read"}
            under_way = [asyncio.ensure_future(call(client, peer, path)) for path in (WRITE, WRITE, WRITE, READ)]
            await until(lambda: sum(peer.asked.values()) == 3)
            client.set_down(peer.address, "it does not answer")
            broken = await asyncio.wait_for(asyncio.gather(*under_way, return_exceptions=True), DEADLINE_S)
            assert [error.sent for error in broken if isinstance(error, PeerUnreachable)] == [True, True, False, True]
            asked = sum(peer.asked.values())
            for path in (WRITE, BULK):
                with pytest.raises(PeerUnreachable, match="is down: it does not answer") as refused:
                    await call(client, peer, path)
                assert not refused.value.sent
            assert sum(peer.asked.values()) == asked
            assert client.lately_away(peer.address)
            assert await call(client, peer, CONTROL) == b"done"
            peer.hanging.clear()
            assert await call(client, peer, READ) == b"done", "the last resort of a read"
            client.set_up(peer.address)
            assert not client.lately_away(peer.address)
            for path in (WRITE, READ, BULK):
                assert await call(client, peer, path) == b"done"

    asyncio.run(scenario())


def test_a_peer_that_keeps_failing_is_left_alone() -> None:
    async def scenario() -> None:
        async with peer_and_client() as (peer, client):
            peer.hanging.add("/internal/shards/1")
            for _ in range(FAILURES_TO_OPEN):
                with pytest.raises(PeerUnreachable, match="no answer") as failed:
                    await call(client, peer, WRITE, timeout_s=0.05)
                assert failed.value.sent
            assert client.open_breakers() == [(peer.address, "write")]
            asked = peer.asked["/internal/shards/1"]
            with pytest.raises(PeerUnreachable, match="is not asked") as refused:
                await call(client, peer, WRITE)
            assert not refused.value.sent
            assert peer.asked["/internal/shards/1"] == asked
            assert await call(client, peer, READ) == b"done", "its reads go well"
            peer.hanging.clear()
            client.set_up(peer.address)
            assert await call(client, peer, WRITE) == b"done"
            assert client.open_breakers() == []

    asyncio.run(scenario())


def test_a_peer_whose_reads_failed_is_asked_again_once_it_answers() -> None:
    async def scenario() -> None:
        async with peer_and_client() as (peer, client):
            peer.hanging.add("/internal/read")
            for _ in range(FAILURES_TO_OPEN):
                with pytest.raises(PeerUnreachable, match="no answer"):
                    await call(client, peer, READ, timeout_s=0.05)
            assert client.lately_away(peer.address)
            peer.hanging.clear()
            client.set_up(peer.address)
            assert not client.lately_away(peer.address), "else no read would ever find out"
            assert await call(client, peer, READ) == b"done"
            assert client.open_breakers() == []

    asyncio.run(scenario())


def test_a_peer_that_refuses_connections_says_so() -> None:
    async def scenario() -> None:
        client = PeerClient(b"secret" * 6, lambda: ("cluster", "node"))
        try:
            with pytest.raises(PeerUnreachable, match="connection refused") as failed:
                await client.call(f"127.0.0.1:{free_port()}", "GET", CONTROL, timeout_s=DEADLINE_S)
            assert (failed.value.sent, failed.value.refused) == (False, True)
        finally:
            await client.close()

    asyncio.run(scenario())
