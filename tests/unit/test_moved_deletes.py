"""A deletion that meets a moving shard reaches whoever owns it at the end, or is not confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dsdbd.cluster import deletes
from dsdbd.cluster.handoff import Handoff
from dsdbd.cluster.node import Node
from dsdbd.cluster.writes import WritePath
from dsdbd.errors import DSDBError, NotOwner, OutcomeUnknown, RequestError
from dsdbd.meta.state import DataNode, Incoming, MetaState, Shard
from dsdbd.meta.store import NotProposed
from dsdbd.storage import ShardKey
from dsdbd.storage.tombstones import Tombstone, encode_tombstones
from tests.storage.storage_model import open_store
from tests.unit.lone_node import lone_node, state_of

KEY = ShardKey("d", "p", 7)
DELETED = Tombstone("m", None, 0, 9, 50)
OTHERS = tuple(DataNode(number, str(number) * 32, "127.0.0.1:1", f"127.0.0.{number}:1") for number in (2, 3))


def of(*shards: Shard, index: int = 1) -> MetaState:
    return state_of(*shards, index=index, data_nodes=OTHERS)


@dataclass
class Committed:
    """What the meta nodes have committed: this node sees each state when it asks for the newest."""

    node: Node
    states: list[MetaState] = field(default_factory=list)
    has_leader: bool = True

    async def barrier(self, _timeout_s: float) -> int:
        if not self.has_leader:
            raise NotProposed("nobody leads", outcome_unknown=False)
        if self.states:
            self.node.metadata.publish(self.states.pop(0))
            await asyncio.sleep(0)
        return self.node.metadata.state.index


@dataclass
class Others:
    """What the other nodes are told, and how they answer: with an error, or by confirming."""

    node: Node
    errors: dict[int, Sequence[DSDBError | None]] = field(default_factory=dict)
    told: list[tuple[int, list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.node.peers.call = self.call  # type: ignore[assignment]

    async def call(self, address: str, _method: str, path: str, body: bytes, **_: Any) -> bytes:
        assert path == "/internal/delete"
        number = next(one.id for one in OTHERS if one.tcp_addr == address)
        shards = [shard for shard, _ in deletes._decoder.decode(body).shards]
        if shards:
            turn = sum(one == number for one, _ in self.told)
            self.told.append((number, shards))
            answers = self.errors.get(number, ())
            error = answers[turn] if turn < len(answers) else None
            if error is not None:
                raise error
        return b""


def deleting(tmp_path: Path, before: MetaState, act: Callable[[Committed, Others], None]) -> Others:
    """Delete in shards 7 and 8 by a coordinator with these metadata."""

    async def all_of_it() -> Others:
        node = lone_node(tmp_path, before)
        node.store = open_store(tmp_path)
        node.handoff = Handoff(node)
        await node.handoff.open()
        committed, others = Committed(node), Others(node)
        node.metadata.backend = committed  # type: ignore[assignment]
        act(committed, others)
        try:
            async with asyncio.timeout(60):
                await deletes._at_owners(node, {7: [DELETED], 8: [DELETED]}, 50)
            assert node.handoff.kept_bytes(3) == 0
        finally:
            await node.handoff.close()
            await node.peers.close()
            await asyncio.to_thread(node.store.close)
        return others

    return asyncio.run(all_of_it())


def test_an_owner_that_came_while_the_others_were_told_is_told_as_well(tmp_path: Path) -> None:
    def act(committed: Committed, _: Others) -> None:
        committed.states = [of(Shard(7, (3,)), Shard(8, (2,)), index=2)]

    assert deleting(tmp_path, of(Shard(7, (2,)), Shard(8, (2,))), act).told == [(2, [7, 8]), (3, [7])]


def test_so_is_a_node_that_takes_a_copy(tmp_path: Path) -> None:
    def act(committed: Committed, _: Others) -> None:
        committed.states = [of(Shard(7, (2,), (Incoming(3, 2),)), Shard(8, (2,)), index=2)]

    assert deleting(tmp_path, of(Shard(7, (2,)), Shard(8, (2,))), act).told == [(2, [7, 8]), (3, [7])]


def test_a_node_that_is_no_owner_of_one_shard_any_more_is_told_of_the_other(tmp_path: Path) -> None:
    def act(committed: Committed, others: Others) -> None:
        committed.states = [of(Shard(7, (3,)), Shard(8, (2,)), index=2)]
        others.errors = {2: [NotOwner("moved"), None]}

    told = deleting(tmp_path, of(Shard(7, (2,)), Shard(8, (2,))), act).told
    assert told[0] == (2, [7, 8])
    assert sorted(told[1:]) == [(2, [8]), (3, [7])]


def test_nobody_is_told_twice_where_nothing_moved(tmp_path: Path) -> None:
    def act(committed: Committed, _: Others) -> None:
        committed.states = [of(Shard(7, (2,)), Shard(8, (2, 1)), index=2)]

    assert deleting(tmp_path, of(Shard(7, (2,)), Shard(8, (2, 1))), act).told == [(2, [7, 8])]


def test_where_the_new_owner_does_not_confirm_the_statement_is_not_done(tmp_path: Path) -> None:
    """And it is not said that nothing was deleted: the former owner had confirmed, and gives that on."""

    def act(committed: Committed, others: Others) -> None:
        committed.states = [of(Shard(7, (3,)), Shard(8, (3,)), index=2)]
        others.errors = {3: [RequestError("no")]}

    with pytest.raises(OutcomeUnknown, match="deleted in 0 of 2 shards"):
        deleting(tmp_path, of(Shard(7, (2,)), Shard(8, (2,))), act)


def test_without_a_leader_nobody_knows_who_owns_it_now(tmp_path: Path) -> None:
    def act(committed: Committed, _: Others) -> None:
        committed.has_leader = False

    with pytest.raises(OutcomeUnknown, match="an owner that came meanwhile may not know of it"):
        deleting(tmp_path, of(Shard(7, (2,)), Shard(8, (2,))), act)


def test_a_shard_that_moves_on_and_on_is_given_up_honestly(tmp_path: Path) -> None:
    def act(committed: Committed, _: Others) -> None:
        committed.states = [of(Shard(7, (owner,)), Shard(8, (1,)), index=at) for at, owner in enumerate((3, 2, 3), 2)]

    with pytest.raises(OutcomeUnknown, match="data node 3: shards move faster than it can be told"):
        deleting(tmp_path, of(Shard(7, (2,)), Shard(8, (1,))), act)


def test_a_node_that_ceased_to_own_a_shard_while_it_deleted_does_not_confirm(tmp_path: Path) -> None:
    async def all_of_it() -> None:
        node = lone_node(tmp_path, of(Shard(7, (1,))))
        store = node.store = open_store(tmp_path)
        delete_all = store.delete_all

        def delete_and_move(*args: Any) -> None:
            delete_all(*args)
            node.metadata.state = of(Shard(7, (2,)), index=2)

        store.delete_all = delete_and_move  # type: ignore[assignment,method-assign]
        body = deletes.encode_kept(KEY, encode_tombstones([DELETED]), 1)
        try:
            with pytest.raises(NotOwner):
                await deletes.receive(node, WritePath(node), body)
        finally:
            await node.peers.close()
            await asyncio.to_thread(store.close)

    asyncio.run(all_of_it())
