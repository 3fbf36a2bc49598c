"""What a client is told when owners did not take part in a deletion."""

from __future__ import annotations

import pytest

from dsdbd.cluster.deletes import Round, add_shards, raise_failures
from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.errors import DiskFull, NotOwner, OutcomeUnknown, RequestError, Unavailable
from dsdbd.meta.state import RetentionPolicy, Shard, ShardGroup
from dsdbd.model.predicate import TagEquals
from dsdbd.query import Deletion

AWAY = PeerUnreachable("cannot reach b", sent=False)
SHARDS = {10: (1, 2), 11: (2, 3)}


def test_an_owner_of_each_shard_is_enough_where_the_deletion_is_kept_for_the_others() -> None:
    raise_failures(SHARDS, {}, ())
    raise_failures(SHARDS, {2: AWAY}, ())
    raise_failures(SHARDS, {1: AWAY, 3: DiskFull("full"), 7: AWAY}, ())
    with pytest.raises(OutcomeUnknown, match=r"^deleted, but not at every owner, and not kept .*: data node 2: cannot"):
        raise_failures(SHARDS, {2: AWAY}, {2})


def test_one_of_three_owners_is_too_few_where_the_others_are_there() -> None:
    many = Round({}, owners={10: (1, 2, 3), 11: (1, 2, 4), 12: (2,)})
    assert many.lacking(()) == {}
    many.failures = {2: AWAY}
    assert many.lacking(()) == {}, "two of three are a majority, and nobody has deleted in shard 12"
    many.failures = {2: AWAY, 3: AWAY}
    assert many.lacking(()) == {2: [10], 3: [10]}
    assert many.lacking({2}) == {3: [10]}
    assert many.lacking({2, 3}) == {}, "who is down gets it when it is back"
    many.failures = {2: RequestError("no"), 3: NotOwner("moved")}
    assert many.lacking(()) == {}, "told again they would say the same"
    assert Round({}, owners={10: (1, 2)}, failures={2: AWAY}).lacking(()) == {2: [10]}
    with pytest.raises(OutcomeUnknown, match=r"^deleted, but fewer than a majority of the owners of shard 10 have "):
        raise_failures({10: (1, 2, 3)}, {2: AWAY, 3: AWAY}, (), lacking={2: [10], 3: [10]})


def test_a_shard_without_any_owner_that_deleted_makes_it_fail() -> None:
    with pytest.raises(OutcomeUnknown, match=r"^deleted in 1 of 2 shards, .*: data node 2: cannot reach b; data node"):
        raise_failures(SHARDS, {2: AWAY, 3: AWAY}, ())


def test_nothing_done_is_said_only_when_it_is_certain() -> None:
    with pytest.raises(Unavailable, match=r"^nothing was deleted: data node 1: full; data node 2: cannot reach b$"):
        raise_failures({10: (1, 2)}, {1: DiskFull("full"), 2: AWAY}, ())
    with pytest.raises(OutcomeUnknown, match=r"^deleted in 0 of 1 shards"):
        raise_failures({10: (1,)}, {1: PeerUnreachable("no answer", sent=True)}, ())


def test_only_shards_of_the_times_are_told_and_long_conditions_are_refused() -> None:
    groups = tuple(ShardGroup(n, n * 10, n * 10 + 10, (Shard(n, (1,)), Shard(n + 10, (2,)))) for n in range(3))
    policy = RetentionPolicy("p", 0, 1, 10, shard_groups=groups)
    work: dict = {}
    add_shards(work, policy, [Deletion("m", None, 15, 20), Deletion("n", None, 19, 19)], 7)
    assert {shard: [one.measurement for one in many] for shard, many in work.items()} == {
        1: ["m", "n"],
        11: ["m", "n"],
        2: ["m"],
        12: ["m"],
    }
    assert {one.version for many in work.values() for one in many} == {7}
    with pytest.raises(RequestError, match=r"the condition takes [0-9]+ bytes, a deletion may have 16384"):
        add_shards({}, policy, [Deletion("m", TagEquals("k", "x" * 20_000), 0, 1)], 7)
