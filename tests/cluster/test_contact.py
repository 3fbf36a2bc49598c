"""What a node makes of others' answers and silence, and when it leaves one alone: the pure parts."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.clock import elapsed_s
from dsdbd.cluster.breaker import FAILURES_TO_OPEN, FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker
from dsdbd.cluster.contact import (
    LOOK_PERIOD_S,
    PAUSED_S,
    REFUSALS,
    SILENT_S,
    WEDGED_S,
    Contact,
    Ticks,
    clock_ahead_s,
    clock_problems,
)


def test_silence_makes_a_node_down_and_an_answer_up() -> None:
    contact = Contact.begin(10.0)
    assert not contact.tick(10.0 + SILENT_S - 0.01)
    contact.failed("no answer", refused=False)
    assert contact.tick(10.0 + SILENT_S)
    assert contact.is_down
    assert not contact.tick(20.0)
    assert contact.since_s == 10.0 + SILENT_S
    assert contact.answered(21.0)
    assert (contact.is_down, contact.since_s, contact.reason) == (False, 21.0, "")
    assert not contact.answered(21.5)


def test_refused_connections_make_a_node_down_at_once() -> None:
    contact = Contact.begin(0.0)
    for _ in range(REFUSALS - 1):
        contact.failed("connection refused", refused=True)
        assert not contact.tick(0.1)
    contact.failed("no answer", refused=False)
    assert not contact.tick(0.2)
    for _ in range(REFUSALS):
        contact.failed("connection refused", refused=True)
    assert contact.tick(0.3)


def test_a_node_that_is_heard_is_merely_busy_and_not_for_ever() -> None:
    contact, now_s = Contact.begin(10.0), 10.0
    while now_s + 0.2 < 10.0 + WEDGED_S:
        now_s += 0.2
        contact.heard(now_s)
        contact.failed("no answer", refused=False)
        assert not contact.tick(now_s)
    contact.heard(now_s + 0.2)
    assert contact.tick(now_s + 0.4), "it asks, and answers nobody"
    contact.heard(now_s + 0.6)
    assert contact.is_down, "only an answer makes it up"
    assert contact.answered(now_s + 0.8)
    for _ in range(REFUSALS):
        contact.heard(now_s + 1.0)
        contact.failed("connection refused", refused=True)
    assert contact.tick(now_s + 1.0), "nothing listens, whatever came in a moment ago"


TICK_S = 0.2


@given(
    last_answer=st.floats(0.0, LOOK_PERIOD_S),
    last_heard=st.floats(0.0, LOOK_PERIOD_S),
    phase=st.floats(0.0, TICK_S),
    silent_s=st.floats(0.0, 30.0),
    look_phase=st.floats(0.0, 1.0),
)
def test_silence_is_seen_within_two_seconds_and_its_end_within_five(
    last_answer: float, last_heard: float, phase: float, silent_s: float, look_phase: float
) -> None:
    """At most half a second before all packets are lost it answered; one of its own looks was on its way then."""
    contact = Contact.begin(-last_answer)
    contact.heard(last_heard)
    now_s = phase
    while not contact.tick(now_s):
        now_s += TICK_S
    assert now_s <= 2.0
    # Looks at a silent node end after a second and begin anew; one that begins after the heal is answered.
    healed_s = now_s + silent_s
    look_s = now_s + look_phase
    while look_s < healed_s:
        look_s += 1.05
    assert contact.answered(look_s)
    assert look_s - healed_s <= 5.0 and not contact.tick(look_s)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=20))
def test_time_in_which_this_node_did_not_run_counts_against_nobody(gaps_s: list[float]) -> None:
    contact, now_s = Contact.begin(0.0), 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        contact.slept(gap_s, now_s)
        assert not contact.tick(now_s)


def test_an_answer_that_came_in_after_a_pause_of_this_node_is_no_younger_for_it() -> None:
    contact = Contact.begin(0.0)
    contact.answered(10.0)
    contact.heard(10.0)
    contact.slept(9.8, 10.0)
    assert not contact.tick(10.0)
    assert contact.tick(10.0 + SILENT_S)


@given(sent=st.integers(0, 10**12), took=st.integers(0, 10**10), at=st.floats(0, 1), off=st.integers(-(10**12), 10**12))
def test_a_clock_is_never_called_more_wrong_than_it_is(sent: int, took: int, at: float, off: int) -> None:
    found_s = clock_ahead_s(sent, sent + took, sent + int(took * at) + off)
    assert abs(found_s) <= abs(off) / 1e9 + 1e-9
    assert abs(off) / 1e9 - abs(found_s) <= took / 1e9 + 1e-9
    assert found_s * off >= 0


def test_the_clock_that_is_off_is_named() -> None:
    assert clock_problems({"a": 0.2, "b": -0.9}) == []
    assert clock_problems({"a": 0.2, "b": -9.0}) == ["the clock of b is 9.0s behind this node's"]
    assert clock_problems({"a": 60.0, "b": 61.0}) == ["this node's clock is 60.0s behind that of 2 of 2 other nodes"]
    assert clock_problems({"a": -60.0, "b": -61.0, "c": 0.0}) == [
        "this node's clock is 60.0s ahead of that of 2 of 3 other nodes"
    ]
    assert len(clock_problems({"a": 60.0, "b": -61.0})) == 2


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_through() -> None:
    breaker = Breaker()
    for number in range(FAILURES_TO_OPEN):
        assert breaker.allows(number)
        assert breaker.is_closed
        breaker.failed(number)
    opened_s = FAILURES_TO_OPEN - 1
    assert not breaker.allows(opened_s + FIRST_PAUSE_S / 2)
    assert breaker.left_s(opened_s) == FIRST_PAUSE_S
    assert breaker.allows(opened_s + FIRST_PAUSE_S)
    assert not breaker.allows(opened_s + FIRST_PAUSE_S)
    breaker.gave_up()
    assert breaker.allows(opened_s + FIRST_PAUSE_S)
    breaker.failed(opened_s + FIRST_PAUSE_S)
    assert breaker.left_s(opened_s + FIRST_PAUSE_S) == 2 * FIRST_PAUSE_S
    breaker.healed(opened_s + FIRST_PAUSE_S)
    assert breaker.allows(opened_s + FIRST_PAUSE_S)
    breaker.succeeded()
    assert breaker.is_closed
    assert breaker.failures == 0


def test_a_breaker_that_would_let_a_request_through_does_not_refuse() -> None:
    breaker = Breaker()
    assert not breaker.refuses(0.0)
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(0.0)
    assert breaker.refuses(FIRST_PAUSE_S / 2)
    breaker.healed(FIRST_PAUSE_S / 2)
    assert not breaker.refuses(FIRST_PAUSE_S / 2)
    assert not breaker.trial, "asking is no trial"
    assert breaker.allows(FIRST_PAUSE_S / 2)
    assert breaker.refuses(FIRST_PAUSE_S), "one request at a time"


def test_the_pause_of_a_breaker_grows_up_to_its_bound() -> None:
    breaker, now_s = Breaker(), 0.0
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(now_s)
    pauses_s = []
    for _ in range(10):
        pauses_s.append(breaker.left_s(now_s))
        breaker.failed(now_s)
        assert breaker.left_s(now_s) == pauses_s[-1], "a request that began before does not make it longer"
        now_s += pauses_s[-1]
        assert breaker.allows(now_s)
        breaker.failed(now_s)
    assert pauses_s[:3] == [FIRST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert max(pauses_s) == LONGEST_PAUSE_S


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=60), st.floats(0.0, 1.0))
def test_a_peer_that_was_mended_is_tried_soon_whatever_went_before(
    past: list[tuple[float, bool]], ask_s: float
) -> None:
    breaker, now_s = Breaker(), 0.0
    for pause_s, answers in past:
        now_s += pause_s
        if breaker.allows(now_s):
            breaker.succeeded() if answers else breaker.failed(now_s)
    mended_s = now_s
    while not breaker.is_closed:
        now_s += ask_s + 0.01
        if breaker.allows(now_s):
            breaker.succeeded()
    assert now_s - mended_s <= LONGEST_PAUSE_S + ask_s + 0.01


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 100.0)), max_size=30))
def test_a_node_that_did_not_run_knows_it_also_where_its_machine_was_suspended(gaps: list[tuple[float, float]]) -> None:
    ticks, now_s, elapsed = Ticks(0.1), 50.0, 70.0
    assert not ticks.was_paused(elapsed), "it has not begun"
    ticks.tick(now_s, elapsed)
    for gap_s, suspended_s in gaps:
        before_s = now_s
        now_s += gap_s
        elapsed += gap_s + suspended_s
        assert ticks.was_paused(elapsed) == (elapsed - ticks.elapsed_s > PAUSED_S)
        assert ticks.was_paused(elapsed) or gap_s + suspended_s < PAUSED_S + 1e-6
        # Nobody's silence counts for longer than this node could have heard anything.
        assert abs(ticks.late_s(now_s) - (now_s - before_s - 0.1)) < 1e-6
        ticks.tick(now_s, elapsed)
        assert not ticks.was_paused(elapsed + PAUSED_S / 2)


def test_the_clock_that_counts_a_suspended_machine_goes_on_as_the_other_one_does() -> None:
    first, begun_s = elapsed_s(), time.monotonic()
    assert elapsed_s() >= first
    # One is read between two of the other, so its steps cannot be shorter than theirs.
    while time.monotonic() - begun_s < 0.01:
        pass
    assert elapsed_s() - first >= 0.009
    before_s = time.monotonic()
    assert before_s <= elapsed_s(None) <= time.monotonic(), "a system without such a clock"
