"""Fifty nodes for weeks: no shard without a live copy, even load after a rebalance, small metadata, right refusals."""

import msgspec
import pytest

from dsdbd.meta import balance, placement
from dsdbd.meta import commands as c
from tests.sim import fifty

METADATA_BYTES_PER_SHARD = 60
STEPS = 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_fifty_nodes_for_weeks(seed):
    figures = fifty.run(seed, STEPS)
    assert figures.copied > 100
    assert figures.rebalances
    assert figures.dry_runs == 3 * STEPS
    assert figures.unbalanced <= fifty.WITHIN
    assert 0 < figures.metadata_bytes_per_shard < METADATA_BYTES_PER_SHARD


def small(monkeypatch):
    monkeypatch.setattr(fifty, "QUIET_DAYS", 2)
    world = fifty.World(3, nodes=8)
    for _ in range(24):
        world.tick(2 * fifty.HOUR_NS)
    return world


def lose(world):
    world.fail(for_ever=True)
    for _ in range(20):
        world.tick()
    world.fail(for_ever=True)
    for _ in range(20):
        world.tick()


def test_copies_that_are_not_restored_are_noticed(monkeypatch):
    world = small(monkeypatch)
    monkeypatch.setattr(balance, "plan_restore", lambda *_arguments: balance.Plan())
    with pytest.raises(fifty.BrokenInvariantError, match="has no copy that is up"):
        for _ in range(3):
            lose(world)


def test_two_copies_on_one_node_are_noticed(monkeypatch):
    world = small(monkeypatch)
    monkeypatch.setattr(placement, "plan_group", lambda nodes, _copies, _seed: ((nodes[0], nodes[0]),))
    with pytest.raises(fifty.BrokenInvariantError, match="has a node twice"):
        for _ in range(48):
            world.tick(2 * fifty.HOUR_NS)


def test_uneven_load_is_noticed(monkeypatch):
    world = small(monkeypatch)
    for _ in range(4):
        world.join()
    monkeypatch.setattr(balance, "plan_rebalance", lambda *_arguments: balance.Plan())
    with pytest.raises(fifty.BrokenInvariantError, match="from the mean"):
        world.rebalance()


def test_an_owner_without_the_points_is_noticed(monkeypatch):
    world = small(monkeypatch)
    shard_id, machine = next((min(machine.held), machine) for machine in world.machines.values() if machine.held)
    machine.held.discard(shard_id)
    with pytest.raises(fifty.BrokenInvariantError, match="an owner without its points"):
        world.must(c.CreateDatabase("another"))
        world.tick()


def test_the_same_seed_gives_the_same_run(monkeypatch):
    monkeypatch.setattr(fifty, "QUIET_DAYS", 1)
    monkeypatch.setattr(fifty, "NODES", 9)
    first, second = (fifty.run(9, 6) for _ in range(2))
    without_time = ({**vars(figures), "plan_s": 0} for figures in (first, second))
    assert len({msgspec.json.encode(figures) for figures in without_time}) == 1
