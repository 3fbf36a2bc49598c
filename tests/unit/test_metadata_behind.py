"""A node whose metadata are older than those of who asks says so, and does nothing by them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from dsdbd.cluster import deletes, repair_messages, segment_messages
from dsdbd.cluster.absorb import Absorber, AbsorbRequest
from dsdbd.cluster.asking import ReadRequest
from dsdbd.cluster.backup import BackupSource, DigestsRequest
from dsdbd.cluster.cancellation import Cancellation
from dsdbd.cluster.demand import Demand
from dsdbd.cluster.node import Node
from dsdbd.cluster.reads import ReadPath
from dsdbd.cluster.repair import Repair
from dsdbd.cluster.writes import WritePath
from dsdbd.errors import ShardUnavailable
from dsdbd.meta.state import Shard
from dsdbd.model.columns import encode_batch
from dsdbd.storage.tombstones import Tombstone, encode_tombstones
from tests.storage.storage_model import make_batch, open_store
from tests.unit.lone_node import lone_node, state_of

BATCH = make_batch(1, [("h", 1, {"f": 1.0})])
HERE, NEWER = 1, 2


async def write(node: Node, index: int) -> None:
    await WritePath(node).receive(7, encode_batch(BATCH), index)


async def delete(node: Node, index: int) -> None:
    encoded = encode_tombstones([Tombstone("m", None, 0, 9, 5)])
    request = deletes.DeleteRequest(5, index, [(7, 0)], [encoded])
    await deletes.receive(node, WritePath(node), msgspec.msgpack.encode(request))


async def read(node: Node, index: int) -> None:
    request = ReadRequest("schema", "d", "p", [7], metadata_index=index)
    await ReadPath(node).serve(msgspec.msgpack.encode(request), Cancellation(Demand()))


async def digests_for_a_backup(node: Node, index: int) -> None:
    await BackupSource(node).serve_digests(segment_messages.encode(DigestsRequest(7, index)))


async def summaries(node: Node, index: int) -> None:
    request = repair_messages.SummariesRequest(index, 2, [(7, 0)])
    await Repair(node, WritePath(node).clock).source.summaries(repair_messages.encode(request))


async def digests(node: Node, index: int) -> None:
    request = repair_messages.DigestsRequest(index, 7, {}, 0)
    await Repair(node, WritePath(node).clock).source.digests(repair_messages.encode(request))


async def complete(node: Node, index: int) -> None:
    request = repair_messages.CompleteRequest(index, [7])
    await Repair(node, WritePath(node).clock).completion.answer(repair_messages.encode(request))


async def absorb(node: Node, index: int) -> None:
    await Absorber(node, WritePath(node).clock).receive(segment_messages.encode(AbsorbRequest(7, 2, index, 0, 0)))


@pytest.mark.parametrize("ask", [write, delete, read, digests_for_a_backup, summaries, digests, complete, absorb])
def test_nothing_is_done_by_metadata_that_are_older_than_those_of_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Node, int], Awaitable[None]]
) -> None:
    for module in ("absorb", "repair_complete", "repair_source"):
        monkeypatch.setattr(f"dsdbd.cluster.{module}._METADATA_TIMEOUT_S", 0.02)

    async def all_of_it() -> None:
        node = lone_node(tmp_path, state_of(Shard(7, (1,)), index=HERE))
        short = replace(node.config.cluster, shard_writer_timeout_s=0.02, shard_mapper_timeout_s=0.02)
        node.config = replace(node.config, cluster=short)
        node.store = open_store(tmp_path)
        try:
            async with asyncio.timeout(60):
                with pytest.raises(ShardUnavailable, match=r"\(index 1\) are older than those of who asks \(index 2\)"):
                    await ask(node, NEWER)
                assert node.store.shard(7) is None, "neither a point nor a deletion was stored"
                if ask is not absorb:
                    await ask(node, HERE)
        finally:
            await node.peers.close()
            await asyncio.to_thread(node.store.close)

    asyncio.run(all_of_it())
