"""A node answers a whole statement of another one only where it is to read all of it, by metadata that are as new."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from dsdbd.cluster.asking import ReadRequest
from dsdbd.cluster.cancellation import Cancellation
from dsdbd.cluster.node import Node
from dsdbd.cluster.reads import ReadPath
from dsdbd.cluster.relayed_reads import SmallRequest
from dsdbd.meta.state import DataNode, Shard
from dsdbd.storage import ShardKey
from tests.storage.storage_model import make_batch, open_store
from tests.unit.lone_node import lone_node, state_of

BATCH = make_batch(1, [("h", 1, {"f": 1.0})])
HERE = 3
TIMES = "time >= 0 AND time < 100"


def run(tmp_path: Path, shards: list[Shard], act: Callable[[Node, ReadPath], Awaitable[None]], **limits: int) -> None:
    async def all_of_it() -> None:
        node = lone_node(tmp_path, state_of(*shards, index=HERE))
        node.config = replace(node.config, cluster=replace(node.config.cluster, **limits))
        node.store = open_store(tmp_path)
        try:
            await asyncio.wrap_future(node.store.submit(ShardKey("d", "p", 7), BATCH))
            async with asyncio.timeout(60):
                await act(node, ReadPath(node))
        finally:
            await node.peers.close()
            await asyncio.to_thread(node.store.close)

    asyncio.run(all_of_it())


async def whole(reads: ReadPath, text: str) -> bytes:
    request = ReadRequest("statement", "", "", [], text.encode(), now_ns=1, metadata_index=HERE)
    return await reads.serve(msgspec.msgpack.encode(request), Cancellation())


def small(reads: ReadPath, text: str, index: int = HERE) -> bytes:
    """The answer when it has come for the third time; it is planned at the second."""
    request = msgspec.msgpack.encode(SmallRequest(text, "d", "", None, 1, index))
    return [reads.relayed.serve(request) for _ in range(3)][-1]


@pytest.mark.parametrize("owners", [[(1,)], [(1, 2)]])
def test_what_is_here_is_answered(tmp_path: Path, owners: list[tuple[int, ...]]) -> None:
    async def act(_: Node, reads: ReadPath) -> None:
        for _turn in range(3):
            assert await whole(reads, f"SELECT count(f) FROM d.p.m WHERE {TIMES}")
        assert b'"values":[["1970-01-01T00:00:00Z",1]]' in small(reads, f"SELECT count(f) FROM m WHERE {TIMES}")

    run(tmp_path, [Shard(7, each) for each in owners], act)


def test_what_is_partly_elsewhere_is_left_to_who_asks(tmp_path: Path) -> None:
    async def act(_: Node, reads: ReadPath) -> None:
        for _turn in range(3):
            assert await whole(reads, f"SELECT count(f) FROM d.p.m WHERE {TIMES}") == b""
        assert small(reads, f"SELECT count(f) FROM m WHERE {TIMES}") == b""

    run(tmp_path, [Shard(7, (1,)), Shard(8, (2,))], act)


def test_older_metadata_and_limits_of_windows_answer_nothing(tmp_path: Path) -> None:
    text = f"SELECT count(f) FROM m WHERE {TIMES}"

    async def older(_: Node, reads: ReadPath) -> None:
        assert await whole(reads, f"SELECT count(f) FROM d.p.m WHERE {TIMES}")
        assert small(reads, text) != b""
        assert small(reads, text, HERE + 1) == b""
        assert reads.relayed.serve(b"nothing that was meant") == b""

    run(tmp_path, [Shard(7, (1,))], older)

    async def counted(_: Node, reads: ReadPath) -> None:
        assert await whole(reads, f"SELECT count(f) FROM d.p.m WHERE {TIMES}") == b""
        assert small(reads, text) == b""

    run(tmp_path, [Shard(7, (1,))], counted, max_select_buckets=5)


def test_a_statement_that_is_never_answered_is_passed_on_less_and_less(tmp_path: Path) -> None:
    async def act(node: Node, reads: ReadPath) -> None:
        other = DataNode(2, "2" * 32, "127.0.0.1:1", "127.0.0.1:1")
        node.metadata.state = state_of(Shard(7, (2,)), index=HERE, data_nodes=(other,))
        text = f"SELECT f FROM m WHERE {TIMES}"
        passed_on = []
        for _turn in range(40):
            address = reads.relayed.owner_address(text, "d", "")
            passed_on.append(address is not None)
            if address is not None:
                assert await reads.relayed.ask(address, text, "d", "", None) is None
        assert [turn for turn, yes in enumerate(passed_on) if yes] == [0, 2, 5, 10, 19, 36]
        assert reads.relayed.owner_address("SELECT f FROM m; SELECT f FROM m", "d", "") is None
        assert reads.relayed.owner_address("SHOW DATABASES", "d", "") is None
        assert reads.relayed.owner_address("SELECT f FROM", "d", "") is None

    run(tmp_path, [Shard(7, (2,))], act)
