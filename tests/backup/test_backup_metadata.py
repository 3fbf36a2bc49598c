"""What a backup says of the metadata, and the changes that bring it back."""

from __future__ import annotations

import msgspec
import pytest

from dsdbd.cluster.archive import Contents, Scope, describe
from dsdbd.cluster.restored import (
    Preparation,
    field_conflicts,
    needed_database,
    needed_policy,
    standing_commands,
    target_name,
    user_commands,
)
from dsdbd.errors import NotFound, RequestError
from dsdbd.meta import commands as c
from dsdbd.meta import views
from dsdbd.meta.state import Privilege, SubscriptionMode
from dsdbd.model.types import FieldType
from tests.meta.dialogue import Machine

HOUR = 3_600 * 10**9
FLOAT, INTEGER = FieldType.FLOAT, FieldType.INTEGER
QUERY = "CREATE CONTINUOUS QUERY q ON d BEGIN SELECT mean(v) INTO d.short.m FROM d.autogen.cpu GROUP BY time(1h) END"


def source() -> Machine:
    machine = Machine()
    for node in "ab":
        machine.give(c.CreateDataNode(node, node, node))
    machine.give(c.CreateDatabase("d"))
    machine.give(c.CreateRetentionPolicy("d", "short", 48 * HOUR, 2, HOUR, default=True))
    machine.give(c.CreateShardGroups("d", "autogen", (0,)))
    machine.give(c.CreateShardGroups("d", "short", (0, HOUR)))
    machine.give(c.CreateFields("d", "autogen", {"cpu": {"idle": FLOAT, "count": INTEGER}}))
    machine.give(c.CreateContinuousQuery("d", "q", QUERY))
    machine.give(c.CreateSubscription("d", "short", "s", SubscriptionMode.ALL, ("udp://h:1",)))
    machine.give(c.CreateDatabase("other", c.PolicySpec("only", 0, 1, HOUR)))
    machine.give(c.CreateUser("root", "hash-r", admin=True))
    machine.give(c.CreateUser("reader", "hash-u"))
    machine.give(c.SetPrivilege("reader", "d", Privilege.READ))
    return machine


EVERYTHING = Scope()


def contents(machine: Machine, scope: Scope = EVERYTHING) -> Contents:
    return describe(machine.state, scope, "1.0", 7)


def bring(machine: Machine, wanted: Preparation) -> int:
    """Give the commands a restore would give, in its order; returns how many."""
    count = 0
    for database in wanted.databases:
        name = target_name(wanted, database)
        made = needed_database(machine.state, name, database, 3)
        given = [made] if made is not None else []
        for command in given:
            machine.give(command)
        for policy in database.policies:
            needed = needed_policy(machine.state, name, policy, fresh=made is not None)
            if needed is not None:
                machine.give(needed)
                count += 1
            missing = views.unknown_fields(views.policy(machine.state, name, policy.name), policy.fields)
            if missing:
                machine.give(c.CreateFields(name, policy.name, missing))
        count += len(given)
        for command, _ in standing_commands(machine.state, database) if not wanted.new_database else ():
            machine.give(command)
            count += 1
    for user in wanted.users:
        for command in user_commands(machine.state, user):
            machine.give(command)
            count += 1
    return count


def test_everything_comes_back_and_a_second_time_changes_nothing() -> None:
    described = contents(source())
    target = Machine()
    target.give(c.CreateDataNode("z", "z", "z"))
    wanted = Preparation(described.databases, described.users)
    assert bring(target, wanted) > 5
    again = contents(target)
    assert [database.name for database in again.databases] == ["d", "other"]
    assert again.users == described.users
    for before, after in zip(described.databases, again.databases, strict=True):
        assert after.continuous_queries == before.continuous_queries
        assert {policy.name for policy in after.policies} == {policy.name for policy in before.policies}
    # The automatic policy has as many copies as this cluster has nodes.
    by_name = {policy.name: policy for policy in again.databases[0].policies}
    assert by_name["autogen"].replica_n == 1
    assert by_name["short"] == described.databases[0].policies[1]
    assert by_name["autogen"].fields == {"cpu": {"idle": FLOAT, "count": INTEGER}}
    assert bring(target, wanted) == 0


def test_a_new_name_leaves_behind_what_names_the_old_one() -> None:
    machine = source()
    described = contents(machine, Scope("d"))
    wanted = Preparation(described.databases, [], "copy")
    bring(machine, wanted)
    copy = views.database(machine.state, "copy")
    assert list(copy.policies) == ["autogen", "short"]
    assert copy.default_rp == "short"
    assert copy.continuous_queries == {}
    assert copy.policies["short"].subscriptions == ()


def test_what_is_there_stays_as_it_is() -> None:
    described = contents(source())
    target = Machine()
    target.give(c.CreateDataNode("z", "z", "z"))
    target.give(c.CreateDatabase("d", c.PolicySpec("short", 96 * HOUR, 1, 2 * HOUR)))
    target.give(c.CreateUser("reader", "another"))
    bring(target, Preparation(described.databases, described.users))
    database = views.database(target.state, "d")
    assert database.default_rp == "short"
    assert database.policies["short"].duration_ns == 96 * HOUR
    assert views.user(target.state, "reader").hash == "another"
    assert views.user(target.state, "reader").privileges == {}


def test_fields_of_another_type_are_found_before_anything_is_done() -> None:
    (database,) = contents(source(), Scope("d")).databases
    target = source()
    (autogen, _) = database.policies
    assert field_conflicts(target.state, "d", autogen) == []
    assert field_conflicts(target.state, "unknown", autogen) == []
    turned = msgspec.structs.replace(autogen, fields={"cpu": {"idle": INTEGER}, "mem": {"free": FLOAT}})
    (told,) = field_conflicts(target.state, "d", turned)
    assert told == 'field "idle" of measurement "cpu" in d.autogen is float, in the backup integer'


def test_a_part_of_a_cluster_is_described_by_itself() -> None:
    machine = source()
    everything = contents(machine)
    assert [(one.database, one.policy) for one in everything.shards] == [
        ("d", "autogen"),
        ("d", "short"),
        ("d", "short"),
    ]
    assert len(everything.users) == 2
    one = contents(machine, Scope("d", "short"))
    assert [policy.name for policy in one.databases[0].policies] == ["short"]
    assert [shard.policy for shard in one.shards] == ["short", "short"]
    assert one.users == []
    assert one.databases[0].continuous_queries == []
    shard = everything.shards[1]
    alone = contents(machine, Scope(shard=shard.id))
    assert alone.shards == [shard]
    assert [policy.name for policy in alone.databases[0].policies] == ["short"]


def test_what_is_not_there_is_named() -> None:
    machine = source()
    with pytest.raises(NotFound, match="database not found: x"):
        contents(machine, Scope("x"))
    with pytest.raises(NotFound, match="retention policy not found: x"):
        contents(machine, Scope("d", "x"))
    with pytest.raises(NotFound, match="shard not found: 99"):
        contents(machine, Scope(shard=99))
    with pytest.raises(NotFound, match="shard not found in database other: 1"):
        contents(machine, Scope("other", shard=1))
    with pytest.raises(RequestError, match="name both"):
        contents(machine, Scope(retention="short"))
    with pytest.raises(RequestError, match="one database only"):
        target_name(Preparation(contents(machine).databases, [], "new"), contents(machine).databases[0])
