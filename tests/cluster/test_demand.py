"""Which owner is asked first, and what a query notes of the owners it read: the pure parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.demand import Demand, ReadLevel, best_owner, parse_read_level
from dsdbd.errors import RequestError

OWNERS = st.lists(st.integers(1, 9), min_size=1, max_size=6, unique=True)
SOME = st.sets(st.integers(1, 9))


@given(OWNERS, st.integers(0, 100), st.none() | st.integers(1, 9), SOME, SOME)
def test_the_best_owner_is_there_clean_and_near(
    owners: list[int], shard_id: int, here: int | None, dirty: set[int], away: set[int]
) -> None:
    best = best_owner(
        owners, shard_id, here=here, is_clean=lambda owner: owner not in dirty, is_away=lambda owner: owner in away
    )
    there = [owner for owner in owners if owner not in away]
    clean = [owner for owner in there if owner not in dirty]
    wanted = clean or there or owners
    assert best in wanted
    assert best == here or here not in wanted


def test_work_is_spread_over_equals() -> None:
    chosen = {
        best_owner([1, 2, 3], shard_id, here=None, is_clean=lambda _: True, is_away=lambda owner: owner == 2)
        for shard_id in range(10)
    }
    assert chosen == {1, 3}


def test_an_owner_is_completed_once_for_what_is_read() -> None:
    demand = Demand(ReadLevel.QUORUM)
    assert demand.lacks_completion(1, 5, frozenset({"a"}))
    demand.completed(1, [5], frozenset({"a", "b"}))
    assert not demand.lacks_completion(1, 5, frozenset({"a"}))
    assert demand.lacks_completion(1, 5, frozenset({"a", "c"}))
    assert demand.lacks_completion(1, 5, None)
    assert demand.lacks_completion(2, 5, frozenset({"a"}))
    assert demand.lacks_completion(1, 6, frozenset({"a"}))
    demand.completed(1, [5], None)
    assert not demand.lacks_completion(1, 5, frozenset({"z"}))
    assert not demand.lacks_completion(1, 5, None)
    demand.completed(1, [5], frozenset({"z"}))
    assert not demand.lacks_completion(1, 5, None)
    demand.begin_statement()
    assert demand.lacks_completion(1, 5, frozenset({"a"}))
    assert not Demand().lacks_completion(1, 5, None)


def test_what_is_missing_is_said_before_the_answer_begins() -> None:
    demand = Demand(allows_partial=True)
    assert demand.message() == ""
    assert demand.may_lack(7)
    demand.missing[7] = "node 2 is down"
    assert demand.message() == "partial result: 1 shards could not be read: 7 (node 2 is down)"
    demand.told = True
    assert demand.may_lack(7)
    assert not demand.may_lack(8), "the answer has begun without a word of it"
    assert not Demand().may_lack(7)
    demand.missing.update(dict.fromkeys(range(100, 130), "gone"))
    assert "and 11 more" in demand.message()


def test_levels_of_queries() -> None:
    assert {text: parse_read_level(text) for text in ("", "one", "QUORUM", "linearizable")} == {
        "": ReadLevel.ONE,
        "one": ReadLevel.ONE,
        "QUORUM": ReadLevel.QUORUM,
        "linearizable": ReadLevel.ONE,
    }
    with pytest.raises(RequestError, match="invalid consistency level"):
        parse_read_level("most")
