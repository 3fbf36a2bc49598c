"""What a node answers to another one that repairs or deletes, when its metadata are old or a shard cannot be read."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from dsdbd.cluster import deletes
from dsdbd.cluster.deletes import encode_kept
from dsdbd.cluster.node import Node
from dsdbd.cluster.repair import Repair
from dsdbd.cluster.repair_messages import (
    DIGESTS_PATH,
    CompleteRequest,
    SummariesAnswer,
    SummariesRequest,
    decode_answer,
    encode,
)
from dsdbd.cluster.transfer_plan import Rate
from dsdbd.cluster.whole_pull import WholePull
from dsdbd.cluster.writes import WritePath
from dsdbd.errors import ShardUnavailable, Unavailable
from dsdbd.meta.state import DataNode, Shard
from dsdbd.storage import ShardKey, Store
from dsdbd.storage.tombstones import Tombstone, encode_tombstones
from tests.cluster.daemons import free_port
from tests.storage.storage_model import MAX_NS, MIN_NS, open_store, put
from tests.unit.lone_node import END_NS, lone_node, state_of

SHARDS = (7, 8, 9)
STATE = state_of(*(Shard(number, (1,)) for number in SHARDS), index=5)


def key(number: int) -> ShardKey:
    return ShardKey("d", "p", number)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Three shards with rows, the one in the middle with a deletion that cannot be read."""
    first = open_store(tmp_path)
    for number in SHARDS:
        put(first, 1, [("h", 1, {"f": 1.0})], key(number))
        first.delete(key(number), [Tombstone("m", None, 5, 6, 2)])
    first.flush()
    first.close()
    shutil.rmtree(tmp_path / "wal")  # what it brings back would be read at the start
    (path,) = (tmp_path / "data").glob("**/8/tombstones*")
    path.unlink()
    path.mkdir()
    again = open_store(tmp_path)
    yield again
    again.close()


def node_with(store: Store, directory: Path) -> Node:
    node = lone_node(directory, STATE)
    node.store = store
    node.metadata.stop_waiting()  # what is not known yet stays unknown
    return node


def test_one_shard_that_cannot_be_read_holds_up_no_other(store: Store, tmp_path: Path) -> None:
    async def ask() -> SummariesAnswer:
        node = node_with(store, tmp_path)
        repair = Repair(node, WritePath(node).clock)
        try:
            with pytest.raises(ShardUnavailable, match="shard 8 of this node cannot be read"):
                await repair.source.glance(repair.source.places.all()[8], 0)
            body = encode(SummariesRequest(5, 2, [(number, 0) for number in SHARDS]))
            return decode_answer(await repair.source.summaries(body), SummariesAnswer, "a")
        finally:
            repair.source.close()

    answer = asyncio.run(ask())
    assert [one.shard_id for one in answer.summaries] == [7, 9]


def test_old_metadata_confirm_nothing(store: Store, tmp_path: Path) -> None:
    encoded = encode_tombstones([Tombstone("m", None, MIN_NS, MAX_NS, 9)])

    async def ask() -> None:
        node = node_with(store, tmp_path)
        writes = WritePath(node)
        repair = Repair(node, writes.clock)
        try:
            for number in (10, 7):
                with pytest.raises(Unavailable, match=r"index 5\) are older .*index 6\)"):
                    await deletes.receive(node, writes, encode_kept(key(number), encoded, 6))
            await deletes.receive(node, writes, encode_kept(key(10), encoded, 5))  # dropped
            await deletes.receive(node, writes, encode_kept(key(7), encoded, 5))
            with pytest.raises(ShardUnavailable, match=r"index 5\) are older"):
                await repair.completion.answer(encode(CompleteRequest(6, [10])))
            await repair.completion.answer(encode(CompleteRequest(5, [10])))
        finally:
            repair.source.close()

    asyncio.run(ask())
    shard = store.shard(7)
    assert shard is not None and any(one.version == 9 for one in shard.kept_tombstones())


def test_an_old_deletion_is_taken_over_though_nothing_is_left_where_it_was_made(tmp_path: Path) -> None:
    stores = [open_store(tmp_path / name) for name in "ab"]
    for store in stores:
        put(store, 1, [("h", 1, {"f": 1.0})], key(7))
    stores[1].delete(key(7), [Tombstone("m", None, MIN_NS, MAX_NS, 2)])

    async def pull() -> None:
        port = free_port()
        state = state_of(Shard(7, (1, 2)), index=5, data_nodes=(DataNode(2, "2" * 32, "b:1", f"127.0.0.1:{port}"),))
        nodes = [lone_node(tmp_path / name, state) for name in "ab"]
        for node, store in zip(nodes, stores, strict=True):
            node.store = store
        repairs = [Repair(node, WritePath(node).clock) for node in nodes]

        async def answer(request: web.Request) -> web.Response:
            assert request.path == DIGESTS_PATH
            return web.Response(body=await repairs[1].source.digests(await request.read()))

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            # Version 2 is of long ago: no row that is on its way can be older.
            nodes[0].repair = repairs[0]
            pulls = WholePull(nodes[0], WritePath(nodes[0]).clock, Rate(0))
            await pulls.pull(repairs[0].source.places.all()[7], 2)
        finally:
            await nodes[0].peers.close()
            await runner.cleanup()
            for repair in repairs:
                repair.source.close()

    asyncio.run(pull())
    shard = stores[0].shard(7)
    assert shard is not None and [one.version for one in shard.kept_tombstones()] == [2]
    grids = [store.make_replica(key(7), 0, END_NS).digests() for store in stores]
    assert grids[0].keys() == grids[1].keys() and not any(len(grid.places) for grid in grids[0].values())
    for store in stores:
        store.close()
