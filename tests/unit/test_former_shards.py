"""Deletions are kept while a node may hold what they hide: one that owned a shard once, or was about to own it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsdbd.cluster.detector import FailureDetector
from dsdbd.cluster.former_shards import UNKNOWN, FormerShards, may_forget
from dsdbd.cluster.repair import Repair
from dsdbd.cluster.repair_plan import EVERYTHING
from dsdbd.cluster.version_clock import VersionClock
from dsdbd.meta.state import DataNode, Incoming, Shard
from dsdbd.storage import ShardKey
from tests.storage.storage_model import open_store, put
from tests.unit.lone_node import lone_node, state_of

KEY = ShardKey("d", "p", 7)
OTHERS = (DataNode(2, "2" * 32, "127.0.0.1:1", "127.0.0.1:1"),)


@pytest.mark.parametrize(
    ("nodes", "clear", "may"),
    [
        ((), {}, True),
        ((2, 3), {2: 5, 3: 9}, True),
        ((2, 3), {2: 5}, False),  # node 3 does not answer
        ((2, 3), {2: 5, 3: UNKNOWN}, False),  # it holds something of others
        ((2, 3), {2: 5, 3: 4}, False),  # it may have been an owner when it said so
    ],
)
def test_every_other_node_must_have_said_that_it_holds_nothing(
    nodes: tuple[int, ...], clear: dict[int, int], may: bool
) -> None:
    assert may_forget(nodes, clear, 5) is may


def test_a_node_says_whether_it_holds_shards_of_others(tmp_path: Path) -> None:
    async def ask() -> None:
        node = lone_node(tmp_path, state_of(Shard(7, (1, 2)), data_nodes=OTHERS))
        assert FormerShards(node).clear_index() == UNKNOWN, "its storage is not open"
        node.store = open_store(tmp_path)
        try:
            put(node.store, 1, [("h", 1, {"f": 1.0})], KEY)
            assert FormerShards(node).clear_index() == 1
            node.metadata.state = state_of(Shard(7, (2,)), index=2, data_nodes=OTHERS)
            assert FormerShards(node).clear_index() == UNKNOWN
            node.metadata.state = state_of(Shard(7, (2,), (Incoming(1),)), index=3, data_nodes=OTHERS)
            assert FormerShards(node).clear_index() == 3, "it is taking a copy, of which the metadata tell"
            node.metadata.state = state_of(index=4, data_nodes=OTHERS)
            assert FormerShards(node).clear_index() == 4, "the shard was dropped"
        finally:
            node.store.close()
            await node.peers.close()

    asyncio.run(ask())


def test_deletions_are_kept_while_a_former_owner_may_come_back(tmp_path: Path) -> None:
    async def look() -> None:
        node = lone_node(tmp_path, state_of(Shard(7, (1,)), data_nodes=OTHERS))
        node.store = open_store(tmp_path)
        node.detector = detector = FailureDetector(node)
        detector._take_members()
        other = detector._by_data_id[2]
        other.task.cancel()
        repair = Repair(node, VersionClock(node))

        async def settled() -> int:
            async with asyncio.TaskGroup() as group:
                repair._begin_rounds(group)
            return repair.settled(7)

        try:
            put(node.store, 1, [("h", 1, {"f": 1.0})], KEY)
            assert await settled() == 0, "the other node has not said anything"
            other.clear_index = 1
            assert await settled() == EVERYTHING
            node.metadata.state = state_of(Shard(7, (1,), (Incoming(2),)), index=2, data_nodes=OTHERS)
            other.clear_index = 2
            assert await settled() == 0, "it takes a copy"
            node.metadata.state = state_of(Shard(7, (1,)), index=3, data_nodes=OTHERS)
            assert await settled() == 0, "what it said is older than the end of that"
            other.clear_index = 3
            assert await settled() == EVERYTHING
            other.contact.is_down = True
            assert await settled() == 0, "it does not answer"
        finally:
            await asyncio.gather(other.task, return_exceptions=True)
            await node.peers.close()
            await asyncio.to_thread(node.store.close)

    asyncio.run(look())
