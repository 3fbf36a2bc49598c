"""What a node that takes copies decides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.transfer_plan import (
    MoveProgress,
    Rate,
    copy_sources,
    may_complete,
    next_pause_s,
    owners_needed,
    too_few_compared,
)
from dsdbd.meta.state import Incoming, Shard

NODES = st.sets(st.integers(1, 9))


@given(st.integers(1, 100), st.sets(st.integers(1, 9), min_size=1), NODES)
def test_every_owner_may_be_a_source_and_those_that_are_up_come_first(
    shard_id: int, owners: set[int], down: set[int]
) -> None:
    sources = copy_sources(Shard(shard_id, tuple(owners)), down)
    assert set(sources) == owners
    up = [owner not in down for owner in sources]
    assert up == sorted(up, reverse=True)


def test_copies_of_different_shards_come_from_different_owners() -> None:
    firsts = {copy_sources(Shard(shard_id, (2, 4, 6)), ())[0] for shard_id in range(3)}
    assert firsts == {2, 4, 6}


@given(st.sets(st.integers(1, 5), min_size=1), NODES, NODES, st.integers(0, 9))
def test_a_copy_counts_only_when_it_holds_what_every_owner_that_is_up_holds(
    owners: set[int], compared: set[int], down: set[int], replaces: int
) -> None:
    shard = Shard(1, tuple(owners), (Incoming(99, replaces),))
    compared &= owners
    counts = may_complete(shard, replaces, compared, down)
    assert counts == (owners - down <= compared and len(compared) >= owners_needed(shard))
    if counts:
        # What a majority acknowledged is on an owner that it was compared with.
        assert len(owners) - len(compared) < len(owners) // 2 + 1


def test_a_minority_is_never_enough_and_who_is_missing_is_named() -> None:
    assert [owners_needed(Shard(1, tuple(range(n)))) for n in range(1, 6)] == [1, 1, 2, 2, 3]
    shard = Shard(7, (2, 4, 6), (Incoming(8, 2),))
    assert not may_complete(shard, 2, {4}, {2, 6})
    assert may_complete(shard, 2, {4, 6}, {2})
    told = too_few_compared(shard, {4}, {2, 6})
    assert "shard 7 was compared with 1 of its 3 owners, 2 are needed" in told
    assert "2, 6" in told


def test_no_comparison_is_never_enough() -> None:
    assert not may_complete(Shard(1, (2, 4)), 2, (), {2, 4})


@given(st.integers(1, 10**9), st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 2)), max_size=50))
def test_bytes_stay_within_the_rate(bytes_per_s: int, pieces: list[tuple[int, float]]) -> None:
    rate, now_s, total = Rate(bytes_per_s), 1000.0, 0
    begun_s = now_s
    for size_bytes, busy_s in pieces:
        now_s += busy_s
        total += size_bytes
        wait_s = rate.wait_s(size_bytes, now_s)
        assert wait_s >= 0
        now_s += wait_s
        # A tenth of a second of bytes may come at once.
        assert total <= bytes_per_s * (now_s - begun_s + 0.1) * 1.001 + 1


def test_no_rate_is_no_wait() -> None:
    assert Rate(0).wait_s(1 << 30, 5.0) == 0


def test_pauses_double_up_to_the_longest() -> None:
    assert [next_pause_s(failures, 1.0, 30.0) for failures in (1, 2, 3, 6, 10**6)] == [1.0, 2.0, 4.0, 30.0, 30.0]


def test_progress_as_a_row_leaves_out_what_is_not_known() -> None:
    row = MoveProgress(7, "d", "rp", 8, 0).as_row()
    assert (row["shard"], row["from"], row["replaces"], row["ended_ns"], row["state"]) == (
        7,
        None,
        None,
        None,
        "waiting",
    )


def test_the_phases_of_a_copy_add_up_over_its_attempts() -> None:
    progress = MoveProgress(7, "d", "p", 3, 0)
    for phase, now_s in (("waiting", 10.0), ("files", 11.0), ("waiting", 14.0), ("files", 14.5), ("done", 20.0)):
        progress.enter(phase, now_s)
    assert progress.phases_s == {"waiting": 1.5, "files": 8.5}
    assert "phases_s" not in progress.as_row()
