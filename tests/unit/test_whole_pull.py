"""What a node that takes a shard is sent of one that is written to: not again what it has."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from dsdbd.clock import SystemClock
from dsdbd.cluster.repair import Repair
from dsdbd.cluster.repair_messages import DIGESTS_PATH, EXPORT_PATH
from dsdbd.cluster.transfer_plan import Rate
from dsdbd.cluster.whole_pull import WholePull
from dsdbd.cluster.writes import WritePath
from dsdbd.meta.state import DataNode, Shard
from dsdbd.storage import ShardKey, Store
from tests.cluster.daemons import free_port
from tests.storage.storage_model import Row, open_store, put
from tests.unit.lone_node import END_NS, lone_node, state_of

KEY = ShardKey("d", "p", 7)


class Owner:
    """Answers for a store as a node does; ``sent_bytes`` are those of the rows that were asked for."""

    def __init__(self, repair: Repair, on_digests) -> None:
        self.sent_bytes = 0
        self._repair = repair
        self._on_digests = on_digests

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.path == DIGESTS_PATH:
            found = await self._repair.source.digests(body)
            self._on_digests()
            return web.Response(body=found)
        assert request.path == EXPORT_PATH
        pieces = [piece async for piece in self._repair.source.export(body)]
        self.sent_bytes += sum(map(len, pieces))
        return web.Response(body=b"".join(pieces))


async def pull(tmp_path: Path, mine: Store, theirs: Store, on_digests) -> int:
    """Pull all of a shard; returns how many bytes of rows came."""
    port = free_port()
    state = state_of(Shard(7, (1, 2)), index=5, data_nodes=(DataNode(2, "2" * 32, "b:1", f"127.0.0.1:{port}"),))
    nodes = [lone_node(tmp_path / name, state) for name in "ab"]
    for node, store in zip(nodes, (mine, theirs), strict=True):
        node.store = store
        node.repair = Repair(node, WritePath(node).clock)
    owner = Owner(nodes[1].repair, on_digests)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", owner.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        pulls = WholePull(nodes[0], WritePath(nodes[0]).clock, Rate(0))
        await pulls.pull(nodes[0].repair.source.places.all()[7], 2)
        return owner.sent_bytes
    finally:
        await nodes[0].peers.close()
        await runner.cleanup()
        for node in nodes:
            node.repair.source.close()


def total(store: Store) -> int:
    return store.make_replica(KEY, 0, END_NS).digests()["m"].total


def test_of_a_shard_that_is_written_to_only_what_is_new_is_sent(tmp_path: Path) -> None:
    """One series and one time range: all rows are of one cell, which differs at every look."""
    stores = [open_store(tmp_path / name) for name in "ab"]
    now_ns = SystemClock().now_ns()
    old: list[Row] = [("h", END_NS + at, {"f": at / 3}) for at in range(20_000)]
    for store in stores:
        put(store, now_ns - 60 * 10**9, old, KEY)
    put(stores[1], now_ns - 50 * 10**9, [("h", 30_000, {"f": 1.0})], KEY)
    first = asyncio.run(pull(tmp_path / "first", *stores, lambda: None))
    assert first > 20_000 * 8, "what lacks is old: its cell is sent"
    assert total(stores[0]) == total(stores[1])

    soon_ns = now_ns + 600 * 10**9  # however slow the machine is, they are not old when they are compared
    written = 0

    def write() -> None:
        nonlocal written
        written += 1
        # Both are on their way: the owner has them, and one of them came here already.
        put(stores[1], soon_ns + written, [("h", 40_000 + written, {"f": 2.0})], KEY)
        if written % 2:
            put(stores[0], soon_ns + written, [("h", 40_000 + written, {"f": 2.0})], KEY)

    for _ in range(4):
        write()
    second = asyncio.run(pull(tmp_path / "second", *stores, write))
    assert 0 < second < 2_000
    third = asyncio.run(pull(tmp_path / "third", *stores, lambda: None))
    assert third < 2_000
    assert total(stores[0]) == total(stores[1])
    for store in stores:
        store.close()
