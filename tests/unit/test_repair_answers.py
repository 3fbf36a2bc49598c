"""What a node answers to another one that repairs or deletes, when its metadata are old or a shard cannot be read."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsdbd.cluster import deletes
from dsdbd.cluster.deletes import encode_kept
from dsdbd.cluster.node import Node
from dsdbd.cluster.repair import Repair
from dsdbd.cluster.repair_messages import CompleteRequest, SummariesAnswer, SummariesRequest, decode_answer, encode
from dsdbd.cluster.writes import WritePath
from dsdbd.errors import ShardUnavailable, Unavailable
from dsdbd.meta.state import Shard
from dsdbd.storage import ShardKey, Store
from dsdbd.storage.tombstones import Tombstone, encode_tombstones
from tests.storage.storage_model import MAX_NS, MIN_NS, open_store, put
from tests.unit.lone_node import lone_node, state_of

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
            with pytest.raises(Unavailable, match=r"index 5\) are older .*index 6\) and do not have shard 10"):
                await deletes.receive(node, writes, encode_kept(key(10), encoded, 6))
            await deletes.receive(node, writes, encode_kept(key(10), encoded, 5))  # dropped
            await deletes.receive(node, writes, encode_kept(key(7), encoded, 6))
            with pytest.raises(ShardUnavailable, match=r"index 5\) are older"):
                await repair.complete(encode(CompleteRequest(6, [10])))
            await repair.complete(encode(CompleteRequest(5, [10])))
        finally:
            repair.source.close()

    asyncio.run(ask())
    shard = store.shard(7)
    assert shard is not None and any(one.version == 9 for one in shard.kept_tombstones())
