"""Plans for moving copies, over random clusters: what every plan keeps, and what each is for."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.meta import balance, views
from dsdbd.meta import commands as c
from tests.examples import examples
from tests.meta.dialogue import Machine

if TYPE_CHECKING:
    from dsdbd.meta.state import MetaState

HOUR_NS = 3_600 * 10**9
MIB = 1 << 20


def cluster(nodes: int, groups: int, copies: int) -> Machine:
    """Data nodes 1 to ``nodes`` and one policy with that many groups."""
    machine = Machine()
    for number in range(nodes):
        join(machine, f"n{number}")
    machine.give(c.CreateDatabase("d", c.PolicySpec(replica_n=copies, shard_group_duration_ns=HOUR_NS)))
    assert machine.give(c.CreateShardGroups("d", "autogen", tuple(hour * HOUR_NS for hour in range(groups)))).ok
    return machine


def join(machine: Machine, name: str) -> int:
    answer = machine.give(c.CreateDataNode(name, f"{name}:1", f"{name}:2"))
    assert isinstance(answer.value, c.NodeIs)
    return answer.value.id


def begin(machine: Machine, plan: balance.Plan) -> None:
    for command in plan.commands():
        answer = machine.give(command)
        assert answer.ok, answer
    for shard_id, node_id in plan.removals:
        assert machine.give(c.RemoveShardOwner(shard_id, node_id)).ok


def complete(machine: Machine) -> None:
    for place in list(views.all_shards(machine.state)):
        for arrival in place.shard.incoming:
            assert machine.give(c.CompleteMove(place.shard.id, arrival.node)).ok


def carry_out(machine: Machine, plan: balance.Plan) -> None:
    begin(machine, plan)
    complete(machine)


def owners(state: MetaState) -> dict[int, tuple[int, ...]]:
    return {place.shard.id: place.shard.owners for place in views.all_shards(state)}


def loads(state: MetaState, sizes: dict[int, int]) -> dict[int, int]:
    found = {node.id: 0 for node in state.data_nodes}
    for shard_id, nodes in owners(state).items():
        for node_id in nodes:
            found[node_id] += sizes[shard_id]
    return found


def check_copies(before: dict[int, tuple[int, ...]], after: dict[int, tuple[int, ...]]) -> None:
    """Every shard has as many copies as before or more, each on another node."""
    assert before.keys() == after.keys()
    for shard_id, nodes in after.items():
        assert len(set(nodes)) == len(nodes) >= len(before[shard_id])


def check_even(state: MetaState, sizes: dict[int, int], among: set[int] | None = None) -> None:
    load = {node: size for node, size in loads(state, sizes).items() if among is None or node in among}
    mean, biggest = sum(load.values()) / len(load), max(sizes.values(), default=0)
    for size in load.values():
        assert abs(size - mean) <= max(mean / 10, biggest), load


shapes = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 3))


@settings(max_examples=examples(40), deadline=None)
@given(shapes)
def test_adding_a_node_gives_it_its_share_and_moves_no_more(shape):
    machine = cluster(*shape)
    sizes = dict.fromkeys(owners(machine.state), 5 * MIB)
    new = join(machine, "new")
    before, held = owners(machine.state), sum(map(len, owners(machine.state).values()))
    plan = balance.plan_add(machine.state, sizes, (), new)
    assert not plan.refusals
    assert {move.node_id for move in plan.moves} <= {new}
    # A node holds a shard once, so the shards of the policy bound what it can take.
    assert abs(len(plan.moves) - min(held / (shape[0] + 1), len(before))) <= 1
    assert plan.size_bytes == 5 * MIB * len(plan.moves)
    carry_out(machine, plan)
    check_copies(before, owners(machine.state))
    check_even(machine.state, sizes)
    assert balance.plan_add(machine.state, sizes, (), new).moves == ()


@settings(max_examples=examples(40), deadline=None)
@given(shapes, st.integers(0, 10**6))
def test_a_drained_node_holds_nothing_and_the_others_share_it(shape, seed):
    nodes, groups, copies = shape
    machine = cluster(nodes + 1, groups, copies)
    sizes = dict.fromkeys(owners(machine.state), 5 * MIB)
    leaving = random.Random(seed).randint(1, nodes + 1)
    before = owners(machine.state)
    plan = balance.plan_drain(machine.state, sizes, (), leaving)
    if copies > nodes:
        assert plan.moves == ()
        assert "retention policy d.autogen would have fewer copies than now" in plan.refusals[0]
        return
    assert machine.give(c.SetDraining(leaving, draining=True)).ok
    assert balance.plan_drain(machine.state, sizes, (), leaving) == plan
    carry_out(machine, plan)
    check_copies(before, owners(machine.state))
    assert views.shards_owned(machine.state, leaving) == ()
    assert len(plan.moves) == sum(leaving in nodes for nodes in before.values())
    check_even(machine.state, sizes, {node.id for node in machine.state.data_nodes} - {leaving})
    assert machine.give(c.DropDataNode(leaving)).ok


@settings(max_examples=examples(40), deadline=None)
@given(shapes, st.booleans())
def test_a_replaced_node_hands_everything_to_the_new_one(shape, dead):
    nodes, groups, copies = shape
    machine = cluster(nodes, groups, copies)
    before = owners(machine.state)
    new = join(machine, "new")
    down = (1,) if dead else ()
    plan = balance.plan_replace(machine.state, {}, down, 1, new)
    if dead and min(copies, nodes) == 1:
        only = [shard_id for shard_id, nodes in before.items() if nodes == (1,)]
        assert plan.moves == ()
        assert plan.refusals[0].startswith(f"every owner of shards {', '.join(map(str, only[:10]))}")
        return
    assert not plan.refusals
    carry_out(machine, plan)
    after = owners(machine.state)
    assert after == {shard: tuple(new if node == 1 else node for node in nodes) for shard, nodes in before.items()}


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(2, 9), st.integers(1, 12), st.integers(2, 3), st.data())
def test_restoring_replaces_owners_that_are_down_where_nodes_are_left(nodes, groups, copies, data):
    machine = cluster(nodes, groups, copies)
    before = owners(machine.state)
    down = data.draw(st.sets(st.integers(1, nodes), max_size=2))
    assert balance.plan_restore(machine.state, {}, down).moves == (), "nothing is done for nodes that may come back"
    plan = balance.plan_restore(machine.state, {}, down, down)
    carry_out(machine, plan)
    after = owners(machine.state)
    check_copies(before, after)
    lost = []
    for shard_id, now in after.items():
        if down >= set(before[shard_id]):
            assert now == before[shard_id]
            lost.append(shard_id)
            continue
        assert len(set(now) - down) == min(copies, nodes - len(down))
    assert bool(lost) == bool(plan.refusals)
    if lost:
        assert ", ".join(map(str, lost[:10])) in plan.refusals[0]
    assert balance.plan_restore(machine.state, {}, down, down).moves == ()


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(2, 9), st.integers(1, 12), st.integers(1, 3), st.booleans())
def test_what_is_left_on_a_draining_node_is_moved_away(nodes, groups, copies, lowered):
    machine = cluster(nodes, groups, copies)
    if lowered:
        machine.give(c.UpdateRetentionPolicy("d", "autogen", replica_n=1))
    wanted = min(1 if lowered else copies, nodes)
    machine.give(c.SetDraining(1, draining=True))
    carry_out(machine, balance.plan_restore(machine.state, {}, ()))
    for now in owners(machine.state).values():
        if nodes - 1 >= wanted:
            assert 1 not in now
        assert len(now) >= wanted
    assert balance.plan_restore(machine.state, {}, ()) == balance.Plan()


def test_an_empty_node_does_not_make_all_the_copies_that_a_lost_one_held():
    machine = cluster(9, 20, 2)
    join(machine, "empty")
    plan = balance.plan_restore(machine.state, {}, (1,), (1,))
    taken = Counter(move.node_id for move in plan.moves)
    assert max(taken.values()) == taken[10] == 8
    assert len(taken) == 9


def test_raised_replication_brings_copies_to_groups_that_exist():
    machine = cluster(3, 4, 1)
    machine.give(c.UpdateRetentionPolicy("d", "autogen", replica_n=2))
    plan = balance.plan_restore(machine.state, {}, ())
    assert all(move.replaces == 0 for move in plan.moves)
    carry_out(machine, plan)
    assert {len(nodes) for nodes in owners(machine.state).values()} == {2}
    check_even(machine.state, dict.fromkeys(owners(machine.state), 1))


@settings(max_examples=examples(40), deadline=None)
@given(shapes, st.integers(0, 4), st.sampled_from(["equal", "any", "none"]), st.integers(0, 10**6))
def test_rebalancing_evens_the_load_and_then_has_nothing_to_do(shape, joining, kind, seed):
    machine = cluster(*shape)
    for number in range(joining):
        join(machine, f"new{number}")
    rng = random.Random(seed)
    before = owners(machine.state)
    sizes = {shard: {"equal": 7 * MIB, "any": rng.randint(0, 9 * MIB), "none": 0}[kind] for shard in before}
    plan = balance.plan_rebalance(machine.state, sizes, ())
    if joining == 0 and kind != "any":
        assert plan.moves == (), "a cluster whose groups were placed evenly needs no move"
    begin(machine, plan)
    # Moves under way count as done, so a second plan meanwhile adds nothing.
    assert balance.plan_rebalance(machine.state, sizes, ()).moves == ()
    complete(machine)
    check_copies(before, owners(machine.state))
    if kind != "any":
        assert balance.plan_rebalance(machine.state, sizes, ()).moves == ()
        check_even(machine.state, dict.fromkeys(sizes, 1))
    for _ in range(4):  # copies that have just moved may move on once they are there, but it comes to an end
        carry_out(machine, balance.plan_rebalance(machine.state, sizes, ()))
    assert balance.plan_rebalance(machine.state, sizes, ()).moves == ()


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(3, 8), st.integers(2, 10), st.integers(0, 10**6))
def test_no_plan_uses_nodes_that_are_down_or_draining_as_receivers(nodes, groups, seed):
    rng = random.Random(seed)
    machine = cluster(nodes, groups, 2)
    ids = [*range(1, nodes + 1), join(machine, "new")]
    down, draining = rng.sample(ids, 1), rng.choice(ids)
    machine.give(c.SetDraining(draining, draining=True))
    sizes = {shard: rng.randint(0, 100) for shard in owners(machine.state)}
    a, b = rng.sample(ids, 2)
    for plan in (
        balance.plan_add(machine.state, sizes, down, a),
        balance.plan_drain(machine.state, sizes, down, a),
        balance.plan_replace(machine.state, sizes, down, a, b),
        balance.plan_rebalance(machine.state, sizes, down),
        balance.plan_restore(machine.state, sizes, (), down),
    ):
        assert not {move.node_id for move in plan.moves} & {*down, draining}
        assert len(plan.sizes) == len(plan.moves)
        trial = Machine()
        trial.state = machine.state
        carry_out(trial, plan)
        assert all(len(set(nodes)) == len(nodes) >= 2 for nodes in owners(trial.state).values())


def test_copies_beyond_what_the_policy_asks_for_are_given_up_without_a_copy():
    machine = cluster(3, 4, 3)
    assert (
        "3 copies of shards 1, 2, 3, 4; add a node, or lower"
        in balance.plan_drain(machine.state, {}, (), 2).refusals[0]
    )
    machine.give(c.UpdateRetentionPolicy("d", "autogen", replica_n=2))
    plan = balance.plan_drain(machine.state, {}, (), 2)
    assert (plan.moves, plan.refusals) == ((), ())
    assert [shard_id for shard_id, _ in plan.removals] == [1, 2, 3, 4]
    carry_out(machine, plan)
    assert machine.give(c.DropDataNode(2)).ok
    # The copy that is left must be on a node that is up.
    machine.give(c.UpdateRetentionPolicy("d", "autogen", replica_n=1))
    assert balance.plan_drain(machine.state, {}, (1,), 3).removals == ()


def test_a_refusal_says_who_is_not_counted_and_what_to_do():
    machine = cluster(4, 2, 3)
    machine.give(c.SetDraining(4, draining=True))
    shards = ", ".join(str(shard) for shard, nodes in owners(machine.state).items() if {2, 3} <= {*nodes})
    (refusal,) = balance.plan_drain(machine.state, {}, (1,), 2).refusals
    assert refusal == (
        "retention policy d.autogen would have fewer copies than now: 1 data node would be left (not counting data "
        f"node 1, which does not answer, data node 4, which drains) for 3 copies of shards {shards}; start the silent "
        "one, end a drain (dsdb node cancel 4), add a node, or lower its REPLICATION, first"
    )


def test_shards_that_are_on_their_way_are_waited_for():
    machine = cluster(4, 1, 3)
    before = owners(machine.state)
    shard, (first, second, _) = next(iter(before.items()))
    (free,) = {1, 2, 3, 4} - {*before[shard]}
    assert machine.give(c.BeginMoves((c.ShardMove(shard, free, first),))).ok
    (refusal,) = balance.plan_drain(machine.state, {}, (), second).refusals
    assert refusal == (
        f"shards {shard} of d.autogen are on their way between other nodes, so that no node can take a copy of them "
        "now: give the order again when these moves are done"
    )
    complete(machine)
    plan = balance.plan_drain(machine.state, {}, (), second)
    assert plan.refusals == ()
    assert c.ShardMove(shard, first, second) in plan.moves


def test_bytes_are_evened_as_well_as_numbers():
    machine = cluster(2, 12, 1)
    sizes = {
        shard: 100 * MIB if nodes == (1,) and shard < 10 else MIB for shard, nodes in owners(machine.state).items()
    }
    carry_out(machine, balance.plan_rebalance(machine.state, sizes, ()))
    load = loads(machine.state, sizes)
    assert abs(load[1] - load[2]) <= 100 * MIB
    counts = Counter(nodes[0] for nodes in owners(machine.state).values())
    assert abs(counts[1] - counts[2]) <= 8


def test_a_plan_says_how_much_and_how_long():
    machine = cluster(2, 2, 2)
    join(machine, "c")
    plan = balance.plan_replace(machine.state, {1: 300, 2: 100}, (), 2, 3)
    assert plan.sizes == (300, 100)
    assert plan.size_bytes == 400
    assert plan.duration_s(100.0) == 4
    assert plan.first(1).sizes == (300,)
    assert balance.Plan().duration_s(1.0) == 0
    spread = balance.Plan((c.ShardMove(1, 5), c.ShardMove(2, 6)), (300, 100))
    assert spread.duration_s(100.0) == 3, "receivers work side by side"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((balance.plan_add, 9), "there is no data node 9"),
        ((balance.plan_drain, 9), "there is no data node 9"),
        ((balance.plan_replace, 9, 1), "there is no data node 9"),
        ((balance.plan_replace, 1, 9), "there is no data node 9"),
        ((balance.plan_replace, 1, 1), "data node 1 cannot replace itself"),
        ((balance.plan_add, 2), "data node 2 does not answer: start it first"),
        ((balance.plan_replace, 1, 3), "data node 3 is draining: it takes no shards"),
    ],
)
def test_refusals_of_nodes(arguments, sentence):
    machine = cluster(3, 2, 2)
    machine.give(c.SetDraining(3, draining=True))
    plan = arguments[0](machine.state, {}, (2,), *arguments[1:])
    assert plan == balance.Plan(refusals=(sentence,))


def test_many_moves_are_ordered_by_several_commands():
    moves = tuple(c.ShardMove(shard, 1) for shard in range(2_500))
    assert [len(command.moves) for command in balance.Plan(moves).commands()] == [1_000, 1_000, 500]
