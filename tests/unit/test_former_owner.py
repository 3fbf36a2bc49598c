"""A node that ceased to own a shard confirms no write of it, not even one that was on its way to its log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsdbd.cluster.acks import Consistency
from dsdbd.cluster.node import Node
from dsdbd.cluster.owners import Owners, WriteStats
from dsdbd.cluster.version_clock import VersionClock
from dsdbd.cluster.writes import WritePath
from dsdbd.errors import DSDBError, NotOwner, OutcomeUnknown
from dsdbd.meta.state import DataNode, MetaState, Shard
from dsdbd.model.columns import encode_batch
from dsdbd.storage import ShardKey
from tests.storage.storage_model import make_batch, open_store
from tests.unit.lone_node import lone_node, state_of

KEY = ShardKey("d", "p", 7)
BATCH = make_batch(1, [("h", 1, {"f": 1.0})])
OTHERS = (DataNode(2, "2" * 32, "127.0.0.1:1", "127.0.0.1:1"),)


def states(*owners: tuple[int, ...]) -> list[MetaState]:
    return [state_of(Shard(7, each), index=at, data_nodes=OTHERS) for at, each in enumerate(owners, 1)]


def during_the_sync(node: Node, act: Callable[[], None]) -> None:
    """Do something when the next batch is in the log's queue and nobody was told of it yet."""
    assert node.store is not None
    submit = node.store.submit

    def submit_and_act(*args: Any, **kwargs: Any) -> Any:
        stored = submit(*args, **kwargs)
        act()
        return stored

    node.store.submit = submit_and_act  # type: ignore[method-assign]


def run(tmp_path: Path, before: MetaState, after: MetaState, write: Callable[[Node], Any]) -> None:
    async def all_of_it() -> None:
        node = lone_node(tmp_path, before)
        node.store = open_store(tmp_path)
        try:
            during_the_sync(node, lambda: setattr(node.metadata, "state", after))
            async with asyncio.timeout(60):
                await write(node)
        finally:
            await node.peers.close()
            await asyncio.to_thread(node.store.close)

    asyncio.run(all_of_it())


async def receive(node: Node) -> None:
    await WritePath(node).receive(7, encode_batch(BATCH), 1)


def test_a_batch_in_the_log_of_a_former_owner_is_not_confirmed(tmp_path: Path) -> None:
    before, after = states((1, 2), (2,))
    with pytest.raises(NotOwner):
        run(tmp_path, before, after, receive)


@pytest.mark.parametrize("after", [states((1, 2), (1, 3))[1], state_of(index=2, data_nodes=OTHERS)])
def test_it_is_where_the_node_stays_or_the_shard_was_dropped(tmp_path: Path, after: MetaState) -> None:
    run(tmp_path, states((1, 2))[0], after, receive)


def test_a_lone_owner_sends_what_it_may_not_confirm_to_the_new_one(tmp_path: Path) -> None:
    before, after = states((1,), (2,))

    async def store(node: Node) -> None:
        owners = Owners(node, WriteStats(), VersionClock(node))
        try:
            await owners.store(KEY, Shard(7, (1,)), BATCH, encode_batch(BATCH), Consistency.ONE, is_new=True)
        finally:
            await owners.finish()

    with pytest.raises(DSDBError, match=r"127\.0\.0\.1:1"):
        run(tmp_path, before, after, store)


def test_what_went_the_short_way_is_unknown(tmp_path: Path) -> None:
    before, after = states((1,), (2,))

    async def store(node: Node) -> None:
        writes = WritePath(node)
        assert node.store is not None
        stored = [(7, node.store.submit(KEY, BATCH))]
        await asyncio.wrap_future(stored[0][1])
        assert isinstance(writes.failure_of(stored), OutcomeUnknown)
        node.metadata.state = before
        assert writes.failure_of(stored) is None

    run(tmp_path, before, after, store)
