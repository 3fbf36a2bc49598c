"""When owners that lack points nobody keeps for them are tried again: soon after what stood in the way is mended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.repair_lost import Attempts

LONGEST_S = 4.0
PAST = st.lists(st.tuples(st.sampled_from([2, 4]), st.floats(0.0, 5.0), st.booleans()), max_size=60)


@given(past=PAST, is_back=st.booleans(), look_s=st.floats(0.1, 1.0))
def test_an_owner_is_tried_soon_after_it_was_mended_whatever_went_before(
    past: list[tuple[int, float, bool]], is_back: bool, look_s: float
) -> None:
    attempts, now_s = Attempts(LONGEST_S), 0.0
    for owner, pause_s, goes_well in past:
        now_s += pause_s
        if attempts.is_due(owner, now_s):
            attempts.succeeded(owner) if goes_well else attempts.failed(owner, now_s)
    mended_s = now_s
    if is_back:
        attempts.begin_anew()
        assert attempts.is_due(2, now_s) and attempts.is_due(4, now_s)
    while not (attempts.is_due(2, now_s) and attempts.is_due(4, now_s)):
        now_s += look_s
    assert now_s - mended_s <= LONGEST_S + look_s


def test_each_failure_doubles_the_pause_up_to_the_bound_and_success_forgets_them() -> None:
    attempts, pauses_s, now_s = Attempts(LONGEST_S), [], 100.0
    for _ in range(4):
        attempts.failed(7, now_s)
        began_s = now_s
        while not attempts.is_due(7, now_s):
            now_s += 0.5
        pauses_s.append(now_s - began_s)
    assert pauses_s == [2.0, 4.0, 4.0, 4.0]
    assert attempts.is_due(8, now_s), "of another owner nothing is known"
    attempts.succeeded(7)
    attempts.failed(7, now_s)
    assert attempts.is_due(7, now_s + 2.0)
