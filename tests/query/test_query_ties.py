"""What is chosen, and in which order it comes, where values or times are equal."""

import json

import pytest

from tests.query.query_engine import MemoryShard, Row, json_answer

SECOND = 10**9


def shard(*rows):
    """A shard with (host, seconds, value) of one measurement."""
    return MemoryShard([Row("m", (("host", host),), at * SECOND, (("v", value),)) for host, at, value in rows])


def values(text, *nodes):
    (result,) = json.loads(json_answer(text, [[node] for node in nodes], 0))["results"]
    return [row[1:] for row in result["series"][0]["values"]]


@pytest.mark.parametrize(
    ("points", "mode"),
    [
        ([(1, 9.0), (2, 3.0), (3, 5.0)], 3.0),  # each once: the least
        ([(1, 9.0), (2, 9.0), (3, 3.0), (4, 5.0)], 9.0),  # the most frequent one, whatever its size
        ([(1, 5), (2, 5), (3, 8), (4, 8)], 5),  # 8 begins after the last 5
        ([(1, 8), (2, 5), (3, 8), (4, 5)], 8),  # 8 begins before the last 5
        ([(1, 5), (2, 5), (3, 4), (4, 4), (0, 7), (9, 7)], 7),
        ([(1, 4), (5, 4), (2, 5), (3, 5), (4, 7), (6, 7)], 5),  # 5 takes the place of 4; 7 begins after the last 5
        ([(1, "b"), (2, "a")], "a"),
        ([(1, True), (2, False)], True),
        ([(1, True), (2, False), (3, False)], False),
    ],
)
def test_mode_of_equally_frequent_values(points, mode):
    rows = [(f"h{place % 2}", at, value) for place, (at, value) in enumerate(points)]
    assert values("select mode(v) from m", shard(*rows)) == [[mode]]
    assert values("select mode(v) from m", shard(*rows[::2]), shard(*rows[1::2])) == [[mode]]


def test_mode_is_chosen_in_each_window():
    rows = [("a", 1, 2), ("a", 2, 1), ("a", 11, 6), ("a", 12, 5), ("b", 13, 6), ("b", 14, 5)]
    text = "select mode(v) from m where time >= 0 and time < 20s group by time(10s)"
    assert values(text, shard(*rows)) == [[1], [6]]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("top(v, 3)", [[4, "c"], [3, "a"], [2, "b"]]),
        ("bottom(v, 4)", [[1, "d"], [2, "b"], [3, "a"], [4, "c"]]),
        ("top(v, host, 2)", [[4, "c"], [3, "a"]]),
    ],
)
def test_picked_points_of_one_time_come_by_value(call, answer):
    rows = [("a", 5, 3), ("b", 5, 2), ("c", 5, 4), ("d", 5, 1)]
    text = f"select {call}{'' if 'host' in call else ', host'} from m"
    assert values(text, shard(*rows)) == answer
    assert values(text, shard(*rows[:2]), shard(*rows[2:])) == answer


def test_picked_points_of_several_times_come_by_time():
    rows = [("a", 5, 3), ("b", 6, 9), ("c", 5, 4), ("d", 6, 7)]
    assert values("select top(v, 4), host from m", shard(*rows)) == [[4, "c"], [3, "a"], [9, "b"], [7, "d"]]
