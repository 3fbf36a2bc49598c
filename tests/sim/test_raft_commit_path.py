"""The order of one commit: what may overtake a sync, what must wait for it, and how many messages it takes."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from pathlib import Path

import pysyncobj.syncobj
import pytest

from dsdbd.meta.raft import codec
from dsdbd.meta.raft.records import RecordType
from tests.sim.node import SimNode
from tests.sim.world import World

ADDRESSES = [f"10.0.0.{number}:1" for number in (1, 2, 3)]


class Trio:
    """Three voters with an agreed leader, and a record of every message handed to a link."""

    def __init__(self, directory: Path) -> None:
        self.world = World(5, directory, node_count=3, duration_s=600.0)
        self.sent: list[tuple[str, str, dict]] = []
        carry = self.world.network.carry

        def record(link, data) -> None:
            self.sent.append((link.transport.self_address, link.peer, codec.decode(data)))
            carry(link, data)

        self.world.network.carry = record
        for address in ADDRESSES:
            SimNode(self.world, address, ADDRESSES)
        self.until(lambda: len({node.core.leader for node in self.nodes} - {None}) == 1 and self.leader is not None)
        self.until(lambda: all(node.core.raftLastApplied == self.leader.journal.last.log_index for node in self.nodes))

    @property
    def nodes(self) -> list[SimNode]:
        return list(self.world.nodes.values())

    @property
    def leader(self) -> SimNode:
        return self.world.leader()

    def until(self, what, within_s: float = 20.0) -> None:
        end_s = self.world.sim.now_s + within_s
        while not what():
            assert self.world.sim.now_s < end_s, "not in time"
            self.world.sim.run_until(self.world.sim.now_s + 0.001)

    def commit_in_a_row(self, node: SimNode, count: int) -> None:
        """Propose the next command when the one before is answered, as a single client does."""
        reasons: list[int] = []

        def done(_answer: object, reason: int) -> None:
            reasons.append(reason)
            if len(reasons) < count:
                self.world.sim.after(0.0002, propose)

        def propose() -> None:
            node.core.submit(f"{node.address} {len(reasons)}".encode(), done)
            node.kick()

        propose()
        self.until(lambda: len(reasons) == count)
        assert reasons == [0] * count


@pytest.fixture
def trio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trio]:
    # The simulation sets the library's clock and the seed of the process: other tests get theirs back.
    monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", pysyncobj.syncobj.monotonicTime)
    state = random.getstate()
    trio = Trio(tmp_path / "world")
    yield trio
    for node in trio.nodes:
        node.crash(power_cut=False)
    random.setstate(state)


def test_appends_overtake_the_leaders_sync_and_it_counts_itself_only_after_it(trio):
    leader = trio.leader
    seen: list[tuple[bool, bool]] = []

    def sync_file(_descriptor: int) -> None:
        index = leader.journal.last.log_index
        appends = [message for sender, _, message in trio.sent if sender == leader.address and message.get("entries")]
        seen.append((any(m["entries"][-1][1] == index for m in appends), leader.core.raftCommitIndex < index))

    leader.journal._sync_file = sync_file
    trio.commit_in_a_row(leader, 10)
    assert seen == [(True, True)] * 10


def test_a_leader_that_dies_before_its_own_sync_has_committed_nothing_alone(trio):
    leader = trio.leader
    leader.journal.appends_to_live = 1  # the entry is written, its sync is the end
    index = leader.journal.last.log_index + 1
    answers: list[int] = []
    leader.core.submit(b"late", lambda _answer, reason: answers.append(reason))
    leader.kick()
    trio.until(lambda: not leader.alive)
    assert leader.core.raftCommitIndex < index
    assert answers == []
    # The others hold it, and the one that died gets it back.
    trio.until(lambda: len(trio.nodes) == 3 and all("late" in node.machine.counts for node in trio.nodes))
    assert trio.world.outcome.bad == []


def test_no_follower_confirms_what_is_not_durable(trio):
    leader, carry, checked = trio.leader, trio.world.network.carry, []

    def check(link, data) -> None:
        message = codec.decode(data)
        if message["type"] == "next_node_idx" and message["success"]:
            journal = trio.world.nodes[link.transport.self_address].journal
            checked.append(journal.has_unsynced)
        carry(link, data)

    trio.world.network.carry = check
    trio.commit_in_a_row(leader, 10)
    assert len(checked) >= 20
    assert not any(checked)


def test_a_single_client_takes_one_append_for_each_commit_and_follower(trio):
    leader = trio.leader
    trio.sent.clear()
    trio.commit_in_a_row(leader, 100)
    appends = [peer for sender, peer, message in trio.sent if message["type"] == "append_entries"]
    assert len(appends) <= 2 * 100 * 1.1
    # The last commit has no append to ride on.
    start_s = trio.world.sim.now_s
    trio.until(lambda: all(node.core.raftLastApplied == leader.journal.last.log_index for node in trio.nodes))
    assert trio.world.sim.now_s - start_s < 0.01


def test_a_proposer_on_a_follower_is_told_of_the_commit_at_once(trio):
    follower = next(node for node in trio.nodes if node is not trio.leader)
    start_s = trio.world.sim.now_s
    trio.commit_in_a_row(follower, 50)
    # Four ways of 0.5 to 4 ms each, and the pause of 0.2 ms between two commands.
    assert (trio.world.sim.now_s - start_s) / 50 < 4 * 0.0025 + 0.0008


def test_a_full_disk_costs_no_lead(trio):
    leader = trio.leader
    append = leader.journal._append

    def full(kind: RecordType, payload: bytes) -> None:
        if kind is RecordType.ENTRY:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(kind, payload)

    leader.journal._append = full
    for _ in range(3):
        leader.core._room, leader.core._room_checked_s = True, trio.world.sim.now_s
        leader.core.submit(b"x", lambda _answer, _reason: None)
    elections = trio.world.outcome.elections
    trio.world.sim.run_until(trio.world.sim.now_s + 4)
    assert trio.leader is leader
    assert trio.world.outcome.elections == elections
    assert leader.core.fatal is None
    del leader.journal._append
    trio.commit_in_a_row(leader, 3)
