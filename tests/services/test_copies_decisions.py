"""Which numbers of copies are behind, which shards lack copies, and how much may be under way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.limits import RESTORES_PER_NODE
from dsdbd.meta import balance, views
from dsdbd.meta import commands as c
from dsdbd.services import copies
from tests.meta.dialogue import Machine

HOUR_NS = 3_600 * 10**9


def cluster(nodes: int, replica_n: int | None, groups: int = 2) -> Machine:
    machine = Machine()
    for number in range(nodes):
        join(machine, number)
    machine.give(c.CreateDatabase("d", c.PolicySpec(replica_n=replica_n, shard_group_duration_ns=HOUR_NS)))
    assert machine.give(c.CreateShardGroups("d", "autogen", tuple(hour * HOUR_NS for hour in range(groups)))).ok
    return machine


def join(machine: Machine, number: int) -> None:
    assert machine.give(c.CreateDataNode(f"n{number}", f"n{number}:1", f"n{number}:2")).ok


def test_automatic_numbers_are_behind_when_a_node_joins_until_the_cap():
    machine = cluster(1, None)
    machine.give(c.CreateDatabase("_internal"))
    due = []
    for number in range(1, 5):
        due.append(copies.raise_due(machine.state, 3))
        machine.give(due[-1] or c.RaiseReplication(3))
        join(machine, number)
    assert due == [None, c.RaiseReplication(3), c.RaiseReplication(3), None]
    assert copies.raise_due(machine.state, 0) == c.RaiseReplication(0)
    assert copies.raise_due(machine.state, 1) is None


def test_stated_numbers_are_never_behind():
    machine = cluster(1, 1)
    join(machine, 1)
    assert copies.raise_due(machine.state, 3) is None


def test_copies_are_missing_after_a_raise_until_they_are_ordered():
    machine = cluster(2, 1)
    assert not copies.copies_missing(machine.state, ())
    machine.give(c.UpdateRetentionPolicy("d", "autogen", replica_n=3))
    assert copies.copies_missing(machine.state, ())
    moves = tuple(c.ShardMove(place.shard.id, 3 - place.shard.owners[0]) for place in views.all_shards(machine.state))
    assert machine.give(c.BeginMoves(moves[:-1])).ok
    assert copies.copies_missing(machine.state, ())
    assert machine.give(c.BeginMoves(moves[-1:])).ok
    # Three copies are asked for, two nodes are there.
    assert not copies.copies_missing(machine.state, ())


def test_copies_are_missing_while_a_lost_or_draining_node_is_an_owner():
    machine = cluster(3, 2)
    assert not copies.copies_missing(machine.state, ())
    assert copies.copies_missing(machine.state, (2,))
    machine.give(c.SetDraining(2, draining=True))
    assert copies.copies_missing(machine.state, ())
    for place in views.shards_owned(machine.state, 2):
        free = ({1, 3} - {*place.shard.owners}).pop()
        assert machine.give(c.BeginMoves((c.ShardMove(place.shard.id, free, 2),))).ok
    assert not copies.copies_missing(machine.state, ())
    assert not copies.copies_missing(machine.state, (2,))
    assert copies.dead_receivers(machine.state, (2,)) == []
    assert copies.dead_receivers(machine.state, (1, 2)) == [1]


def test_no_copy_is_missing_where_no_node_could_take_it():
    """A node of three is gone for good: there is nobody to ask until another one joins."""
    machine = cluster(3, 3)
    assert not copies.copies_missing(machine.state, (2,))
    machine.give(c.SetDraining(2, draining=True))
    assert not copies.copies_missing(machine.state, ())
    join(machine, 3)
    assert copies.copies_missing(machine.state, (2,))
    assert not copies.copies_missing(machine.state, (2, 4))


def test_a_draining_owner_gives_up_a_copy_that_nobody_needs():
    machine = cluster(3, 3)
    machine.give(c.SetDraining(2, draining=True))
    assert not copies.copies_missing(machine.state, ())
    machine.give(c.UpdateRetentionPolicy("d", "autogen", replica_n=2))
    assert copies.copies_missing(machine.state, ())


@given(st.integers(1, 5), st.integers(1, 4), st.sets(st.integers(1, 6)), st.sets(st.integers(1, 6)), st.booleans())
def test_what_a_plan_finds_was_seen_before(nodes, replica_n, gone, draining, joins):
    machine = cluster(nodes, replica_n)
    if joins:
        join(machine, nodes)
    known = {node.id for node in machine.state.data_nodes}
    for node_id in draining & known:
        machine.give(c.SetDraining(node_id, draining=True))
    plan = balance.plan_restore(machine.state, {}, gone, gone)
    if plan.moves or plan.removals:
        assert copies.copies_missing(machine.state, gone)


def test_what_is_under_way_is_bounded():
    machine = cluster(2, 1, groups=40)
    assert copies.room_for_moves(machine.state, ()) == 2 * RESTORES_PER_NODE
    assert copies.room_for_moves(machine.state, (2,)) == RESTORES_PER_NODE
    moves = [c.ShardMove(place.shard.id, 3 - place.shard.owners[0]) for place in views.all_shards(machine.state)]
    machine.give(c.BeginMoves(tuple(moves[:3])))
    assert copies.room_for_moves(machine.state, ()) == 2 * RESTORES_PER_NODE - 3
    machine.give(c.BeginMoves(tuple(moves[3:30])))
    assert copies.room_for_moves(machine.state, ()) == 0
