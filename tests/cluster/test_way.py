"""What packets tell of the way to a node: no false alarm, soon enough, and forgotten soon after it is mended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.way import LATE_S, LEAST_RESENT, WINDOW_S, Reading, Way

LOOK_S = 0.5
SEEN_S, CLEARED_S = 2.0, 5.0


class Connection:
    """A connection as a kernel counts it."""

    def __init__(self, number: int = 1, rtt_s: float = 0.0002) -> None:
        self.number, self.rtt_s, self.resent, self.sent = number, rtt_s, 0, 0

    def packet(self, rtt_s: float, resent: int = 0) -> None:
        self.rtt_s += (rtt_s - self.rtt_s) / 8
        self.sent += 1 + resent
        self.resent += resent

    def reading(self) -> Reading:
        return Reading(self.number, self.rtt_s, self.resent, self.sent)


def quiet(way: Way, connection: Connection, looks: int = 10, now_s: float = 100.0, rtt_s: float = 0.0002) -> float:
    for _ in range(looks):
        connection.packet(rtt_s)
        now_s += LOOK_S
        way.look(now_s, [connection.reading()])
    return now_s


@given(st.lists(st.lists(st.floats(0.00005, 0.04), min_size=1, max_size=2), max_size=60))
def test_confirmations_that_a_kernel_holds_back_are_no_slow_way(looks: list[list[float]]) -> None:
    way, connection, now_s = Way(), Connection(), 100.0
    for packets in looks:
        for rtt_s in packets:
            connection.packet(rtt_s)
        now_s += LOOK_S
        way.look(now_s, [connection.reading()])
        assert way.problem() == ""


@given(st.floats(0.1, 1.0), st.floats(0.0, 0.2), st.integers(0, 40))
def test_a_way_that_gets_slow_is_named_and_forgotten_in_time(delay_s: float, jitter: float, longer: int) -> None:
    way, connection = Way(), Connection()
    now_s = begun_s = quiet(way, connection)
    assert way.problem() == ""
    number = 0
    while not way.problem():
        number += 1
        connection.packet(delay_s * (1 + (jitter if number % 2 else -jitter)))
        now_s += LOOK_S
        way.look(now_s, [connection.reading()])
    assert now_s - begun_s <= SEEN_S
    assert "the way is slow" in way.problem()
    for number in range(longer):
        connection.packet(delay_s * (1 + (jitter if number % 2 else -jitter)))
        now_s += LOOK_S
        way.look(now_s, [connection.reading()])
        assert way.problem()
    mended_s = now_s
    while way.problem():
        now_s = quiet(way, connection, 1, now_s)
    assert now_s - mended_s <= CLEARED_S


def test_a_way_that_was_always_long_is_not_slow() -> None:
    way, connection = Way(), Connection(rtt_s=0.2)
    now_s = quiet(way, connection, 20, rtt_s=0.2)
    assert way.problem() == ""
    quiet(way, connection, 20, now_s, rtt_s=0.3)
    assert way.problem() == ""
    assert way.usual_s > LATE_S


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_packets_that_are_lost_are_named_while_they_are_and_not_for_long_after(resent: list[int]) -> None:
    way, connection, now_s = Way(), Connection(), 100.0
    for number, times in enumerate(resent):
        connection.packet(0.0002, resent=times)
        now_s += LOOK_S
        way.look(now_s, [connection.reading()])
        # Looks at the ends of the window are both in it.
        late = resent[max(0, number - int(WINDOW_S / LOOK_S)) : number + 1]
        assert bool(way.problem()) == (sum(late) >= LEAST_RESENT)
    mended_s = now_s
    while way.problem():
        now_s = quiet(way, connection, 1, now_s)
    assert now_s - mended_s <= CLEARED_S


def test_a_few_losses_among_many_packets_are_usual() -> None:
    way, pulse, busy = Way(), Connection(1), Connection(2)
    pulse.packet(0.0002)
    for _ in range(1000):
        busy.packet(0.0002)
    busy.packet(0.0002, resent=9)
    way.look(100.0, [pulse.reading()], [busy.reading()])
    assert way.lost == (9, 1011) and way.problem() == ""
    busy.packet(0.0002, resent=60)
    way.look(100.2, [pulse.reading()], [busy.reading()])
    assert "69 of the last 1072 had to be sent again" in way.problem()


def test_what_a_closed_connection_had_counted_is_not_counted_again() -> None:
    way = Way()
    way.look(100.0, [Reading(1, 0.0002, 1, 10)])
    way.look(100.2, [Reading(1, 0.0002, 1, 20)])
    assert way.lost == (1, 20)
    # Another one in its place: its number may be the same.
    way.look(100.4, [Reading(1, 0.0002, 0, 3)])
    assert way.lost == (1, 23) and way.problem() == ""


def test_what_was_lost_while_a_node_was_out_of_reach_says_nothing_of_the_way_once_it_is_back() -> None:
    way = Way()
    way.look(100.0, [Reading(1, 0.0002, 4, 5)])
    assert way.problem()
    way.begin_anew()
    way.look(100.2, [Reading(2, 0.0002, 1, 4)])
    assert way.problem() == ""
