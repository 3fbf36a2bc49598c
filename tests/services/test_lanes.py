"""Queues of subscriptions: what fits stays in order, the oldest goes first, and every loss is counted."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.model.columns import Column, Points
from dsdbd.model.line_protocol import parse_lines
from dsdbd.model.types import FieldType
from dsdbd.services.lanes import AcceptedWrite, Lane, datagrams, request_bodies


def a_write(rows: int, first: int = 0) -> AcceptedWrite:
    times = np.arange(first, first + rows, dtype=np.int64)
    values = Column(FieldType.INTEGER, times)
    return AcceptedWrite([Points("m", [b"m,host=a"], np.zeros(rows, np.int32), times, {"v": values})])


WRITES = st.lists(st.integers(1, 50).map(a_write), max_size=30)


@given(WRITES, st.integers(1, 8), st.integers(0, 5000))
def test_a_queue_keeps_the_newest_within_its_bounds(writes: list[AcceptedWrite], most: int, most_bytes: int) -> None:
    lane = Lane(most, most_bytes)
    dropped_writes = dropped_points = 0
    for write in writes:
        dropped = lane.push(write)
        dropped_writes += dropped.writes
        dropped_points += dropped.points
        assert len(lane) <= most
        assert lane.held_bytes <= most_bytes
    left = lane.take(10**9)
    assert left == writes[len(writes) - len(left) :]
    assert dropped_writes == len(writes) - len(left)
    assert dropped_points == sum(write.rows for write in writes[: len(writes) - len(left)])
    lane.done(left)
    assert lane.held_bytes == 0


@given(WRITES, st.integers(1, 5000))
def test_what_is_taken_comes_in_order_and_within_the_size(writes: list[AcceptedWrite], most_bytes: int) -> None:
    lane = Lane(1000, 10**9)
    for write in writes:
        lane.push(write)
    taken: list[AcceptedWrite] = []
    while piece := lane.take(most_bytes):
        assert len(piece) == 1 or sum(write.size_bytes for write in piece) <= most_bytes
        taken += piece
    assert taken == writes
    assert lane.held_bytes == sum(write.size_bytes for write in writes), "they are on their way"


def test_what_is_on_its_way_counts_for_the_bytes() -> None:
    write = a_write(10)
    lane = Lane(10, write.size_bytes)
    lane.push(write)
    taken = lane.take(10**9)
    assert lane.push(a_write(1)).writes == 1, "there is no room before the first one is done"
    lane.done(taken)
    assert lane.push(a_write(1)).writes == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 200))
def test_datagrams_hold_whole_lines_and_no_more_than_they_may(rows: list[int], most_bytes: int) -> None:
    writes = [a_write(count, 1000 * number) for number, count in enumerate(rows)]
    found = datagrams(writes, most_bytes)
    assert b"".join(found) == request_bodies(writes)
    for datagram in found:
        assert datagram.endswith(b"\n")
        assert len(datagram) <= most_bytes or datagram.count(b"\n") == 1


def test_a_big_write_becomes_lines_piece_by_piece() -> None:
    pieces = a_write(12_000).lines()
    assert [len(piece) for piece in pieces] == [5000, 5000, 2000]


def test_a_body_does_not_begin_like_json() -> None:
    parsed = parse_lines(b"{m v=1 5", precision="ns", default_time_ns=0)
    assert request_bodies([AcceptedWrite(parsed.points)]) == b"#\n{m v=1 5\n"
