"""A copy that may lack something is not clean before all of it was compared: what was damaged, or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from dsdbd.cluster import deletes
from dsdbd.cluster.deletes import encode_kept
from dsdbd.cluster.node import Node
from dsdbd.cluster.repair import Repair
from dsdbd.cluster.repair_messages import (
    DIGESTS_PATH,
    SUMMARIES_PATH,
    DigestsAnswer,
    SummariesAnswer,
    SummariesRequest,
    Summary,
    decode_request,
    encode,
)
from dsdbd.cluster.writes import WritePath
from dsdbd.errors import DiskFull
from dsdbd.meta.state import DataNode, Shard
from dsdbd.model.columns import encode_batch
from dsdbd.storage import ShardKey
from dsdbd.storage.tombstones import Tombstone, encode_tombstones
from tests.storage.storage_model import make_batch, open_store
from tests.unit.lone_node import lone_node, state_of

KEY = ShardKey("d", "p", 7)
OTHER = DataNode(2, "2" * 32, "127.0.0.1:1", "127.0.0.1:1")


class Equal:
    """The other owner: it holds just what this one does, and remembers what it was asked."""

    def __init__(self, node: Node, repair: Repair) -> None:
        self.asked: list[int] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self._repair = repair
        node.peers.call = self.call  # type: ignore[assignment]

    async def call(self, _address: str, _method: str, path: str, body: bytes, **_: Any) -> bytes:
        if path == DIGESTS_PATH:
            return encode(DigestsAnswer([]))
        assert path == SUMMARIES_PATH
        ((shard_id, below),) = decode_request(body, SummariesRequest).shards
        self.asked.append(below)
        glance = await self._repair.source.glance(self._repair.source.places.all()[shard_id], below)
        self.meanwhile()
        return encode(SummariesAnswer([Summary(shard_id, glance.total, glance.tombstones)]))


def comparing(tmp_path: Path, act: Callable[[Node, Repair, Equal], Any]) -> None:
    """A node whose copy of shard 7 is written to all the time."""

    async def all_of_it() -> None:
        node = lone_node(tmp_path, state_of(Shard(7, (1, 2)), data_nodes=(OTHER,)))
        store = node.store = open_store(tmp_path)
        repair = node.repair = Repair(node, WritePath(node).clock)
        repair._ledger.know({7: [2]}, 0.0)
        other = Equal(node, repair)
        await asyncio.wrap_future(store.submit(KEY, make_batch(node.clock.now_ns(), [("h", 1, {"f": 1.0})])))
        try:
            async with asyncio.timeout(60):
                await act(node, repair, other)
        finally:
            repair.source.close()
            await node.peers.close()
            await asyncio.to_thread(store.close)

    asyncio.run(all_of_it())


def found_damaged(node: Node) -> None:
    """As the storage does it, on whatever thread."""
    assert node.store is not None
    shard = node.store.shard(7)
    assert shard is not None
    shard.damages += 1


async def change(node: Node) -> None:
    assert node.store is not None
    await asyncio.wrap_future(node.store.submit(KEY, make_batch(node.clock.now_ns(), [("h", 2, {"f": 2.0})])))


def test_only_a_comparison_that_leaves_nothing_out_makes_a_damaged_copy_clean(tmp_path: Path) -> None:
    async def act(node: Node, repair: Repair, other: Equal) -> None:
        await repair._compare(2, [7])
        assert other.asked == [0], "after the start nothing is known"
        assert repair.is_clean(7)
        await change(node)
        await repair._compare(2, [7])
        assert other.asked[1] > 0, "what was written just now is on its way"
        assert repair.is_clean(7)
        found_damaged(node)
        assert not repair.is_clean(7), "before anybody told the ledger"
        repair.damaged(7)
        assert not repair.is_clean(7)
        await change(node)
        await repair._compare(2, [7])
        assert other.asked[2] == 0
        assert repair.is_clean(7)

    comparing(tmp_path, act)


@pytest.mark.parametrize("told", [True, False])
def test_damage_while_copies_are_compared_is_not_covered_by_that(tmp_path: Path, told: bool) -> None:
    async def act(node: Node, repair: Repair, other: Equal) -> None:
        def damage() -> None:
            found_damaged(node)
            if told:
                repair.damaged(7)

        other.meanwhile = damage
        await repair._compare(2, [7])
        assert not repair.is_clean(7)
        other.meanwhile = lambda: None
        await repair._compare(2, [7])
        assert other.asked == [0, 0]
        assert repair.is_clean(7)

    comparing(tmp_path, act)


@pytest.mark.parametrize("what", ["write", "later", "deletion"])
def test_a_copy_that_could_not_take_what_others_took_is_not_clean(tmp_path: Path, what: str) -> None:
    """Only the coordinator knows otherwise, and any node may be asked to read."""

    async def act(node: Node, repair: Repair, _: Equal) -> None:
        await repair._compare(2, [7])
        assert repair.is_clean(7) and node.store is not None

        def full(*_args: Any, **_kwargs: Any) -> Any:
            if what != "later":
                raise DiskFull("no room")
            stored: Future[None] = Future()
            stored.set_exception(DiskFull("no room"))
            return stored

        if what == "deletion":
            node.store.delete_all = full  # type: ignore[method-assign]
            body = encode_kept(KEY, encode_tombstones([Tombstone("m", None, 0, 9, 5)]), 1)
            sent = deletes.receive(node, WritePath(node), body)
        else:
            node.store.submit = full  # type: ignore[method-assign]
            sent = WritePath(node).receive(7, encode_batch(make_batch(1, [("h", 1, {"f": 1.0})])), 1)
        with pytest.raises(DiskFull):
            await sent
        assert not repair.is_clean(7) and not repair.is_settled()
        await repair._compare(2, [7])
        assert repair.is_clean(7)

    comparing(tmp_path, act)
