"""Nodes that the rest would never dial: a joiner whose vote was rolled back, a small address that was removed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pysyncobj.syncobj
import pytest

from dsdbd.meta.raft.library import TCPNode
from dsdbd.meta.raft.membership import Change
from tests.sim.node import SimNode
from tests.sim.world import World

VOTERS = [f"10.0.0.{number}:1" for number in (2, 3, 4)]
SMALL = "10.0.0.1:1"
"""The smallest address: between two voters the larger one dials, so this one waits for the others."""


def ignore(_answer: object, _reason: int) -> None:
    pass


pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The simulation sets the library's clock and the seed of the process: other tests get theirs back.
    monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", pysyncobj.syncobj.monotonicTime)
    state = random.getstate()
    world = World(11, tmp_path / "world", node_count=4, duration_s=600.0)
    yield world
    for node in list(world.nodes.values()):
        node.crash(power_cut=False)
    random.setstate(state)


def until(world: World, what: Callable[[], object], within_s: float = 20.0) -> None:
    end_s = world.sim.now_s + within_s
    while not what():
        assert world.sim.now_s < end_s, "not in time"
        world.sim.run_until(world.sim.now_s + 0.02)


def command(world: World, node: SimNode) -> None:
    """Commit a command."""
    answers: list[int] = []
    world.outcome.commands += 1
    node.core.submit(f"c{world.outcome.commands}".encode(), lambda _answer, reason: answers.append(reason))
    node.kick()
    until(world, lambda: answers)
    assert answers == [0]


def change(node: SimNode, operation: str) -> None:
    node.core.change_members(Change(operation, SMALL), ignore)
    node.kick()


def lead(world: World) -> SimNode:
    def agreed() -> bool:
        leader = world.leader()
        return leader is not None and all(world.nodes[voter].core.leader == leader.address for voter in VOTERS)

    until(world, agreed)
    leader = world.leader()
    assert leader is not None
    return leader


def test_a_joiner_whose_vote_was_rolled_back_is_admitted_by_the_next_leader(world):
    for address in VOTERS:
        SimNode(world, address, VOTERS)
    leader = lead(world)
    command(world, leader)
    joiner = SimNode(world, SMALL, VOTERS)
    until(world, lambda: SMALL in leader.transport.learners and joiner.journal.last == leader.journal.last)
    others = [address for address in VOTERS if address != leader.address]
    for address in others:
        world.network.cut_for(address, leader.address, 4.0)
        world.network.cut_for(address, SMALL, 8.0)
    change(leader, "add")
    until(world, lambda: joiner.core.is_voter)
    assert not joiner.core.vote_is_certain()
    # The only leader that knows of the vote ends, and the rest goes on without the entry.
    leader.crash(power_cut=False)
    until(world, lambda: any(world.nodes[address].core.is_leader for address in others))
    successor = next(world.nodes[address] for address in others if world.nodes[address].core.is_leader)
    command(world, successor)
    SimNode(world, leader.address, VOTERS)
    world.sim.run_until(world.sim.now_s + 10)
    successor = lead(world)
    assert set(successor.core.voters) == set(VOTERS)
    # It believes in its vote no more, is a learner of the leader, and can be given the vote again.
    assert not joiner.core.is_voter
    assert joiner.journal.last == successor.journal.last
    change(successor, "add")
    until(world, joiner.core.vote_is_certain)
    assert SMALL in successor.core.voters
    assert joiner.core.leader == successor.address


def removed_while_away(world):
    """A cluster of four from which SMALL was removed while it was down; its leader."""
    for address in [SMALL, *VOTERS]:
        SimNode(world, address, [SMALL, *VOTERS])
    leader = lead(world)
    if leader.address == SMALL:
        leader.core.transferLeadership(None, None)
        until(world, lambda: world.nodes[SMALL].core.leader not in (None, SMALL))
        leader = lead(world)
    world.nodes[SMALL].crash(power_cut=False)
    change(leader, "rem")
    until(world, lambda: all(SMALL not in world.nodes[voter].core.voters for voter in VOTERS))
    return leader


def test_a_small_address_removed_while_it_was_away_is_told(world):
    leader = removed_while_away(world)
    command(world, leader)
    again = SimNode(world, SMALL, [SMALL])
    until(world, lambda: again.core.removed)
    assert lead(world) is leader


def test_who_leads_lets_go_of_the_nodes_it_will_send_nothing(world):
    leader = removed_while_away(world)
    world.network.cut_for(SMALL, leader.address, 60.0)
    again = SimNode(world, SMALL, [SMALL])
    followers = [world.nodes[voter] for voter in VOTERS if voter != leader.address]
    # It votes by its own word, so followers hear it; they cannot tell it that it was removed.
    until(world, lambda: all(TCPNode(SMALL) in node.transport.links for node in followers))
    assert not again.core.removed
    leader.core.transferLeadership(None, None)
    until(world, lambda: again.core.removed)
    assert lead(world) is not leader


def test_a_node_removed_while_it_was_away_learns_it_from_a_snapshot(world):
    for address in VOTERS:
        SimNode(world, address, VOTERS)
    leader = lead(world)
    joiner = SimNode(world, SMALL, VOTERS)
    until(world, lambda: SMALL in leader.transport.learners)
    until(world, lambda: leader.core.match_index(leader.transport.learners[SMALL]) == leader.journal.last.log_index)
    change(leader, "add")
    until(world, lambda: joiner.journal.last.log_index > 2 and not leader.core.has_open_change())
    # Killed before it wrote down that its vote is settled, it comes back as one who asks for it.
    joiner.crash(power_cut=False)
    change(leader, "rem")
    until(world, lambda: not leader.core.has_open_change() and SMALL not in leader.core.voters)
    for _ in range(5):
        command(world, leader)
    for voter in VOTERS:
        world.nodes[voter].core.forceLogCompaction()
    until(world, lambda: leader.journal.first_index > joiner.journal.last.log_index)
    again = SimNode(world, SMALL, VOTERS)
    assert again.core.is_voter
    assert not again.core.vote_is_certain()
    until(world, lambda: again.core.store.index > 0)
    assert again.core.removed
    # And once it is given a vote again, it is not removed any more.
    until(world, lambda: SMALL in leader.transport.learners)
    change(leader, "add")
    until(world, again.core.vote_is_certain)
    assert not again.core.removed


def test_the_calm_end_begins_in_time_however_late_the_next_fault_is_due(tmp_path, monkeypatch):
    monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", pysyncobj.syncobj.monotonicTime)
    state = random.getstate()
    world = World(3, tmp_path / "calm", node_count=3, duration_s=20.0, faults=("spike",))
    monkeypatch.setattr(world, "_fault", lambda: None)
    world.sim.at(world.calm_s - 0.1, lambda: setattr(world.nodes[VOTERS[0]].journal, "appends_to_live", 10**6))
    spikes: list[float] = []
    world.sim.at(world.calm_s - 0.1, lambda: spikes.append(world.network.spike_s))
    world.sim.at(world.calm_s + 0.1, lambda: spikes.append(world.network.spike_s))
    lives: list[object] = []
    world.sim.at(world.calm_s + 0.1, lambda: lives.append(world.nodes[VOTERS[0]].journal.appends_to_live))
    assert world.run().bad == []
    random.setstate(state)
    assert spikes == [0.3, 0.0]
    assert lives == [None]
