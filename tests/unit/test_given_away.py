"""What of a shard that moved to other nodes may be removed, once an owner has confirmed what it holds."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dsdbd.cluster.absorb import AbsorbRequest
from dsdbd.cluster.watch import ShardReaper
from dsdbd.meta.state import Shard
from dsdbd.storage import ShardKey
from tests.storage.storage_model import open_store, put
from tests.unit.lone_node import lone_node, state_of

KEY, OTHER = ShardKey("d", "p", 7), ShardKey("d", "p", 8)


def test_what_came_after_it_was_asked_about_stays(tmp_path: Path) -> None:
    async def reap() -> None:
        node = lone_node(tmp_path, state_of(Shard(7, (2,)), Shard(8, (2,))))
        node.store = store = open_store(tmp_path)
        try:
            reaper = ShardReaper(node)
            put(store, 1, [("h", 1, {"f": 1.0})], KEY)
            put(store, 1, [("h", 1, {"f": 1.0})], OTHER)
            shard = store.shard(7)
            assert shard is not None
            changes = shard.changes
            put(store, 2, [("h", 2, {"f": 1.0})], KEY)
            assert store.retain(reaper._is_not_moved(shard, changes)) == 0
            shard.flush()
            changes = shard.changes
            node.metadata.state = state_of(Shard(7, (1, 2)), Shard(8, (2,)), index=2)
            assert store.retain(reaper._is_not_moved(shard, changes)) == 0, "it came back"
            node.metadata.state = state_of(Shard(7, (2,)), Shard(8, (2,)), index=3)
            assert store.retain(reaper._is_not_moved(shard, changes)) == 1
            assert [one.shard_id for one in store.shards()] == [8]
        finally:
            store.close()

    asyncio.run(reap())


def test_another_content_is_another_question() -> None:
    asked = AbsorbRequest(7, 1, 5, 3, 100)
    assert asked not in {AbsorbRequest(7, 1, 5, 4, 100), AbsorbRequest(7, 1, 5, 3, 101)}
