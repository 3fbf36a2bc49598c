"""A deletion is newer than whatever other nodes had confirmed when it began."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsdbd.cluster import deletes
from dsdbd.cluster.messages import PulseAnswer
from dsdbd.cluster.node import Node
from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.cluster.writes import WritePath
from dsdbd.influxql import ast, parse
from dsdbd.meta.state import Shard
from tests.storage.storage_model import open_store
from tests.unit.lone_node import lone_node, state_of
from tests.unit.test_moved_deletes import OTHERS, Committed

AHEAD_NS = 90 * 10**9


@dataclass
class Ahead:
    """Other nodes whose versions are far ahead of this node's clock; one of them may be silent."""

    version: int
    silent: int = 0
    told: list[int] = field(default_factory=list)

    async def call(self, address: str, _method: str, path: str, body: bytes = b"", **_: Any) -> bytes:
        number = next(one.id for one in OTHERS if one.tcp_addr == address)
        if number == self.silent and path == "/cluster/pulse":
            raise PeerUnreachable(f"{address} does not answer", sent=False)
        if path == "/cluster/pulse":
            return msgspec.json.encode(PulseAnswer(str(number) * 32, 1, serves=True, version=self.version))
        assert path == "/internal/delete"
        self.told.append(deletes._decoder.decode(body).version)
        return b""


async def delete(node: Node, writes: WritePath) -> None:
    (statement,) = parse("DELETE FROM m WHERE s = 'a'")
    assert isinstance(statement, ast.Delete)
    await deletes.delete(node, writes, "d", statement, 1)


async def drop(node: Node, writes: WritePath) -> None:
    await deletes._learn_versions(node, writes)
    await deletes._erase(node, node.metadata.state.databases["d"], "m", await writes.clock.next_reserved())


@pytest.mark.parametrize("silent", [0, 3])
@pytest.mark.parametrize("act", [delete, drop])
def test_a_node_that_has_just_come_deletes_what_others_confirmed(
    tmp_path: Path, act: Callable[[Node, WritePath], Awaitable[None]], silent: int
) -> None:
    async def all_of_it() -> None:
        node = lone_node(tmp_path, state_of(Shard(7, (2, 3)), data_nodes=OTHERS))
        node.store = open_store(tmp_path)
        node.metadata.backend = Committed(node)  # type: ignore[assignment]
        others = Ahead(node.clock.now_ns() + AHEAD_NS, silent)
        node.peers.call = others.call  # type: ignore[method-assign, assignment]
        writes = WritePath(node)
        try:
            async with asyncio.timeout(60):
                await act(node, writes)
            assert len(others.told) == 2
            assert min(others.told) > others.version
        finally:
            await writes.clock.close()
            await node.peers.close()
            await asyncio.to_thread(node.store.close)

    asyncio.run(all_of_it())
