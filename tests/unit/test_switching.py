"""A new owner answers nothing about a shard before it holds what the owners of before confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from dsdbd.cluster import repair_messages, switching
from dsdbd.cluster.asking import ReadRequest
from dsdbd.cluster.cancellation import Cancellation
from dsdbd.cluster.demand import Demand
from dsdbd.cluster.node import Node
from dsdbd.cluster.reads import ReadPath
from dsdbd.cluster.repair import Repair
from dsdbd.cluster.switching import Switching
from dsdbd.cluster.transfer import Transfer
from dsdbd.cluster.whole_pull import WholePull
from dsdbd.cluster.writes import WritePath
from dsdbd.errors import ShardUnavailable
from dsdbd.meta import views
from dsdbd.meta.state import DataNode, Incoming, MetaState, Shard
from tests.storage.storage_model import open_store
from tests.unit.lone_node import lone_node, state_of

OTHERS = tuple(DataNode(number, str(number) * 32, "127.0.0.1:1", f"127.0.0.{number}:1") for number in (2, 3))
TAKING = Shard(7, (2, 3), (Incoming(1, 2),))
SINCE = {2: 20, 3: 30}


@dataclass
class Pulls:
    """Looks at other owners that end when the test says so."""

    let: asyncio.Event
    failures: int = 0
    hang: set[int] = field(default_factory=set)
    caught_up: list[tuple[int, int, int]] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    index_of: Callable[[], int] = lambda: 0

    async def catch_up(self, _place: Any, owner: int, since: int) -> None:
        self.caught_up.append((owner, since, self.index_of()))
        while owner in self.hang:
            await asyncio.sleep(0.01)
        await self._end()

    async def pull(self, _place: Any, owner: int) -> None:
        self.whole.append(owner)
        await self._end()

    async def _end(self) -> None:
        await self.let.wait()
        if self.failures:
            self.failures -= 1
            raise ShardUnavailable("not now")


@dataclass
class Moment:
    """A node that takes a copy of shard 7 from nodes 2 and 3, in the place of node 2."""

    node: Node
    pulls: Pulls
    switching: Switching

    async def now_by(self, *shards: Shard, data_nodes: tuple[DataNode, ...] = OTHERS) -> None:
        self.node.metadata.publish(state_of(*shards, index=2, data_nodes=data_nodes))
        await asyncio.sleep(0)

    async def ended(self) -> None:
        place = views.find_shard(state_of(TAKING), 7)
        assert place is not None
        await self.switching.over([place], 60)


def during(tmp_path: Path, act: Callable[[Moment], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        node = lone_node(tmp_path, state_of(TAKING, data_nodes=OTHERS))
        node.store = open_store(tmp_path)
        node.repair = Repair(node, WritePath(node).clock)
        node.transfer = Transfer(node, WritePath(node).clock)
        pulls = Pulls(asyncio.Event(), index_of=lambda: node.metadata.state.index)
        node.transfer.switching = Switching(node, cast("WholePull", pulls))
        try:
            async with asyncio.timeout(60):
                await act(Moment(node, pulls, node.transfer.switching))
        finally:
            await node.transfer.switching.close()
            node.repair.source.close()
            await node.peers.close()
            await asyncio.to_thread(node.store.close)

    asyncio.run(all_of_it())


async def read(node: Node) -> None:
    await ReadPath(node).serve(msgspec.msgpack.encode(ReadRequest("schema", "d", "p", [7])), Cancellation(Demand()))


async def digests(node: Node) -> None:
    assert node.repair is not None
    await node.repair.source.digests(repair_messages.encode(repair_messages.DigestsRequest(2, 7, {}, 0)))


@pytest.mark.parametrize("ask", [read, digests])
def test_what_is_asked_of_a_new_owner_waits_for_what_the_former_ones_confirmed(
    tmp_path: Path, ask: Callable[[Node], Awaitable[None]]
) -> None:
    async def act(moment: Moment) -> None:
        moment.switching.prepare(TAKING, 2, SINCE)
        await moment.now_by(Shard(7, (1, 3)))
        asked = asyncio.create_task(ask(moment.node))  # type: ignore[arg-type]
        while len(moment.pulls.caught_up) < 2:
            await asyncio.sleep(0.001)
        assert not asked.done()
        assert moment.pulls.caught_up == [(2, 20, 2), (3, 30, 2)], "each by the metadata that made this node an owner"
        moment.pulls.let.set()
        await asked
        assert not moment.switching.is_under_way(7)

    during(tmp_path, act)


def test_it_is_not_read_from_at_once_meanwhile(tmp_path: Path) -> None:
    async def act(moment: Moment) -> None:
        reads = ReadPath(moment.node)
        moment.switching.prepare(TAKING, 2, SINCE)
        await moment.now_by(Shard(7, (1,)))
        assert reads.local_shards("d", "p", 0, 9) is None
        moment.pulls.let.set()
        await moment.ended()
        assert reads.local_shards("d", "p", 0, 9) == []

    during(tmp_path, act)


def test_a_look_that_fails_is_taken_again(tmp_path: Path) -> None:
    async def act(moment: Moment) -> None:
        moment.pulls.failures = 3
        moment.pulls.let.set()
        moment.switching.prepare(TAKING, 2, SINCE)
        await moment.now_by(Shard(7, (1, 3)))
        await moment.ended()
        assert len(moment.pulls.caught_up) == 5, "who was looked at need not be again"

    during(tmp_path, act)


def test_an_owner_that_was_away_before_is_compared_whole(tmp_path: Path) -> None:
    async def act(moment: Moment) -> None:
        moment.pulls.let.set()
        moment.switching.prepare(TAKING, 2, {2: 20})
        await moment.now_by(Shard(7, (1, 3)))
        await moment.ended()
        assert (moment.pulls.caught_up, moment.pulls.whole) == ([(2, 20, 2)], [3])

    during(tmp_path, act)


def test_the_owners_of_the_last_attempt_count(tmp_path: Path) -> None:
    async def act(moment: Moment) -> None:
        moment.pulls.let.set()
        moment.switching.prepare(Shard(7, (2,), (Incoming(1, 2),)), 2, {2: 10})
        moment.switching.prepare(TAKING, 2, SINCE)
        await moment.now_by(Shard(7, (1, 3)))
        await moment.ended()
        assert moment.pulls.caught_up == [(2, 20, 2), (3, 30, 2)]

    during(tmp_path, act)


def test_one_that_left_the_cluster_holds_up_nobody(tmp_path: Path) -> None:
    async def act(moment: Moment) -> None:
        moment.pulls.let.set()
        moment.switching.prepare(TAKING, 2, SINCE)
        await moment.now_by(Shard(7, (1, 3)), data_nodes=OTHERS[1:])
        await moment.ended()
        assert moment.pulls.caught_up == [(3, 30, 2)]

    during(tmp_path, act)


def test_one_that_fails_for_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switching, "_LONGEST_S", 0.05)

    async def act(moment: Moment) -> None:
        moment.pulls.let.set()
        moment.pulls.hang = {2}
        moment.switching.prepare(TAKING, 2, SINCE)
        await moment.now_by(Shard(7, (1, 3)))
        await moment.ended()

    during(tmp_path, act)


def test_what_a_majority_may_have_confirmed_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three owners may have confirmed a write at quorum: with one of the three looked at it may be missing."""
    monkeypatch.setattr(switching, "_LONGEST_S", 0.05)
    taking = Shard(7, (2, 3, 4), (Incoming(1, 2),))
    nodes = (*OTHERS, DataNode(4, "4" * 32, "127.0.0.1:1", "127.0.0.4:1"))

    async def act(moment: Moment) -> None:
        moment.pulls.let.set()
        moment.pulls.hang = {2, 3}
        moment.switching.prepare(taking, 2, {2: 20, 3: 30, 4: 40})
        await moment.now_by(Shard(7, (1, 3, 4)), data_nodes=nodes)
        looks = 0
        while looks < 4:
            looks = sum(owner == 3 for owner, *_ in moment.pulls.caught_up)
            assert moment.switching.is_under_way(7)
            await asyncio.sleep(0.01)
        assert moment.node.transfer is not None
        assert "shard 7 is not read from this node yet" in moment.node.transfer.problems()[0]
        moment.pulls.hang = {2}
        await moment.ended()
        assert not moment.node.transfer.problems()
        assert sum(owner == 4 for owner, *_ in moment.pulls.caught_up) == 1

    during(tmp_path, act)


def test_what_left_the_cluster_with_its_rows_is_not_waited_for(tmp_path: Path) -> None:
    taking = Shard(7, (2, 3, 4), (Incoming(1, 2),))

    async def act(moment: Moment) -> None:
        moment.pulls.let.set()
        moment.switching.prepare(taking, 2, {2: 20, 3: 30, 4: 40})
        await moment.now_by(Shard(7, (1, 3)), data_nodes=OTHERS[1:])
        await moment.ended()

    during(tmp_path, act)


@pytest.mark.parametrize("after", [(), (Shard(7, (2, 3)),)], ids=["dropped", "called off"])
def test_nothing_waits_where_the_node_does_not_become_an_owner(tmp_path: Path, after: tuple[Shard, ...]) -> None:
    async def act(moment: Moment) -> None:
        moment.switching.prepare(TAKING, 2, SINCE)
        await moment.now_by(*after)
        await moment.ended()
        assert not moment.pulls.caught_up

    during(tmp_path, act)


def test_who_waits_too_long_is_told_to_ask_again(tmp_path: Path) -> None:
    async def act(moment: Moment) -> None:
        short = replace(moment.node.config.cluster, shard_mapper_timeout_s=0.02)
        moment.node.config = replace(moment.node.config, cluster=short)
        moment.switching.prepare(TAKING, 2, SINCE)
        await moment.now_by(Shard(7, (1, 3)))
        with pytest.raises(ShardUnavailable, match=r"node 1 has just become an owner of shard 7.*try again"):
            await read(moment.node)

    during(tmp_path, act)


def test_metadata_about_other_things_begin_nothing(tmp_path: Path) -> None:
    async def act(moment: Moment) -> None:
        moment.switching.prepare(TAKING, 2, SINCE)
        later: MetaState = state_of(TAKING, Shard(8, (2,)), index=2, data_nodes=OTHERS)
        moment.node.metadata.publish(later)
        await asyncio.sleep(0)
        assert moment.switching.is_under_way(7)
        assert not moment.pulls.caught_up

    during(tmp_path, act)
