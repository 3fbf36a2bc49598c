"""Versions grow strictly whatever clocks and other coordinators do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.hybrid_clock import HybridClock

times = st.integers(0, 2**62)


@given(st.lists(st.tuples(st.booleans(), times)))
def test_each_version_is_newer_than_all_given_and_seen_before(steps: list[tuple[bool, int]]) -> None:
    clock, newest = HybridClock(), -1
    for seen, value in steps:
        if seen:
            clock.observe(value)
            newest = max(newest, value)
        else:
            version = clock.next(value)
            assert version > newest
            assert version >= value
            newest = version
