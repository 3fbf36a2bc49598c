"""Versions grow strictly whatever clocks, other coordinators and restarts do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.hybrid_clock import NODE_BITS, NODES, HybridClock
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
            clock.observe(value)
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
            clock.observe(value)
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
