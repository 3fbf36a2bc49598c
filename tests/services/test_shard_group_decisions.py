"""What expires and what is created ahead of time, decided from the metadata and the time alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.meta import views
from dsdbd.meta.apply import apply
from dsdbd.meta.commands import (
    Command,
    CreateDatabase,
    CreateDataNode,
    CreateRetentionPolicy,
    CreateShardGroups,
    DeleteShardGroup,
    Envelope,
    PolicySpec,
    UpdateRetentionPolicy,
    decode_result,
    encode_envelope,
)
from dsdbd.meta.placement import HOUR_NS
from dsdbd.meta.state import MetaState
from dsdbd.services import groups

DAY_NS = 24 * HOUR_NS
NOW_NS = 500_000 * HOUR_NS
HOURS = st.integers(-400, 400).map(lambda hours: NOW_NS + hours * HOUR_NS)
MINUTES = st.integers(-2000, 2000).map(lambda minutes: NOW_NS + minutes * HOUR_NS // 60)
DURATIONS = st.sampled_from([0, HOUR_NS, 5 * HOUR_NS, DAY_NS, 10 * DAY_NS])


def changed(state: MetaState, *commands: Command, now_ns: int = NOW_NS) -> MetaState:
    for command in commands:
        state, raw = apply(state, state.index + 1, encode_envelope(Envelope(f"r{state.index}", now_ns, command)))
        assert decode_result(raw).ok, decode_result(raw)
    return state


def a_state(durations: list[tuple[int, int]], times_ns: list[int]) -> MetaState:
    """One database whose policies have these durations (points, shard groups) and groups for these times."""
    state = changed(MetaState(), CreateDataNode("u", "a:1", "a:2"), CreateDatabase("d", PolicySpec("p0")))
    for number, (duration_ns, shard_ns) in enumerate(durations):
        state = changed(state, CreateRetentionPolicy("d", f"p{number + 1}", duration_ns, 1, shard_ns or HOUR_NS))
        if times_ns:
            state = changed(state, CreateShardGroups("d", f"p{number + 1}", tuple(times_ns)))
    return state


POLICIES = st.lists(
    st.tuples(DURATIONS, st.sampled_from([HOUR_NS, 2 * HOUR_NS, DAY_NS])).filter(
        lambda pair: pair[0] == 0 or pair[0] >= pair[1]
    ),
    min_size=1,
    max_size=3,
)
STATES = st.builds(a_state, POLICIES, st.lists(HOURS, max_size=12))


@given(STATES, HOURS | MINUTES)
def test_a_group_expires_exactly_when_no_point_in_it_may_be_kept(state: MetaState, now_ns: int) -> None:
    due = {(command.policy, command.id): group for group, command in groups.expired(state, now_ns)}
    for policy in state.databases["d"].policies.values():
        for group in policy.shard_groups:
            newest_ns = group.end_ns - 1
            too_old = policy.duration_ns > 0 and newest_ns < now_ns - policy.duration_ns - 1
            kept = policy.duration_ns == 0 or newest_ns >= now_ns - policy.duration_ns
            if too_old:
                assert due[policy.name, group.id] == group
            if kept:
                assert (policy.name, group.id) not in due


@given(STATES, HOURS | MINUTES)
def test_carrying_out_what_expired_leaves_nothing_to_expire(state: MetaState, now_ns: int) -> None:
    due = [command for _, command in groups.expired(state, now_ns)]
    before = {place.shard.id for place in views.all_shards(state)}
    gone = {shard.id for group, _ in groups.expired(state, now_ns) for shard in group.shards}
    state = changed(state, *due, now_ns=now_ns)
    assert not list(groups.expired(state, now_ns))
    assert {place.shard.id for place in views.all_shards(state)} == before - gone


def test_a_shorter_duration_makes_groups_expire() -> None:
    state = a_state([(0, HOUR_NS)], [NOW_NS - 3 * HOUR_NS, NOW_NS])
    assert not list(groups.expired(state, NOW_NS))
    state = changed(state, UpdateRetentionPolicy("d", "p1", duration_ns=HOUR_NS))
    ((group, command),) = groups.expired(state, NOW_NS)
    assert group.start_ns == NOW_NS - 3 * HOUR_NS
    assert command == DeleteShardGroup("d", "p1", group.id)


@given(STATES, HOURS | MINUTES, st.sampled_from([1, HOUR_NS // 2, HOUR_NS, DAY_NS]))
def test_the_successor_of_a_policy_in_use_is_created_in_time(state: MetaState, now_ns: int, advance_ns: int) -> None:
    wanted = {command.policy: command for command in groups.successors(state, now_ns, advance_ns)}
    for policy in state.databases["d"].policies.values():
        in_use = any(group.start_ns <= now_ns < group.end_ns for group in policy.shard_groups)
        ends_soon = bool(policy.shard_groups) and policy.shard_groups[-1].end_ns <= now_ns + advance_ns
        assert (policy.name in wanted) == (in_use and ends_soon)
    after = changed(state, *wanted.values(), now_ns=now_ns)
    for name in wanted:
        old, new = (found.databases["d"].policies[name].shard_groups for found in (state, after))
        assert new[:-1] == old
        assert new[-1].start_ns == old[-1].end_ns
        assert new[-1].end_ns > now_ns + advance_ns or new[-1].end_ns > old[-1].end_ns


def test_a_successor_is_created_once() -> None:
    state = a_state([(0, HOUR_NS)], [NOW_NS])
    assert not list(groups.successors(state, NOW_NS, HOUR_NS // 2))
    almost_ns = NOW_NS + HOUR_NS - HOUR_NS // 4
    (command,) = groups.successors(state, almost_ns, HOUR_NS // 2)
    state = changed(state, command)
    assert not list(groups.successors(state, almost_ns, HOUR_NS // 2))


def test_the_end_of_time_has_no_successor() -> None:
    last_ns = 2**63 - 2
    state = a_state([(0, HOUR_NS)], [last_ns])
    assert not list(groups.successors(state, last_ns, HOUR_NS))


def test_deleted_groups_are_forgotten_after_two_weeks() -> None:
    state = a_state([(0, HOUR_NS)], [NOW_NS, NOW_NS + HOUR_NS])
    (first, second) = state.databases["d"].policies["p1"].shard_groups
    state = changed(state, DeleteShardGroup("d", "p1", first.id), now_ns=NOW_NS)
    state = changed(state, DeleteShardGroup("d", "p1", second.id), now_ns=NOW_NS + DAY_NS)
    assert groups.forgettable(state, NOW_NS + 14 * DAY_NS) is None
    late_ns = NOW_NS + 14 * DAY_NS + 1
    command = groups.forgettable(state, late_ns)
    assert command is not None
    state = changed(state, command)
    assert [group.id for group in state.databases["d"].policies["p1"].deleted_groups] == [second.id]
    assert groups.forgettable(state, late_ns) is None
