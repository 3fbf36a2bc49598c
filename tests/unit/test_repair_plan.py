"""What repair decides: which parts are pulled, what is compared when, which deletions may be forgotten."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.pieces import in_groups
from dsdbd.cluster.repair_plan import (
    COST_SHARE,
    EVERYTHING,
    HANDOFF_TURNS,
    KnownCells,
    Ledger,
    Outcome,
    differing,
    identity,
    lacking,
    summary_of,
    tombstone_sum,
    totals_of,
)
from dsdbd.model.digest import CELLS, Grid
from dsdbd.model.predicate import TagEquals
from dsdbd.storage.tombstones import Tombstone, with_tombstone

cells = st.dictionaries(st.integers(0, CELLS - 1), st.integers(0, 2**64 - 1), max_size=20)
names = st.sampled_from(["cpu", "mem", "m"])
tombstones = st.builds(
    Tombstone,
    names,
    st.sampled_from([None, TagEquals("host", "a"), TagEquals("host", "b")]),
    st.integers(0, 3),
    st.integers(4, 7),
    st.integers(1, 30),
)


def grid(name: str, values: dict[int, int]) -> Grid:
    whole = np.zeros(CELLS, dtype=np.uint64)
    for place, value in values.items():
        whole[place] = value
    return Grid.of(name, whole)


@given(cells, cells)
def test_pulling_the_differing_cells_leaves_nothing_that_only_the_other_has(
    own: dict[int, int], theirs: dict[int, int]
) -> None:
    found = set(differing(grid("m", own), grid("m", theirs)).tolist())
    assert found == {place for place, value in theirs.items() if value and own.get(place, 0) != value}
    assert set(differing(None, grid("m", theirs)).tolist()) == {place for place, value in theirs.items() if value}


@given(cells, cells, cells)
def test_cells_that_were_pulled_come_again_only_when_one_side_changed(
    own: dict[int, int], theirs: dict[int, int], later: dict[int, int]
) -> None:
    known, pair = KnownCells(), (7, 2)
    mine, other = grid("m", own), grid("m", theirs)
    every = set(differing(mine, other).tolist())
    assert set(known.fresh(pair, "m", mine, other).tolist()) == every
    known.pulled(pair, "m", mine, other)
    assert not len(known.fresh(pair, "m", mine, other))
    assert set(known.fresh((7, 3), "m", mine, other).tolist()) == every, "another owner's are not known"
    assert set(known.fresh(pair, "n", mine, other).tolist()) == every, "nor are another measurement's"
    changed = grid("m", {**theirs, **later})
    again = set(known.fresh(pair, "m", mine, changed).tolist())
    assert again == {place for place in differing(mine, changed).tolist() if changed.cells[place] != other.cells[place]}
    known.forget(pair, "m")
    assert set(known.fresh(pair, "m", mine, other).tolist()) == every


@given(st.dictionaries(names, cells), st.dictionaries(names, cells))
def test_summaries_are_equal_exactly_where_the_totals_are(
    one: dict[str, dict[int, int]], two: dict[str, dict[int, int]]
) -> None:
    first = {name: grid(name, values) for name, values in one.items()}
    second = {name: grid(name, values) for name, values in two.items()}
    assert (summary_of(first) == summary_of(second)) == (totals_of(first) == totals_of(second))
    assert summary_of({name: grid(name, {}) for name in one}) == 0, "what is empty is as if it was not there"


@given(st.lists(tombstones, max_size=8), st.lists(tombstones, max_size=8))
def test_owners_that_take_over_what_they_lack_have_the_same_deletions(
    mine: list[Tombstone], theirs: list[Tombstone]
) -> None:
    def all_of(those: list[Tombstone]) -> tuple[Tombstone, ...]:
        known: tuple[Tombstone, ...] = ()
        for one in those:
            known = with_tombstone(known, one)
        return known

    own, other = all_of(mine), all_of(theirs)
    united = all_of([*own, *lacking(own, other, 0, rows_differ=False)])
    back = all_of([*other, *lacking(other, own, 0, rows_differ=False)])
    assert tombstone_sum(united) == tombstone_sum(back)
    assert not lacking(united, back, 0, rows_differ=True)
    assert not lacking(back, united, 0, rows_differ=True)
    assert tombstone_sum(()) == 0
    assert len({identity(one) for one in united}) == len(united)


def test_old_deletions_are_taken_over_only_where_rows_differ() -> None:
    """Those of which no late row can come may have been forgotten here, after every owner had them."""
    old, young = Tombstone("m", None, 0, 9, 10), Tombstone("m", TagEquals("host", "a"), 0, 9, 50)
    assert lacking((), (old, young), 40, rows_differ=False) == [young]
    assert lacking((), (old, young), 40, rows_differ=True) == [old, young]
    assert lacking((Tombstone("m", None, 0, 9, 60),), (old, young), 40, rows_differ=True) == []


# --- what is compared when

EQUAL = Outcome(whole=True, equal=True, took_s=0.0, held=frozenset())
MORE = Outcome(whole=True, equal=False, took_s=0.0, held=frozenset())


def ledger(others: dict[int, list[int]], now_s: float = 0.0) -> Ledger:
    made = Ledger(10.0)
    made.know(others, now_s)
    return made


def test_every_pair_is_compared_at_once_then_at_intervals_and_sooner_where_it_was_not_equal() -> None:
    plan = ledger({1: [3, 4], 2: [4]})
    assert plan.due(0.0) == {3: [1], 4: [1, 2]}
    plan.compared((1, 3), EQUAL, 1.0)
    plan.compared((1, 4), MORE, 1.0)
    plan.failed((2, 4), 1.0)
    assert plan.due(1.9) == {}
    assert plan.next_s() == 2.0
    assert plan.due(2.0) == {4: [1, 2]}
    for turn in range(10):
        plan.compared((1, 4), MORE, 100.0 * turn)
    assert plan.due(909.9).get(4, []) == [2], "what stays unequal is looked at no more often than anything else"
    assert plan.due(910.0) == {3: [1], 4: [1, 2]}


def test_what_takes_long_is_compared_less_often_but_at_once_when_somebody_is_back() -> None:
    plan = ledger({1: [3]})
    plan.compared((1, 3), EQUAL._replace(took_s=4.0), 0.0)
    assert plan.due(COST_SHARE * 4.0 - 0.1) == {}
    assert plan.due(COST_SHARE * 4.0) == {3: [1]}
    plan.wake(20.0, node=4)
    assert plan.due(20.0) == {}
    plan.wake(20.0, node=3)
    assert plan.due(20.0) == {3: [1]}


def test_pairs_that_are_equal_are_compared_together_and_less_often_when_there_are_many() -> None:
    plan = ledger({shard: [3, 4] for shard in range(100)})
    for shard in range(100):
        plan.compared((shard, 3), EQUAL, shard / 100)
        plan.compared((shard, 4), EQUAL, shard / 100)
    assert plan.due(9.9) == {}
    assert plan.due(10.0) == {3: list(range(100)), 4: list(range(100))}
    many = ledger({shard: [3] for shard in range(5000)})
    many.compared((7, 3), EQUAL, 100.0)
    assert 7 not in many.due(149.0)[3]
    assert 7 in many.due(150.0)[3]


def test_a_difference_is_left_to_the_writes_that_are_being_delivered_for_a_while_only() -> None:
    plan = ledger({1: [3]})
    assert not plan.leave_to_handoff((1, 3), 0, 0.0)
    turns, kept_bytes = 0, 100
    while plan.leave_to_handoff((1, 3), kept_bytes, float(turns)):
        turns += 1
        kept_bytes = max(50, kept_bytes - 10)
        assert plan.due(turns - 0.5) == {}
        assert plan.due(float(turns)) == {3: [1]}
    assert turns == 6 + HANDOFF_TURNS, "as long as they get less, and a little longer"
    plan.compared((1, 3), EQUAL, 50.0)
    assert plan.leave_to_handoff((1, 3), kept_bytes, 60.0)


@pytest.mark.parametrize(("others", "needed"), [([], 0), ([3], 1), ([3, 4], 1), ([3, 4, 5], 2), ([3, 4, 5, 6], 2)])
def test_a_copy_is_clean_when_it_holds_what_a_majority_does(others: list[int], needed: int) -> None:
    plan = ledger({1: others})
    for done, node in enumerate(others):
        assert plan.is_clean(1) == (done >= needed)
        plan.compared((1, node), MORE, 1.0)
    assert plan.is_clean(1)
    plan.wake(2.0)
    assert plan.is_clean(1) == (needed == 0)
    assert plan.is_clean(2), "it has just come to be"


def test_copies_that_come_to_be_while_the_node_is_there_are_clean() -> None:
    assert not Ledger(10.0).is_clean(1)
    plan = ledger({1: [3]})
    plan.know({1: [3], 2: [3]}, 1.0)
    assert (plan.is_clean(1), plan.is_clean(2)) == (False, True)
    assert not plan.all_clean()
    plan.differs((2, 3))
    assert not plan.is_clean(2)
    plan.know({2: [5]}, 2.0)
    assert plan.is_clean(2)
    assert plan.due(2.0) == {5: [2]}, "a shard that went away is not compared any more"


def test_a_copy_that_may_have_lost_what_was_just_written_is_clean_only_after_all_of_it_was_compared() -> None:
    plan, pair = ledger({1: [3]}), (1, 3)
    assert plan.is_doubtful(pair), "after a start nothing is known"
    plan.compared(pair, EQUAL._replace(bounded=True), 1.0)
    assert not plan.is_clean(1)
    plan.compared(pair, EQUAL, 2.0)
    assert plan.is_clean(1) and not plan.is_doubtful(pair)
    plan.compared(pair, MORE._replace(bounded=True), 3.0)
    assert plan.is_clean(1), "nothing was lost, and what was written just now is on its way"
    plan.wake(4.0, shards={1})
    assert plan.is_doubtful(pair) and not plan.is_clean(1)
    plan.know({1: [3], 2: [3]}, 5.0)
    assert not plan.is_doubtful((2, 3)), "a copy that has just come to be has lost nothing"


def test_a_comparison_settles_nothing_that_came_to_be_doubted_while_it_went_on() -> None:
    plan, pair = ledger({1: [3]}), (1, 3)
    before = plan.doubts(pair)
    plan.wake(1.0, shards={1})
    plan.compared(pair, EQUAL._replace(doubts=before), 2.0)
    assert not plan.is_clean(1)
    assert plan.due(2.0) == {3: [1]}, "it is compared once more at once"
    plan.compared(pair, EQUAL._replace(doubts=plan.doubts(pair)), 3.0)
    assert plan.is_clean(1)


def test_a_copy_that_refused_something_is_not_clean_and_compared_soon_but_not_for_each_refusal() -> None:
    plan, pair = ledger({1: [3], 2: [3]}), (1, 3)
    for shard in (1, 2):
        plan.compared((shard, 3), EQUAL, 0.0)
    plan.refused(1, 5.0)
    assert (plan.is_clean(1), plan.is_clean(2)) == (False, True)
    assert plan.due(5.9) == {} and plan.due(6.0) == {3: [1]}
    looks = 0
    for tenth in range(60, 360):
        now_s = tenth / 10
        if 1 in plan.due(now_s).get(3, []):
            looks += 1
            before = plan.doubts(pair)
            plan.refused(1, now_s)
            plan.compared(pair, EQUAL._replace(doubts=before), now_s)
        plan.refused(1, now_s)
        assert not plan.is_clean(1)
    assert 2 <= looks <= 7, "refusals that go on do not make it compare without a pause"
    plan.compared(pair, EQUAL._replace(doubts=plan.doubts(pair)), 40.0)
    assert plan.is_clean(1)
    plan.refused(9, 41.0)  # another node's


def test_deletions_may_be_forgotten_when_every_owner_was_seen_to_have_them() -> None:
    first, second = Tombstone("m", None, 0, 9, 10), Tombstone("n", None, 0, 9, 20)
    plan = ledger({1: [3, 4], 2: []})
    assert plan.settled(9, [first]) == 0, "nothing is known of the shard"
    assert plan.settled(2, [first]) == EVERYTHING, "nobody else has a copy"
    assert plan.settled(1, [first, second]) == 9
    plan.compared((1, 3), EQUAL._replace(held=frozenset({identity(first), identity(second)})), 1.0)
    assert plan.settled(1, [first, second]) == 9
    plan.compared((1, 4), EQUAL._replace(held=frozenset({identity(first)})), 1.0)
    assert plan.settled(1, [first, second]) == 19
    assert plan.settled(1, [first]) == EVERYTHING
    late = Tombstone("m", TagEquals("host", "a"), 0, 9, 5)
    assert plan.settled(1, [first, late]) == 4, "one that came since is not known to be elsewhere"
    plan.know({1: [3, 4, 5]}, 2.0)
    assert plan.settled(1, [first]) == 9, "a new owner is not known to have it"


def test_groups_hold_everything_once() -> None:
    assert [list(some) for some in in_groups(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_other_threads_may_ask_what_is_clean_while_owners_change() -> None:
    ledger, stop = Ledger(1.0), threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            while not stop.is_set():
                for shard in range(50):
                    ledger.is_clean(shard)
                    ledger.settled(shard, ())
        except BaseException as error:
            failures.append(error)

    ledger.know(dict.fromkeys(range(50), (1,)), 0.0)
    thread = threading.Thread(target=ask)
    thread.start()
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for turn in range(300):
            ledger.know(dict.fromkeys(range(50), (2 + turn % 3, 9)), 0.0)
    finally:
        sys.setswitchinterval(before_s)
        stop.set()
        thread.join()
    assert failures == []
