"""What becomes of a batch that no owner takes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dsdbd.cluster.acks import Consistency
from dsdbd.cluster.handoff import Handoff
from dsdbd.cluster.owners import Owners, WriteStats
from dsdbd.cluster.version_clock import VersionClock
from dsdbd.meta.state import Incoming, Shard
from dsdbd.model.columns import encode_batch
from dsdbd.storage import ShardKey
from tests.storage.storage_model import make_batch
from tests.unit.lone_node import lone_node, state_of

KEY = ShardKey("d", "p", 7)


def test_any_is_answered_while_a_copy_is_taken_and_no_owner_is_there(tmp_path: Path) -> None:
    shard = Shard(7, (2, 3), (Incoming(4, 2),))
    batch = make_batch(1, [("h", 1, {"f": 1.0})])

    async def write() -> None:
        node = lone_node(tmp_path, state_of(shard))
        node.handoff = Handoff(node)
        await node.handoff.open()
        owners = Owners(node, WriteStats(), VersionClock(node))
        try:
            async with asyncio.timeout(30):
                await owners.store(KEY, shard, batch, encode_batch(batch), Consistency.ANY, is_new=True)
                await owners.finish()
            assert not owners._background, "nothing waits for itself"
            assert [node.handoff.kept_bytes(owner) > 0 for owner in (2, 3, 4)] == [True, True, False]
        finally:
            await node.handoff.close()

    asyncio.run(write())
