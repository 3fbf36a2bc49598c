"""A node that is told to stop while its storage opens leaves no thread of the storage running."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from dsdbd.bringup import open_store
from tests.unit.lone_node import lone_node, state_of


def storage_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("dsdb-")}


def test_a_storage_that_opens_after_it_is_unwanted_is_closed(tmp_path: Path) -> None:
    """A thread that goes on while the interpreter ends may crash it."""
    before = storage_threads()

    async def stop_while_it_opens() -> None:
        node = lone_node(tmp_path, state_of())
        opening = asyncio.create_task(open_store(node))
        while not node.opening:
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert node.store is None
        await node.peers.close()

    asyncio.run(stop_while_it_opens())
    assert storage_threads() == before
