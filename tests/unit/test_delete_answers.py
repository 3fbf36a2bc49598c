"""What a client is told when owners did not take part in a deletion."""

from __future__ import annotations

import pytest

from dsdbd.cluster.deletes import add_shards, raise_failures
from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.errors import DiskFull, OutcomeUnknown, RequestError, Unavailable
from dsdbd.meta.state import RetentionPolicy, Shard, ShardGroup
from dsdbd.model.predicate import TagEquals
from dsdbd.query import Deletion


def test_all_owners_done_is_no_error() -> None:
    raise_failures([1, 2], {})


def test_nothing_done_is_said_only_when_it_is_certain() -> None:
    away = PeerUnreachable("cannot reach b", sent=False)
    with pytest.raises(Unavailable, match=r"^nothing was deleted: data node 1: full; data node 2: cannot reach b$"):
        raise_failures([1, 2], {1: DiskFull("full"), 2: away})
    with pytest.raises(OutcomeUnknown, match=r"^deleted at 1 of 2 owners, .*: data node 2: cannot reach b; repeat"):
        raise_failures([1, 2], {2: away})
    with pytest.raises(OutcomeUnknown, match=r"^deleted at 0 of 1 owners"):
        raise_failures([1], {1: PeerUnreachable("no answer", sent=True)})


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
