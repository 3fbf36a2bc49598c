"""What is known of the last writes when a coordinator is gone, and in which order shards are looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.gone import Lately, in_turn

seconds = st.floats(0, 100)


@given(st.lists(st.tuples(st.integers(1, 9), seconds), max_size=30), seconds)
def test_the_shards_written_to_since_a_time_come_with_the_last_first(
    writes: list[tuple[int, float]], at_s: float
) -> None:
    lately = Lately()
    last: dict[int, float] = {}
    for shard_id, now_s in sorted(writes, key=lambda one: one[1]):
        lately.took(shard_id, now_s)
        last[shard_id] = now_s
    found = lately.shards(at_s)
    assert sorted(found) == sorted(shard for shard, took_s in last.items() if took_s >= at_s)
    assert [last[shard] for shard in found] == sorted((last[shard] for shard in found), reverse=True)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=80), st.floats(0, 90))
def test_no_version_given_since_is_below_the_one_that_was_seen_then(steps: list[int], ago_s: float) -> None:
    """However far versions jump ahead of any wall clock."""
    lately, version = Lately(), 1000
    given_at: list[tuple[float, int]] = []
    for second, step in enumerate(steps):
        lately.look(version, float(second))
        version += step + 1
        given_at.append((float(second), version))
    since_s = len(steps) - ago_s
    bound = lately.version(since_s)
    assert all(one > bound for given_s, one in given_at if given_s >= since_s)
    if since_s < 0:
        assert bound <= 1000 + since_s * 1e9 + 1


def test_what_is_long_ago_is_forgotten() -> None:
    lately = Lately()
    for second in range(2000):
        lately.took(second, float(second))
        lately.look(second, float(second))
    assert len(lately.shards(0.0)) <= 121
    assert lately.version(1999.0 - 120.0) == 1999 - 120
    assert len(lately._versions) <= 242


@given(st.dictionaries(st.integers(1, 5), st.lists(st.integers(1, 40), unique=True), max_size=5))
def test_every_shard_is_looked_at_where_it_was_written_to_the_hottest_first(found: dict[int, list[int]]) -> None:
    turns = in_turn(found)
    assert {(node, shard) for shard, nodes in turns.items() for node in nodes} == {
        (node, shard) for node, shards in found.items() for shard in shards
    }
    best = {shard: min(shards.index(shard) for shards in found.values() if shard in shards) for shard in turns}
    assert [best[shard] for shard in turns] == sorted(best.values())
