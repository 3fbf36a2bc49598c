"""How far continuous queries have come, as the state machine keeps it."""

from __future__ import annotations

import msgspec

from dsdbd.meta.apply import apply
from dsdbd.meta.commands import (
    Command,
    ContinuousQueryRun,
    CreateContinuousQuery,
    CreateDatabase,
    DropContinuousQuery,
    Envelope,
    RecordContinuousQueryRuns,
    Result,
    decode_result,
    encode_envelope,
)
from dsdbd.meta.state import ContinuousQuery, MetaState, decode_state, encode_state

QUERY = "CREATE CONTINUOUS QUERY q ON d BEGIN SELECT mean(v) INTO d.autogen.n FROM d.autogen.m GROUP BY time(1m) END"


def done(state: MetaState, *commands: Command) -> tuple[MetaState, Result]:
    result = Result(0)
    for command in commands:
        state, raw = apply(state, state.index + 1, encode_envelope(Envelope(f"r{state.index}", 5, command)))
        result = decode_result(raw)
    return state, result


def ran(*runs: tuple[str, str, int]) -> RecordContinuousQueryRuns:
    return RecordContinuousQueryRuns(tuple(ContinuousQueryRun(*run) for run in runs))


CREATED, _ = done(MetaState(), CreateDatabase("d"), CreateContinuousQuery("d", "q", QUERY))


def last_run(state: MetaState) -> int | None:
    return state.databases["d"].continuous_queries["q"].last_run_ns


def test_a_run_is_kept_and_survives_a_snapshot() -> None:
    assert last_run(CREATED) is None
    state, result = done(CREATED, ran(("d", "q", 60)))
    assert result.ok
    assert last_run(decode_state(encode_state(state))) == 60


def test_creating_the_same_query_again_keeps_its_run() -> None:
    state, result = done(CREATED, ran(("d", "q", 60)), CreateContinuousQuery("d", "q", QUERY))
    assert result.ok
    assert last_run(state) == 60


def test_a_query_that_is_created_anew_has_not_run() -> None:
    state, _ = done(CREATED, ran(("d", "q", 60)), DropContinuousQuery("d", "q"), CreateContinuousQuery("d", "q", QUERY))
    assert last_run(state) is None


def test_runs_of_what_was_dropped_are_passed_over() -> None:
    state, result = done(CREATED, ran(("d", "gone", 60), ("gone", "q", 60), ("d", "q", 70)))
    assert result.ok
    assert last_run(state) == 70
    assert list(state.databases) == ["d"]
    assert list(state.databases["d"].continuous_queries) == ["q"]


def test_a_run_recorded_twice_changes_nothing_the_second_time() -> None:
    once, _ = done(CREATED, ran(("d", "q", 60)))
    twice, _ = done(once, ran(("d", "q", 60)))
    assert twice.databases is once.databases


def test_a_query_stored_by_an_earlier_version_is_read() -> None:
    stored = msgspec.msgpack.encode(["q", QUERY])
    assert msgspec.msgpack.decode(stored, type=ContinuousQuery) == ContinuousQuery("q", QUERY, None)
