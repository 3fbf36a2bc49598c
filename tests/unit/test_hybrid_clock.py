"""Versions grow strictly whatever clocks, other coordinators and restarts do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.hybrid_clock import AHEAD_NS, FAR_NS, NODE_BITS, NODES, UNGIVEN, HybridClock, Settled, is_wild
from dsdbd.cluster.version_clock import CeilingFile

if TYPE_CHECKING:
    from pathlib import Path

times = st.integers(0, 2**62)
nodes = st.integers(0, 2 * NODES)


@given(st.lists(st.tuples(st.booleans(), times)), nodes)
def test_each_version_is_newer_than_all_given_and_seen_before(steps: list[tuple[bool, int]], node: int) -> None:
    clock, newest = HybridClock(), -1
    for seen, value in steps:
        if seen:
            clock.observe(value, value)
            newest = max(newest, value)
        else:
            version = clock.next(value, node)
            assert version > newest
            assert version >> NODE_BITS >= value >> NODE_BITS
            assert version % NODES == node % NODES
            newest = version


@given(st.lists(st.tuples(st.integers(0, 4), times), max_size=60))
def test_no_two_nodes_give_the_same_version(steps: list[tuple[int, int]]) -> None:
    clocks = [HybridClock() for _ in range(5)]
    given_versions = [clocks[node].next(now_ns, node) for node, now_ns in steps]
    assert len(set(given_versions)) == len(given_versions)


@given(st.lists(st.tuples(st.sampled_from(("give", "see", "store", "crash")), times), max_size=80))
def test_versions_that_went_out_are_older_than_those_after_a_crash(steps: list[tuple[str, int]]) -> None:
    """A version goes out only under the stored ceiling; wall clocks may be set back at any time."""
    clock, stored, newest_out = HybridClock(), 0, -1
    for kind, value in steps:
        if kind == "give":
            version = clock.next(value)
            assert version > newest_out
            if clock.is_reserved(version):
                newest_out = version
        elif kind == "see":
            clock.observe(value, value)
        elif kind == "store":
            ceiling = clock.wanted_ceiling()
            if ceiling is not None:
                stored = max(stored, ceiling)
                clock.reserve(ceiling)
            assert clock.is_reserved(clock.last)
        else:
            clock = HybridClock(stored)


def test_the_ceiling_is_read_back_and_a_torn_place_leaves_the_other(tmp_path: Path) -> None:
    path = tmp_path / "versions"
    assert CeilingFile(path).load() == 0
    file = CeilingFile(path)
    for ceiling in (5, 9, 7 << 40):
        file.store(ceiling)
        assert CeilingFile(path).load() == ceiling
    whole = path.read_bytes()
    newest = whole.index((7 << 40).to_bytes(8, "little"))
    for at in range(newest, newest + 12):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        again = CeilingFile(path)
        assert again.load() == 9
        again.store(8 << 40)
        assert CeilingFile(path).load() == 8 << 40, "the damaged place is the one that was written"
        assert (9).to_bytes(8, "little") in path.read_bytes()


NOW_NS, HOUR_NS = 1_700_000_000 * 10**9, 3_600 * 10**9


def test_versions_that_another_clock_brought_far_ahead_are_told_with_the_node_until_the_time_has_come() -> None:
    fast, clock = HybridClock(), HybridClock()
    version = fast.next(NOW_NS + HOUR_NS, 3)
    assert clock.next(NOW_NS, 1) and clock.problem(NOW_NS) == ""
    clock.observe(version, NOW_NS)
    told = clock.problem(NOW_NS)
    assert "3600s ahead" in told and "node 3 wrote with a clock that was ahead" in told
    newer = clock.next(NOW_NS + 1, 1)
    assert newer > version, "what is written later wins"
    third = HybridClock()
    third.observe(newer, NOW_NS)
    assert "node 1" in third.problem(NOW_NS), "it came through that one"
    clock.observe(fast.next(NOW_NS + 2 * HOUR_NS, 4), NOW_NS + 2)
    assert "node 3" in clock.problem(NOW_NS), "who began it"
    assert clock.problem(NOW_NS + 2 * HOUR_NS) == ""
    clock.next(NOW_NS + 3 * HOUR_NS, 1)
    assert "was set back" in clock.problem(NOW_NS + HOUR_NS)


@given(times, times)
def test_a_little_ahead_is_no_problem(now_ns: int, ahead_ns: int) -> None:
    clock = HybridClock()
    clock.observe(now_ns + ahead_ns, now_ns)
    assert bool(clock.problem(now_ns)) == (ahead_ns > AHEAD_NS)


def test_a_clock_is_wild_only_when_it_is_a_day_ahead_of_everybody_who_answers() -> None:
    never, day_s = float("-inf"), FAR_NS / 1e9
    assert not is_wild([], never), "nobody to compare with"
    assert is_wild([(1.0, -day_s - 1), (2.0, -2 * day_s)], never)
    assert not is_wild([(1.0, -day_s - 1), (2.0, -day_s + 1)], never), "one agrees"
    assert not is_wild([(1.0, day_s + 1)], never), "it is the other one that is ahead"
    assert is_wild([(1.0, 0.0)], 1.5), "looked at before it jumped"
    assert not is_wild([(1.0, 0.0), (2.0, -10.0)], 1.5)
    assert is_wild([(1.0, 0.0), (2.0, -day_s - 1)], 1.5)
    assert not HybridClock(UNGIVEN - 1).is_reserved(UNGIVEN)


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 10**9)), min_size=1, max_size=60), st.booleans())
def test_what_is_settled_was_given_so_long_ago(steps: list[tuple[float, int]], ahead: bool) -> None:
    """Also while versions are an hour ahead of the wall clock, where its time says nothing of them."""
    settled, now_s, last = Settled(2.0), 0.0, NOW_NS + (HOUR_NS if ahead else -HOUR_NS)
    given_versions: list[tuple[float, int]] = []
    for pause_s, more in steps:
        now_s += pause_s
        last += more + 1
        given_versions.append((now_s, last))
        below = settled.look(now_s, NOW_NS, last)
        if ahead:
            assert all(version >= below for at_s, version in given_versions if now_s - at_s < 2.0)
        else:
            assert below == NOW_NS - 2 * 10**9
    below = [settled.look(now_s + pause_s, NOW_NS, last) for pause_s in (1.0, 2.0, 3.0, 4.0)][-1]
    assert not ahead or below == last + 1, "after a pause all of them"
