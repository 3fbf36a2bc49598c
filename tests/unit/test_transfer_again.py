"""A copy that failed is tried again as soon as another node is back, and until then /health says why."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsdbd.cluster.detector import FailureDetector
from dsdbd.cluster.transfer import Transfer
from dsdbd.cluster.transfer_plan import COMPARING, MoveProgress
from dsdbd.cluster.version_clock import VersionClock
from dsdbd.meta.state import Incoming, Shard
from dsdbd.storage import Store
from tests.unit.lone_node import lone_node, state_of

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER_S = 3600.0
DEADLINE_S = 30.0


async def begin(tmp_path: Path) -> tuple[Any, Transfer]:
    """A node that shall take a copy and cannot: the only owner is not registered."""
    node: Any = lone_node(tmp_path, state_of(Shard(7, owners=(2,), incoming=(Incoming(1),))))
    pauses = replace(node.config.transfer, retry_interval_s=NEVER_S, retry_max_interval_s=NEVER_S)
    node.config = replace(node.config, transfer=pauses)
    node.store = Store(data_dir=node.config.data.dir, wal_dir=tmp_path / "wal")
    node.store.open(lambda _: None)
    node.detector = FailureDetector(node)
    return node, Transfer(node, VersionClock(node))


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not reached():
            await asyncio.sleep(0.001)


def test_a_node_that_is_back_ends_the_pause_and_what_was_said(tmp_path: Path) -> None:
    async def act() -> None:
        node, transfer = await begin(tmp_path)
        running = asyncio.create_task(transfer.run())
        await until(lambda: transfer.counters["failures"] == 1)
        (said,) = transfer.problems()
        assert "shard 7 of 'd' cannot be copied to this node yet: " in said
        for times in (2, 3):
            for callback in node.detector._on_serving:
                callback(2)
            await until(lambda times=times: transfer.counters["failures"] == times)  # type: ignore[misc]
            assert len(transfer.problems()) == 1, "it failed once more"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        node.store.close()

    asyncio.run(act())


def test_what_a_copy_that_compares_said_of_a_node_is_over_when_that_is_back(tmp_path: Path) -> None:
    async def act() -> None:
        node, transfer = await begin(tmp_path)
        transfer._under_way[7] = MoveProgress(7, "d", "p", 1, 0, state=COMPARING, error="a:2 does not answer any more")
        assert len(transfer.problems()) == 1
        for callback in node.detector._on_serving:
            callback(2)
        assert transfer.problems() == []
        node.store.close()

    asyncio.run(act())


def test_space_on_the_disk_ends_the_pause_of_a_copy_that_found_none(tmp_path: Path) -> None:
    async def act() -> None:
        node, transfer = await begin(tmp_path)
        progress = MoveProgress(7, "d", "p", 1, 0)
        async with asyncio.timeout(DEADLINE_S):
            assert await transfer._pause(asyncio.Event(), NEVER_S, progress, full=True)
        assert not await transfer._pause(asyncio.Event(), 0.0, progress, full=True)
        progress.total_bytes = 1 << 60
        assert not await transfer._pause(asyncio.Event(), 1.5, progress, full=True), "there is not enough"
        node.store.close()

    asyncio.run(act())
