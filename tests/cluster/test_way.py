"""What packets tell of the way to a node: no false alarm, soon enough, and forgotten soon after it is mended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.way import LATE_LEAST, LATE_S, LEAST_RESENT, LEAST_RESENT_SOON, WINDOW_S, Reading, Way

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


class Looker:
    """Looks at a node as the detector does: twice a second, once more when in doubt, then with a new connection.

    ``busy_s``: how long the kernel there waits for its program before it confirms what came.
    """

    def __init__(self) -> None:
        self.way, self.connection, self.number = Way(), Connection(), 1

    def look(self, now_s: float, rtt_s: float, busy_s: float = 0.0) -> None:
        if self.way.is_doubtful:
            self.number += 1
            self.connection = Connection(self.number, rtt_s)
        else:
            self.connection.packet(rtt_s + busy_s)
        self.way.look(now_s, [self.connection.reading()])

    def quiet(self, now_s: float, looks: int) -> float:
        for _ in range(looks):
            now_s += LOOK_S
            self.look(now_s, 0.0002)
        return now_s


@given(st.lists(st.floats(0.0, 0.04), max_size=80))
def test_confirmations_that_a_kernel_holds_back_for_a_busy_program_are_no_slow_way(busy_s: list[float]) -> None:
    looker, now_s = Looker(), 100.0
    for one_s in busy_s:
        now_s += LOOK_S
        looker.look(now_s, 0.0002, one_s)
        assert looker.way.problem() == ""


@given(st.floats(0.04, 1.0), st.floats(0.0, 0.25), st.integers(0, 40))
def test_a_way_that_gets_slow_is_named_and_forgotten_in_time(delay_s: float, jitter: float, longer: int) -> None:
    looker = Looker()
    now_s = begun_s = looker.quiet(100.0, 10)
    number = 0
    now_s += LOOK_S
    while not looker.way.problem():
        number += 1
        looker.look(now_s, delay_s * (1 + (jitter if number % 2 else -jitter)))
        if not looker.way.problem():
            # A tick later, or at the next look.
            now_s += 0.2 if looker.way.is_doubtful else LOOK_S
        assert now_s - begun_s <= SEEN_S
    assert number <= 1 + LATE_LEAST and "the way is slow" in looker.way.problem()
    for number in range(longer):
        now_s += LOOK_S
        looker.look(now_s, delay_s * (1 + (jitter if number % 2 else -jitter)))
        assert looker.way.problem()
    mended_s = now_s
    while looker.way.problem():
        now_s = looker.quiet(now_s, 1)
    assert now_s - mended_s <= CLEARED_S and not looker.way.is_doubtful


def test_a_way_that_was_always_long_is_not_slow() -> None:
    looker, now_s = Looker(), 100.0
    looker.connection = Connection(1, 0.2)
    for rtt_s in [0.2] * 20 + [0.3] * 20:
        now_s += LOOK_S
        looker.look(now_s, rtt_s)
        assert looker.way.problem() == ""
    assert looker.way.usual_s > LATE_S


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


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 8)), min_size=1, max_size=60))
def test_what_a_busy_machine_sends_again_needlessly_is_no_loss(looks: list[tuple[int, int]]) -> None:
    way, now_s, resent, sent, needless = Way(), 100.0, 0, 0, 0
    for packets, again in looks:
        # The other side says of each that it has come twice, one look later.
        needless, resent, sent = resent, resent + again, sent + packets + again
        now_s += LOOK_S / 5
        way.look(now_s, [Reading(1, 0.0002, resent, sent, needless)])
        now_s += LOOK_S / 5
        way.look(now_s, [Reading(1, 0.0002, resent, sent, resent)])
        assert way.problem() == "" and way.lost[0] == 0
    way.look(now_s, [Reading(1, 0.0002, resent + sent, 2 * sent, resent)])
    assert (way.lost[0] > 0) and bool(way.problem()) == (sent >= LEAST_RESENT)


@given(st.integers(20, 2000), st.floats(0.08, 0.4))
def test_losses_are_named_in_time_whatever_was_sent_before(packets: int, share: float) -> None:
    """``packets``: for each look, ten looks a second, as a busy node sends them."""
    way, now_s, resent, sent = Way(), 100.0, 0, 0
    for _ in range(100):
        now_s, sent = now_s + 0.1, sent + packets
        way.look(now_s, [], [Reading(1, 0.0002, 0, sent)])
    begun_s, due = now_s, 0.0
    while not way.problem():
        due += packets * share
        resent, now_s, sent = int(due), now_s + 0.1, sent + packets
        way.look(now_s, [], [Reading(1, 0.0002, resent, sent)])
        assert now_s - begun_s <= 0.75 * SEEN_S
    assert resent >= LEAST_RESENT_SOON
    mended_s = now_s
    while way.problem():
        now_s, sent = now_s + 0.1, sent + packets
        way.look(now_s, [], [Reading(1, 0.0002, resent, sent)])
        assert now_s - mended_s <= 0.75 * CLEARED_S


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
