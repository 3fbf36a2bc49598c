"""Random histories: what holds after every command whatever the commands are."""

import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.limits import MAX_TOMBSTONES, REQUEST_DEDUPE_CHUNK_BYTES, REQUEST_DEDUPE_ENTRIES
from dsdbd.meta import commands as c
from dsdbd.meta.apply import HANDLERS, apply, remember
from dsdbd.meta.state import (
    Answers,
    MetaState,
    Privilege,
    SubscriptionMode,
    decode_state,
    encode_state,
)
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS
from dsdbd.model.types import FieldType
from tests.examples import examples
from tests.meta.dialogue import Machine

HOUR = 3_600 * 10**9
names = st.sampled_from(["a", "b", "_internal", "autogen", "default", ""])
policies = st.sampled_from(["autogen", "default", "r1"])
ids = st.integers(1, 12)
hosts = st.sampled_from("nmopq")
durations = st.sampled_from([0, 1, HOUR, 2 * HOUR, 30 * HOUR, 300 * 24 * HOUR])
times = st.one_of(st.integers(-50 * HOUR, 50 * HOUR), st.integers(MIN_TIME_NS, MAX_TIME_NS), st.just(2**63 - 1))
privileges = st.sampled_from(Privilege)
specs = st.builds(
    c.PolicySpec,
    st.none() | policies,
    st.none() | durations,
    st.none() | st.integers(0, 4),
    st.none() | durations,
)
maybe_durations = st.none() | durations


def addresses(kind):
    return hosts.flatmap(
        lambda host: st.builds(kind, st.sampled_from([host, host + "2"]), st.just(host), st.just(host))
    )


fields = st.dictionaries(
    st.sampled_from(["cpu", "mem"]), st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(FieldType))
)
a_command = st.one_of(
    st.builds(c.InitCluster, st.sampled_from(["0" * 32, "1" * 32])),
    *(addresses(kind) for kind in (c.CreateMetaNode, c.CreateDataNode, c.CreateDataNode)),
    *(addresses(kind) for kind in (c.UpdateMetaNode, c.UpdateDataNode)),
    st.builds(c.DropMetaNode, ids),
    st.builds(c.DropDataNode, ids, st.booleans(), st.dictionaries(ids, ids, max_size=2)),
    st.builds(c.CreateDatabase, names, st.none() | specs, st.booleans(), st.integers(0, 4)),
    st.builds(c.DropDatabase, names),
    st.builds(c.CreateRetentionPolicy, names, policies, durations, st.integers(0, 4), durations, st.booleans()),
    st.builds(
        c.UpdateRetentionPolicy, names, policies, maybe_durations, st.none() | ids, maybe_durations, st.booleans()
    ),
    st.builds(c.SetDefaultRetentionPolicy, names, policies),
    st.builds(c.DropRetentionPolicy, names, policies),
    *[
        st.builds(
            c.CreateShardGroups,
            st.sampled_from(["a", "b"]),
            policies,
            st.lists(times, max_size=4).map(tuple),
            st.lists(ids, max_size=2).map(tuple),
        )
    ]
    * 3,
    st.builds(c.DeleteShardGroup, names, policies, ids),
    st.builds(c.PruneShardGroups, st.integers(0, 50 * 10**9)),
    st.builds(c.DropShard, ids),
    st.builds(c.AddShardOwner, ids, ids),
    st.builds(c.RemoveShardOwner, ids, ids),
    *[st.builds(c.BeginMoves, st.lists(st.builds(c.ShardMove, ids, ids, st.just(0) | ids), max_size=2).map(tuple))] * 3,
    st.builds(c.CompleteMove, ids, ids),
    st.builds(c.CancelMoves, st.just(0) | ids, st.just(0) | ids, st.just(0) | ids),
    st.builds(c.SetDraining, ids, st.booleans()),
    st.builds(c.RaiseReplication, st.integers(0, 4)),
    st.builds(c.CreateFields, names, policies, fields),
    st.builds(c.DropMeasurementSchema, names, st.sampled_from(["cpu", "mem"])),
    st.builds(c.CreateUser, names, st.sampled_from("xy"), st.booleans()),
    st.builds(c.UpdateUser, names, st.sampled_from("xy")),
    st.builds(c.DropUser, names),
    st.builds(c.SetPrivilege, names, names, privileges),
    st.builds(c.RevokePrivilege, names, names, privileges),
    st.builds(c.SetAdminPrivilege, names, st.booleans()),
    st.builds(c.CreateContinuousQuery, names, names, names),
    st.builds(c.DropContinuousQuery, names, names),
    st.builds(c.CreateSubscription, names, policies, names, st.sampled_from(SubscriptionMode), st.just(("udp://h:1",))),
    st.builds(c.DropSubscription, names, policies, names),
)
# A history opens with something to work on, so that random commands meet objects that exist.
SETTING = (
    c.CreateDataNode("n", "n", "n"),
    c.CreateDataNode("m", "m", "m"),
    c.CreateMetaNode("n", "n", "n"),
    c.CreateDatabase("a"),
    c.CreateDatabase("b", c.PolicySpec(replica_n=1, shard_group_duration_ns=HOUR)),
    c.CreateShardGroups("b", "autogen", (0, 5 * HOUR)),
)
histories = st.lists(a_command, max_size=30).map(lambda tail: [*SETTING, *tail])


def live_groups(state):
    return [g for db in state.databases.values() for rp in db.policies.values() for g in rp.shard_groups]


def check(state: MetaState) -> None:
    node_ids = [node.id for node in (*state.meta_nodes, *state.data_nodes, *state.tombstones)]
    assert len(set(node_ids)) == len(node_ids)
    assert max(node_ids, default=0) <= state.max_node_id
    alive = {node.id for node in state.data_nodes}
    groups = live_groups(state)
    shards = [shard for group in groups for shard in group.shards]
    assert len({group.id for group in groups}) == len(groups)
    assert len({shard.id for shard in shards}) == len(shards)
    assert all(group.id <= state.max_shard_group_id for group in groups)
    assert all(shard.id <= state.max_shard_id for shard in shards)
    for shard in shards:
        assert shard.owners, shard
        assert len(set(shard.owners)) == len(shard.owners)
        assert set(shard.owners) <= alive
        taking = [arrival.node for arrival in shard.incoming]
        assert len({*taking, *shard.owners}) == len(taking) + len(shard.owners)
        assert set(taking) <= alive
        replaced = [arrival.replaces for arrival in shard.incoming if arrival.replaces]
        assert len(set(replaced)) == len(replaced)
        assert set(replaced) <= set(shard.owners)
    for database in state.databases.values():
        for name, policy in database.policies.items():
            assert policy.name == name
            assert policy.duration_ns == 0 or policy.duration_ns >= max(HOUR, policy.shard_group_duration_ns)
            for left, right in zip(policy.shard_groups, policy.shard_groups[1:], strict=False):
                assert left.end_ns <= right.start_ns
            assert all(g.start_ns < g.end_ns and g.deleted_at_ns is None for g in policy.shard_groups)
            assert all(g.deleted_at_ns is not None for g in policy.deleted_groups)
            assert not any(shard.incoming for g in policy.deleted_groups for shard in g.shards)
    for user in state.users.values():
        assert set(user.privileges) <= set(state.databases)


def without_marks(state: MetaState) -> MetaState:
    return msgspec.structs.replace(state, index=0, answers=Answers())


@settings(max_examples=examples(150), deadline=None)
@given(histories)
def test_invariants_hold_after_every_command(history):
    machine = Machine()
    given_ids: dict[int, tuple] = {}
    for command in history:
        before = machine.state
        result = machine.give(command)
        check(machine.state)
        assert machine.state.index == before.index + 1
        assert result.error is None or result.error.code not in ("internal", "bad_command"), result
        if not result.ok:
            assert without_marks(machine.state) == without_marks(before)
        for role, nodes in (("m", machine.state.meta_nodes), ("d", machine.state.data_nodes)):
            for node in nodes:
                assert given_ids.setdefault(node.id, (role, node.uuid)) == (role, node.uuid)


@settings(max_examples=examples(60), deadline=None)
@given(histories, st.integers(0, 30))
def test_a_start_from_a_snapshot_gives_the_same_state(history, cut):
    straight, restarted = Machine(), Machine()
    for step, command in enumerate(history):
        if step == cut:
            restarted.state = decode_state(encode_state(restarted.state))
        assert straight.give(command) == restarted.give(command)
    assert straight.state == restarted.state
    assert encode_state(straight.state) == encode_state(restarted.state)
    assert decode_state(encode_state(straight.state)) == straight.state


@settings(max_examples=examples(60), deadline=None)
@given(histories, st.data())
def test_a_repeated_request_gets_the_first_answer_and_changes_nothing(history, data):
    machine = Machine()
    answers = [machine.give(command, f"id{step}") for step, command in enumerate(history)]
    again = data.draw(st.integers(0, len(history) - 1))
    before = machine.state
    assert machine.give(history[again], f"id{again}") == answers[again]
    assert machine.state == msgspec.structs.replace(before, index=before.index + 1)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(junk):
    state, answer = apply(MetaState(), 7, junk)
    result = c.decode_result(answer)
    assert result.error.code == "bad_command"
    assert state == MetaState(index=7)


@settings(deadline=None)
@given(a_command, st.data())
def test_damaged_commands_never_raise(command, data):
    good = bytearray(c.encode_envelope(c.Envelope("r", 1, command)))
    position = data.draw(st.integers(0, len(good) - 1))
    good[position] = data.draw(st.integers(0, 255))
    for blob in (bytes(good), bytes(good[:position]), bytes(good) + b"\x00"):
        state, answer = apply(MetaState(), 1, blob)
        assert state.index == 1
        assert c.decode_result(answer).index == 1


def test_deep_and_unknown_commands_are_refused():
    for blob in (b"\x91" * 100_000 + b"\xc0", msgspec.msgpack.encode(["r", 1, ["NoSuchCommand"]])):
        assert c.decode_result(apply(MetaState(), 1, blob)[1]).error.code == "bad_command"


def test_every_command_has_a_handler():
    assert set(HANDLERS) == set(typing.get_args(c.Command))


def test_a_fault_in_a_handler_is_an_answer(monkeypatch):
    def broken(_state, _command, _context):
        raise KeyError("x")

    monkeypatch.setitem(HANDLERS, c.DropUser, broken)
    machine = Machine()
    before = machine.state
    result = machine.give(c.DropUser("u"))
    assert result.error == c.Failure("internal", "DropUser failed inside dsdbd: KeyError")
    assert without_marks(machine.state) == without_marks(before)


def test_the_table_of_answers_is_bounded_and_forgets_the_oldest():
    answers = Answers()
    for number in range(2 * REQUEST_DEDUPE_ENTRIES):
        answers = remember(answers, f"r{number}", b"x")
    assert sum(len(chunk) for chunk in answers.chunks) <= REQUEST_DEDUPE_ENTRIES
    assert answers.get(f"r{REQUEST_DEDUPE_ENTRIES - 1}") is None
    assert answers.get(f"r{REQUEST_DEDUPE_ENTRIES + 100}") == b"x"
    for number in range(1000):
        answers = remember(answers, f"big{number}", bytes(REQUEST_DEDUPE_CHUNK_BYTES // 2))
    assert sum(len(v) for chunk in answers.chunks for v in chunk.values()) <= 100 * REQUEST_DEDUPE_CHUNK_BYTES


def test_tombstones_are_bounded():
    machine = Machine()
    machine.give(c.CreateMetaNode("stay", "stay", "stay"))
    for number in range(MAX_TOMBSTONES + 5):
        node = machine.give(c.CreateMetaNode(f"u{number}", "h", "h")).value
        assert machine.give(c.DropMetaNode(node.id)).ok
    assert len(machine.state.tombstones) == MAX_TOMBSTONES
    assert machine.state.tombstones[-1].uuid == f"u{MAX_TOMBSTONES + 4}"


@pytest.mark.parametrize("data", [b"", b"\x92\x01", b"\x92\x02\x90", b"\x92\x01\x91\x05", b"\xff" * 50])
def test_a_bad_snapshot_is_refused_by_name(data):
    with pytest.raises(CorruptData, match="metadata snapshot"):
        decode_state(data)


def test_another_snapshot_format_names_both():
    with pytest.raises(CorruptData, match="format 2, this version of dsdbd reads format 1"):
        decode_state(msgspec.msgpack.encode([2, []]))


def test_too_many_groups_in_one_command_are_refused_whole():
    machine = Machine()
    machine.give(c.CreateDataNode("n", "n", "n"))
    machine.give(c.CreateDatabase("d", c.PolicySpec(shard_group_duration_ns=HOUR)))
    many = tuple(hour * HOUR for hour in range(1001))
    assert machine.give(c.CreateShardGroups("d", "autogen", many)).error.code == "too_many_shard_groups"
    assert not live_groups(machine.state)
    assert len(machine.give(c.CreateShardGroups("d", "autogen", many[:1000])).value.groups) == 1000
