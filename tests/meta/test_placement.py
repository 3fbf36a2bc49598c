"""Placement: bounds of groups, balance and distinctness of owners."""

import itertools
import math
import zlib
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.meta.placement import (
    DAY_NS,
    HOUR_NS,
    default_shard_group_duration,
    eligible_nodes,
    group_seed,
    heir,
    normal_shard_group_duration,
    plan_group,
    shard_group_bounds,
)
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS

node_lists = st.lists(st.integers(1, 500), min_size=1, max_size=12, unique=True)


@settings(deadline=None)
@given(st.integers(MIN_TIME_NS, MAX_TIME_NS), st.integers(HOUR_NS, 400 * DAY_NS))
def test_bounds_hold_the_time_and_tile_the_axis(time_ns, duration_ns):
    start, end = shard_group_bounds(time_ns, duration_ns)
    assert -(2**63) <= start <= time_ns < end <= 2**63 - 1
    if start > -(2**63) and end < 2**63 - 1:
        assert end - start == duration_ns
        assert shard_group_bounds(end, duration_ns)[0] == end
        assert shard_group_bounds(start - 1, duration_ns)[1] == start


@settings(deadline=None)
@given(st.integers(-(10**18), 10**18))
def test_weeks_start_on_monday_midnight(time_ns):
    start = datetime.fromtimestamp(shard_group_bounds(time_ns, 7 * DAY_NS)[0] // 10**9, UTC)
    assert (start.weekday(), start.hour, start.minute, start.second) == (0, 0, 0, 0)


def test_group_durations():
    assert default_shard_group_duration(0) == 7 * DAY_NS
    assert default_shard_group_duration(180 * DAY_NS) == 7 * DAY_NS
    assert default_shard_group_duration(180 * DAY_NS - 1) == DAY_NS
    assert default_shard_group_duration(2 * DAY_NS) == DAY_NS
    assert default_shard_group_duration(2 * DAY_NS - 1) == HOUR_NS
    assert normal_shard_group_duration(1, 0) == HOUR_NS
    assert normal_shard_group_duration(90 * DAY_NS, 0) == 90 * DAY_NS


@settings(deadline=None)
@given(node_lists, st.integers(-3, 20), st.integers(0, 10**6))
def test_a_group_is_balanced_and_owners_are_distinct(node_ids, replica_n, seed):
    shards = plan_group(node_ids, replica_n, seed)
    copies = min(max(replica_n, 1), len(node_ids))
    assert all(len(set(owners)) == len(owners) == copies for owners in shards)
    counts = Counter(owner for owners in shards for owner in owners)
    assert set(counts) == set(node_ids)
    assert len(set(counts.values())) == 1
    assert len(shards) * copies % len(node_ids) == 0
    assert all(fewer * copies % len(node_ids) for fewer in range(1, len(shards)))


def test_examples():
    shards = plan_group([1, 2, 3], 2, 0)
    assert len(shards) == 3
    assert {frozenset(owners) for owners in shards} == {frozenset({1, 2}), frozenset({1, 3}), frozenset({2, 3})}
    assert {owners[0] for owners in shards} == {1, 2, 3}
    assert [len(owners) for owners in plan_group([1, 2, 3], 3, 1)] == [3]
    assert plan_group([4], 3, 7) == ((4,),)
    assert plan_group([], 3, 7) == ()


def test_the_same_owners_on_every_machine():
    """Each node of a cluster works out the owners itself, so they must never depend on the process."""
    assert plan_group([1, 2, 3, 4, 5], 2, 2_600) == ((2, 3), (4, 5), (1, 2), (3, 4), (5, 1))
    assert group_seed("db", "autogen", -5, 10) == zlib.crc32(b"db/autogen") - 1


@settings(deadline=None)
@given(node_lists, st.integers(1, 5), st.integers(-(10**6), 10**6))
def test_over_consecutive_groups_every_node_is_as_often_first_as_any_other(node_ids, replica_n, seed):
    turns = math.gcd(len(node_ids), min(replica_n, len(node_ids)))
    aligned = seed - seed % turns
    firsts = Counter(owners[0] for turn in range(turns) for owners in plan_group(node_ids, replica_n, aligned + turn))
    assert len(set(firsts.values())) == 1
    assert set(firsts) == set(node_ids)


@pytest.mark.parametrize(("nodes", "copies"), [(4, 2), (6, 2), (6, 3), (9, 3), (50, 3)])
def test_over_many_groups_every_node_shares_shards_with_every_other(nodes, copies):
    """What a failed node held is then borne by all the others, and read from all of them when it is restored."""
    shared = Counter(
        frozenset(pair)
        for seed in range(20 * nodes)
        for owners in plan_group(range(1, nodes + 1), copies, seed)
        for pair in itertools.combinations(owners, 2)
    )
    assert len(shared) == nodes * (nodes - 1) // 2


@settings(deadline=None)
@given(node_lists, st.sets(st.integers(1, 500)), st.sets(st.integers(1, 500)), st.integers(1, 5), st.integers(0, 99))
def test_avoided_and_draining_nodes_are_used_only_when_copies_would_be_missing(
    node_ids, avoid, draining, replica_n, seed
):
    chosen = eligible_nodes(node_ids, avoid, draining, replica_n, seed)
    wanted = min(replica_n, len(node_ids))
    stay = set(node_ids) - avoid - draining
    assert len(set(chosen)) == len(chosen) >= wanted
    assert stay <= set(chosen) <= set(node_ids)
    if set(chosen) != stay:
        assert len(chosen) == wanted
    if set(chosen) & avoid:
        assert set(node_ids) - avoid <= set(chosen)


def test_nodes_used_of_necessity_take_turns():
    firsts = {eligible_nodes([1, 2, 3, 4], [1, 2, 3], [], 2, seed) for seed in range(9)}
    assert firsts == {(4, 1), (4, 2), (4, 3)}


def test_heir_is_the_preferred_or_the_least_loaded_node():
    assert heir([(1,), (1, 2)], (1, 2, 3), None) == 3
    assert heir([(1,), (2,), (3,)], (3, 2, 1), None) == 1
    assert heir([(1,)], (1, 2), 1) == 1
    assert heir([(1,)], (1, 2), 9) == 2
    assert heir([], (), 9) is None
