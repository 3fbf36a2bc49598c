"""Questions to a state, durations and times as text, and the persistent map."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import NotFound
from dsdbd.meta import commands as c
from dsdbd.meta import rows, views
from dsdbd.meta.persistent import PersistentMap
from dsdbd.meta.state import Privilege
from dsdbd.model.types import FieldType
from tests.meta.dialogue import Machine

HOUR = 3_600 * 10**9
FLOAT, INTEGER = FieldType.FLOAT, FieldType.INTEGER


@pytest.fixture
def state():
    machine = Machine()
    for node in "ab":
        machine.give(c.CreateDataNode(node, node, node))
    spec = c.PolicySpec(duration_ns=2 * HOUR, replica_n=2, shard_group_duration_ns=HOUR)
    machine.give(c.CreateDatabase("d", spec))
    machine.give(c.CreateDatabase("bare", autocreate=False))
    machine.give(c.CreateShardGroups("d", "autogen", (0, HOUR, 3 * HOUR)))
    machine.give(c.CreateFields("d", "autogen", {"cpu": {"idle": FLOAT}}))
    machine.give(c.CreateUser("u", "h"))
    machine.give(c.SetPrivilege("u", "d", Privilege.READ))
    return machine.state


def test_policies_are_found_by_name_alias_and_default(state):
    autogen = views.policy(state, "d", "autogen")
    assert autogen is views.policy(state, "d", "default") is views.policy(state, "d") is views.policy(state, "d", "")
    for database, policy, text in (
        ("x", None, "database not found: x"),
        ("d", "x", "retention policy not found: x"),
        ("bare", None, "default retention policy not set for: bare"),
    ):
        with pytest.raises(NotFound) as caught:
            views.policy(state, database, policy)
        assert caught.value.message == text


def test_a_dropped_default_policy_is_missed_by_its_name():
    machine = Machine()
    machine.give(c.CreateDatabase("d"))
    machine.give(c.CreateRetentionPolicy("d", "other", 0, 1))
    machine.give(c.DropRetentionPolicy("d", "autogen"))
    with pytest.raises(NotFound) as caught:
        views.policy(machine.state, "d")
    assert caught.value.message == "retention policy not found: autogen"
    machine.give(c.CreateRetentionPolicy("d", "autogen", 0, 1))
    assert views.policy(machine.state, "d").name == "autogen"


def test_a_real_policy_called_default_wins_over_the_alias():
    machine = Machine()
    machine.give(c.CreateDatabase("d"))
    machine.give(c.CreateRetentionPolicy("d", "default", 0, 1))
    assert views.policy(machine.state, "d", "default").name == "default"
    assert views.policy(machine.state, "d").name == "autogen"


def test_groups_by_time(state):
    policy = views.policy(state, "d")
    starts = [group.start_ns for group in policy.shard_groups]
    assert starts == [0, HOUR, 3 * HOUR]
    assert views.group_for_time(policy, HOUR - 1).start_ns == 0
    assert views.group_for_time(policy, HOUR).start_ns == HOUR
    assert views.group_for_time(policy, 2 * HOUR) is None
    assert views.group_for_time(policy, -1) is None
    assert views.missing_groups(policy, [0, 2 * HOUR + 5, 2 * HOUR + 4, -1]) == (-1, 2 * HOUR + 4)
    assert [g.end_ns for g in views.expired_groups(policy, 4 * HOUR)] == [HOUR]
    assert [g.end_ns for g in views.expired_groups(policy, 4 * HOUR + 1)] == [HOUR, 2 * HOUR]


@settings(deadline=None)
@given(st.integers(-HOUR, 5 * HOUR), st.integers(-HOUR, 5 * HOUR))
def test_overlap_is_what_a_walk_finds(low, high):
    machine = Machine()
    machine.give(c.CreateDataNode("a", "a", "a"))
    machine.give(c.CreateDatabase("d", c.PolicySpec(shard_group_duration_ns=HOUR)))
    machine.give(c.CreateShardGroups("d", "autogen", (0, HOUR, 3 * HOUR)))
    policy = views.policy(machine.state, "d")
    found = views.groups_overlapping(policy, low, high)
    assert list(found) == [g for g in policy.shard_groups if low <= high and g.start_ns <= high and low < g.end_ns]


def test_shards_and_owners(state):
    assert [place.shard.id for place in views.all_shards(state)] == [1, 2, 3]
    assert views.find_shard(state, 2).group.start_ns == HOUR
    assert views.find_shard(state, 9) is None
    assert len(views.shards_owned(state, 1)) == 3
    assert views.under_replicated(state) == ()
    machine = Machine()
    machine.state = state
    assert machine.give(c.DropDataNode(1)).ok
    assert views.under_replicated(machine.state) == ()
    machine.give(c.CreateDataNode("c", "c", "c"))
    assert [place.shard.owners for place in views.under_replicated(machine.state)] == [(2,)] * 3


def test_field_types(state):
    assert views.field_types(state, "d", None, "cpu") == {"idle": FLOAT}
    assert views.field_types(state, "d", None, "mem") == {}
    asked = {"cpu": {"idle": INTEGER, "user": INTEGER}, "mem": {"used": INTEGER}}
    assert views.unknown_fields(views.policy(state, "d"), asked) == {"cpu": {"user": INTEGER}, "mem": {"used": INTEGER}}


def test_privileges(state):
    assert views.may(state, "u", "d", Privilege.READ)
    assert not views.may(state, "u", "d", Privilege.ALL)
    assert not views.may(state, "u", "bare", Privilege.READ)
    assert not views.may(state, "nobody", "d", Privilege.READ)
    assert not views.has_admin(state)
    machine = Machine()
    machine.state = state
    machine.give(c.SetAdminPrivilege("u", True))
    assert views.may(machine.state, "u", "bare", Privilege.ALL)
    assert views.has_admin(machine.state)


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (10_000_000, "10ms"),
        (1_500_000_000, "1.5s"),
        (90 * 10**9, "1m30s"),
        (HOUR, "1h0m0s"),
        (168 * HOUR, "168h0m0s"),
        (8736 * HOUR + 61 * 10**9 + 1, "8736h1m1.000000001s"),
        (-HOUR, "-1h0m0s"),
    ],
)
def test_durations_read_as_in_go(duration_ns, text):
    assert rows.duration_text(duration_ns) == text


def test_times_are_cut_to_the_second():
    assert rows.time_text(-1) == "1969-12-31T23:59:59Z"
    assert rows.time_text(2**63 - 1) == "2262-04-11T23:47:16Z"
    assert rows.time_text(-(2**63)) == "1677-09-21T00:12:43Z"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400).map(str), st.none() | st.integers()), max_size=300))
def test_the_persistent_map_is_a_map_and_old_versions_stay(changes):
    model: dict[str, int] = {}
    current: PersistentMap[int] = PersistentMap()
    versions = [(current, {})]
    for key, value in changes:
        if value is None:
            model.pop(key, None)
            current = current.without(key)
        else:
            model[key] = value
            current = current.with_items({key: value})
        versions.append((current, dict(model)))
    for version, expected in versions:
        assert dict(version.items()) == expected
        assert len(version) == len(expected)
    assert all(current.get(key) == value for key, value in model.items())
    assert current.get("absent") is None


def test_buckets_of_the_persistent_map_follow_the_root_of_its_size():
    many: PersistentMap[int] = PersistentMap()
    for start in range(0, 20_000, 500):
        many = many.with_items({f"measurement{number}": number for number in range(start, start + 500)})
    assert 64 <= len(many.buckets) <= 256
    assert max(len(bucket) for bucket in many.buckets) < 6 * len(many.buckets)
    changed = many.with_items({"measurement7": -1})
    assert sum(a is not b for a, b in zip(many.buckets, changed.buckets, strict=True)) == 1


def test_places_are_followed_to_the_newest_metadata(state):
    places = [place for place in views.all_shards(state) if place.database.name == "d"]
    assert list(views.newest(state, places)) == places
    machine = Machine()
    machine.state = state
    moved, dropped, kept = places
    away, stays = moved.shard.owners
    machine.give(c.CreateDataNode("z", "z", "z"))
    newcomer = max(node.id for node in machine.state.data_nodes)
    machine.give(c.BeginMoves((c.ShardMove(moved.shard.id, newcomer, away),)))
    machine.give(c.CompleteMove(moved.shard.id, newcomer))
    machine.give(c.DropShard(dropped.shard.id))
    found = list(views.newest(machine.state, places))
    assert [place.shard.id for place in found] == [moved.shard.id, kept.shard.id]
    assert set(found[0].shard.owners) == {stays, newcomer}
    assert found[1].shard == kept.shard
    machine.give(c.DropDatabase("d"))
    assert list(views.newest(machine.state, places)) == []
