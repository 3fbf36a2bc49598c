"""Deletions are kept for as long as any node of the cluster may keep a write that they hide."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from dsdbd.cluster.detector import FailureDetector
from dsdbd.cluster.lateness import NEVER_NS, kept_for_s, late_ns
from dsdbd.cluster.messages import PulseAnswer, encode
from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.limits import LATE_BATCH_NS
from dsdbd.meta.state import DataNode, MetaNode, MetaState
from dsdbd.storage.forgetting import Horizon
from tests.unit.lone_node import lone_node, state_of

DATA = DataNode(2, "2" * 32, "b:1", "127.0.0.2:1")
META = MetaNode(3, "3" * 32, "c:1", "127.0.0.3:1")
DAY_S = 86_400.0


class Others:
    """How the other nodes answer when they are looked at: with the age of writes they keep; None: not at all."""

    def __init__(self, **kept_for_s: float | None) -> None:
        self.kept_for_s = kept_for_s
        self.looks = 0

    async def call(self, address: str, *_: Any, **__: Any) -> bytes:
        self.looks += 1
        one = next(one for one in (DATA, META) if one.tcp_addr == address)
        told = self.kept_for_s["data" if one is DATA else "meta"]
        if told is None:
            raise PeerUnreachable(f"cannot reach {address}", sent=False)
        return encode(PulseAnswer(one.uuid, 0, serves=True, kept_for_s=told))


def late_with(tmp_path: Path, others: Others, state: MetaState) -> tuple[int, int]:
    """What a node of short times makes of it: when it has looked at the others, and when they answer no more."""

    async def all_of_it() -> tuple[int, int]:
        node = lone_node(tmp_path, state, max_age_s=7_200.0)
        node.peers.call = others.call  # type: ignore[method-assign]
        node.detector = FailureDetector(node)
        assert late_ns(node) == NEVER_NS, "nobody has said anything yet"
        watching = asyncio.create_task(node.detector.run())
        try:
            async with asyncio.timeout(60):
                while others.looks < 4:
                    await asyncio.sleep(0.01)
                found = late_ns(node)
                others.kept_for_s = dict.fromkeys(others.kept_for_s)
                looks = others.looks
                while others.looks < looks + 3:
                    await asyncio.sleep(0.01)
                return found, late_ns(node)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await node.peers.close()

    return asyncio.run(all_of_it())


def test_the_longest_time_of_all_nodes_counts_and_stays_known_while_they_are_away(tmp_path: Path) -> None:
    state = state_of(data_nodes=(DATA,))
    found = late_with(tmp_path, Others(data=30 * DAY_S), state)
    assert found == (int(30 * DAY_S * 1e9),) * 2
    own_ns, _ = late_with(tmp_path, Others(data=0.0), state)
    assert own_ns > (7_200 + 3_600) * 10**9


def test_while_one_node_has_not_said_nothing_is_forgotten(tmp_path: Path) -> None:
    """Also one that stores nothing: it takes writes for others, and keeps them."""
    state = MetaState("c" * 32, 1, meta_nodes=(META,), data_nodes=state_of(data_nodes=(DATA,)).data_nodes)
    assert late_with(tmp_path, Others(data=DAY_S, meta=None), state) == (NEVER_NS, NEVER_NS)
    assert late_with(tmp_path, Others(data=DAY_S, meta=30 * DAY_S), state)[0] == int(30 * DAY_S * 1e9)
    now_ns = 1_700_000_000 * 10**9
    assert Horizon().look([], now_ns, NEVER_NS) < 0, "no deletion has such a version"


def test_a_node_by_itself_waits_for_nobody(tmp_path: Path) -> None:
    async def ask() -> None:
        node = lone_node(tmp_path, state_of())
        node.detector = FailureDetector(node)
        assert late_ns(node) == LATE_BATCH_NS
        off = lone_node(tmp_path, state_of(), enabled=False)
        assert kept_for_s(off) == 0.0 < kept_for_s(node)

    asyncio.run(ask())
