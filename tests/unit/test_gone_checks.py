"""A node that is gone is told once, also when another process answers at its place; and what is looked at then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dsdbd.cluster.detector import FailureDetector
from dsdbd.cluster.gone import GoneCoordinators
from dsdbd.cluster.messages import PulseAnswer
from dsdbd.cluster.messages import encode as encode_json
from dsdbd.cluster.node import Node
from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.cluster.repair_messages import LATELY_PATH, LatelyAnswer, LatelyRequest, Range, decode_request, encode
from dsdbd.cluster.shard_places import ShardPlaces
from dsdbd.cluster.version_clock import VersionClock
from dsdbd.errors import ShardUnavailable
from dsdbd.meta import views
from dsdbd.meta.state import DataNode, MetaNode, MetaState, Shard
from tests.unit.lone_node import lone_node, state_of

OTHERS = tuple(DataNode(number, str(number) * 32, f"b:{number}", f"c:{number}") for number in (2, 3, 4))
META = MetaNode(9, "9" * 32, "d:1", "d:2")


@dataclass
class Process:
    """Another node; None: nothing listens."""

    uuid: str
    started_ns: int | None = 1
    looks: int = 0

    async def call(self, address: str, *_: Any, **__: Any) -> bytes:
        self.looks += 1
        if self.started_ns is None:
            raise PeerUnreachable(f"cannot reach {address}", sent=False, refused=True)
        return encode_json(PulseAnswer(self.uuid, 0, serves=True, started_ns=self.started_ns))

    async def looked_at(self, times: int) -> None:
        looks = self.looks
        while self.looks < looks + times:
            await asyncio.sleep(0.01)


def test_an_end_is_told_once_whether_or_not_something_answers_then(tmp_path: Path) -> None:
    async def look(state: MetaState, other: Process, number: int) -> None:
        node = lone_node(tmp_path, state)
        node.peers.call = other.call  # type: ignore[method-assign]
        node.detector = detector = FailureDetector(node)
        lost: list[int] = []
        back: list[int] = []
        detector.on_lost(lambda number, silent_s: lost.append(number) if silent_s >= 0 else None)
        detector.on_back(back.append)
        watching = asyncio.create_task(detector.run())
        try:
            async with asyncio.timeout(60):
                await other.looked_at(3)
                assert (lost, back) == ([], [])
                other.started_ns = 2
                await other.looked_at(3)
                assert lost == [number]
                other.started_ns = None
                while len(lost) < 2:
                    await asyncio.sleep(0.01)
                await other.looked_at(3)
                assert lost == [number] * 2
                other.started_ns = 3
                await other.looked_at(3)
                assert lost == [number] * 2
                assert len(back) in (0, 2), "a node without points has no number as an owner"
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await node.peers.close()

    asyncio.run(look(state_of(data_nodes=OTHERS[:1]), Process(OTHERS[0].uuid), 2))
    asyncio.run(look(MetaState("c" * 32, 1, meta_nodes=(META,)), Process(META.uuid), 9))


@dataclass
class Owners:
    """The other owners: which shards took writes lately at which of them, who does not answer; and what is asked."""

    took: dict[int, list[int]]
    silent: Collection[int] = ()
    fails: Collection[int] = ()
    go: asyncio.Event = field(default_factory=asyncio.Event)
    pulled: list[tuple[int, int, Range]] = field(default_factory=list)
    doubted: list[tuple[int | None, Any]] = field(default_factory=list)

    async def call(self, address: str, _method: str, path: str, body: bytes, **_: Any) -> bytes:
        assert path == LATELY_PATH
        number = next(one.id for one in OTHERS if one.tcp_addr == address)
        asked = decode_request(body, LatelyRequest)
        assert asked.data_id == 1
        assert asked.ago_s > 10
        if number in self.silent:
            raise PeerUnreachable(f"cannot reach {address}", sent=False)
        return encode(LatelyAnswer(1, self.took.get(number, [])))

    async def pull(self, place: views.ShardPlace, from_node: int, part: Range) -> None:
        await self.go.wait()
        self.pulled.append((place.shard.id, from_node, part))
        if from_node in self.fails:
            raise ShardUnavailable("not now")

    def doubt(self, *, node: int | None = None, shards: Collection[int] | None = None) -> None:
        self.doubted.append((node, None if shards is None else set(shards)))


def with_gone(
    tmp_path: Path, owners: Owners, act: Callable[[Node, GoneCoordinators], Awaitable[None]], timeout_s: float = 60.0
) -> None:
    """A node that owns shards 7 to 9 with nodes 2 and 3, and 10 alone. ``timeout_s``: twice what a read waits for."""

    async def all_of_it() -> None:
        state = state_of(*(Shard(number, (1, 2, 3)) for number in (7, 8, 9)), Shard(10, (1,)), data_nodes=OTHERS)
        node = lone_node(tmp_path, state)
        node.config = replace(node.config, cluster=replace(node.config.cluster, shard_mapper_timeout_s=timeout_s))
        node.peers.call = owners.call  # type: ignore[assignment]
        clock = VersionClock(node)
        clock.next()
        gone = GoneCoordinators(node, ShardPlaces(node), clock, owners.pull, owners.doubt)
        work = asyncio.create_task(gone.run())
        try:
            async with asyncio.timeout(60):
                await asyncio.sleep(0)
                await act(node, gone)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await clock.close()
            await node.peers.close()

    asyncio.run(all_of_it())


def places(node: Node, *shards: int) -> list[views.ShardPlace]:
    return [place for place in views.all_shards(node.metadata.state) if place.shard.id in shards]


def test_reads_wait_for_what_the_others_took_and_for_nothing_else(tmp_path: Path) -> None:
    owners = Owners({2: [8, 7], 3: [8]})

    async def act(node: Node, gone: GoneCoordinators) -> None:
        assert not gone.may_lack(7) and not gone.is_looking()
        gone._on_lost(4, 1.4)
        assert gone.is_looking()
        assert gone.may_lack(7) and gone.may_lack(9), "nobody knows yet which"
        await gone.over(places(node, 9, 10))
        assert gone.may_lack(7) and gone.may_lack(8) and not gone.may_lack(9)
        read = asyncio.create_task(gone.over(places(node, 7, 8)))
        await asyncio.sleep(0.05)
        assert not read.done()
        owners.go.set()
        await read
        assert not gone.may_lack(7) and not gone.may_lack(8)
        while gone.is_looking():
            await asyncio.sleep(0)

    with_gone(tmp_path, owners, act)
    assert sorted(pulled[:2] for pulled in owners.pulled) == [(7, 2), (8, 2), (8, 3)]
    assert all(part.coordinator == 4 and part.since > 0 for *_, part in owners.pulled)


def test_who_does_not_answer_is_compared_with_as_a_whole(tmp_path: Path) -> None:
    owners = Owners({2: [7]}, silent={3}, fails={2})
    owners.go.set()

    async def act(node: Node, gone: GoneCoordinators) -> None:
        gone._on_lost(4, 1.4)
        await gone.over(places(node, 7, 8, 9))

    with_gone(tmp_path, owners, act)
    assert (3, None) in owners.doubted
    assert (2, {7}) in owners.doubted


def test_a_read_waits_no_longer_than_it_may_and_one_end_is_looked_at_once(tmp_path: Path) -> None:
    owners = Owners({2: [7], 3: [7]})

    async def act(node: Node, gone: GoneCoordinators) -> None:
        for _ in range(5):
            gone._on_lost(4, 1.4)
        await gone.over(places(node, 7))
        assert not gone.may_lack(7)
        assert gone.counters == {"nodes": 1, "shards": 0}, "it goes on without the read"
        owners.go.set()
        while gone._checks:
            await asyncio.sleep(0.01)

    with_gone(tmp_path, owners, act, timeout_s=0.4)
    assert [pulled[:2] for pulled in owners.pulled] == [(7, 2), (7, 3)]
