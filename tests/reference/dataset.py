"""The points both servers hold in the differential suite: few enough to reason about, with every odd case of a model.

Times are seconds or weeks from the epoch, so that a statement can say ``time >= 10m AND time < 1w``. Weeks apart means
shards apart. Unless a measurement is there for equal times, no two of its points share one, so that no order is chance.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.line_text import escape, field_text

SECOND_NS = 1_000_000_000
WEEK_S = 7 * 24 * 3600

Value = float | int | str | bool
Tags = dict[str, str]


@dataclass(frozen=True)
class Body:
    """One write request: database, retention policy ("" is the default one) and lines."""

    database: str
    policy: str
    lines: tuple[str, ...]


SETUP = (
    "CREATE DATABASE d",
    "CREATE RETENTION POLICY long ON d DURATION INF REPLICATION 1 SHARD DURATION 4w",
    "CREATE DATABASE e WITH DURATION INF REPLICATION 1 SHARD DURATION 1w NAME one",
)


def line(measurement: str, tags: Tags, time_s: float, fields: dict[str, Value], time_ns: int = 0) -> str:
    """A line of line protocol; ``time_ns`` is added to ``time_s``."""
    head = escape(measurement, ", ") + "".join(f",{escape(key)}={escape(value)}" for key, value in tags.items())
    values = ",".join(f"{escape(key)}={field_text(value)}" for key, value in fields.items())
    return f"{head} {values} {round(time_s * 1000) * 1_000_000 + time_ns}"


HOSTS: tuple[Tags, ...] = ({"host": "a", "region": "eu"}, {"host": "b", "region": "us"}, {"host": "c"})


def cpu() -> list[str]:
    """Three series of all four types, each field missing now and then, in three shards with empty weeks between."""
    rng = random.Random(20)
    lines = []
    for start_s, steps in ((0, 24), (2 * WEEK_S, 6), (5 * WEEK_S, 4)):
        for step in range(steps):
            for number, tags in enumerate(HOSTS):
                fields: dict[str, Value] = {}
                if rng.random() < 0.8:
                    fields["f"] = rng.choice((0.0, 0.5, 1.25, 2.5, 7.75, -3.5, 12.125, 40.0, rng.uniform(-50, 50)))
                if rng.random() < 0.6:
                    fields["i"] = rng.choice((0, 1, 2, 3, 5, 7, -4, 12, 100))
                if rng.random() < 0.4:
                    fields["s"] = rng.choice(("up", "down", "idle", ""))
                if rng.random() < 0.4 or not fields:
                    fields["b"] = rng.random() < 0.5
                lines.append(line("cpu", tags, start_s + step * 25 + number * 7, fields))
    return lines


def small_ones() -> list[str]:
    """Measurements of a few points: other fields beside, no tags, one point, one type, one name for field and tag."""
    return [
        line("mem", {"host": "a"}, 3, {"used": 5, "f": 7.0}),
        line("mem", {}, 14, {"used": 6}),
        line("mem", {}, 35, {"used": 9, "f": 2.5}),
        line("mem", {"host": "z"}, 400, {"used": -1, "note": "low"}),
        line("mem", {"host": "a"}, 2 * WEEK_S + 60, {"used": 50, "f": 0.125}),
        line("lone", {"host": "a"}, 90, {"f": 4.5, "i": 9, "s": "only", "b": True}),
        *(line("plain", {}, second, {"f": second / 4}) for second in range(0, 60, 6)),
        *(line("texts", {"k": str(second % 2)}, second, {"s": f"t{second % 3}"}) for second in range(8)),
        *(line("flags", {"k": str(second % 2)}, second, {"b": second % 3 == 0}) for second in range(8)),
        line("both", {"x": "tag", "host": "a"}, 1, {"x": 1.5, "y": 1}),
        line("both", {"host": "a"}, 2, {"x": 2.5, "y": 2}),
        line("same", {"host": "a"}, 1, {"v": 3}),
        line("same", {"host": "a"}, 2, {"v": 3}),
        line("same", {"host": "b"}, 3, {"v": 3}),
    ]


def two_types() -> list[str]:
    """The floats of a field that is an integer in the other retention policy."""
    return [
        *(line("num", {"k": "x"}, 10 * step, {"v": step + 0.5, "w": step / 2}) for step in range(5)),
        *(line("num", {"k": "y"}, 2 * WEEK_S + 10 * step, {"v": float(step)}) for step in range(3)),
    ]


def extremes() -> list[str]:
    """Numbers at the edges of their types, and times far before and after today."""
    large = 2**53 + 1
    integers = (large, -large, 2**63 - 1, -(2**63), 0, large + 1, 1234567890123456789)
    floats = (1e300, -1e300, 1e-300, 1e21, 123456789.12345679, 0.1, 9007199254740993.0)
    lines = [line("big", {"k": "x"}, second, {"i": integers[second], "f": floats[second]}) for second in range(7)]
    lines += [line("neg", {"k": "x"}, -second, {"f": float(second), "i": -second}) for second in range(1, 12000, 900)]
    lines += [line("neg", {"k": "y"}, -second - 3, {"f": second / 8}) for second in range(0, 3 * WEEK_S, WEEK_S // 2)]
    lines += [line("far", {}, -2_208_988_800, {"v": 1900}), line("far", {}, 4_102_444_800, {"v": 2100})]
    return [*lines, line("fine", {}, 1, {"v": 1}, 1), line("fine", {}, 1, {"v": 2}, 999), line("fine", {}, 1, {"v": 3})]


def equal_times() -> list[str]:
    """Four series with points at the same seconds: ties of values and of times."""
    lines = []
    for second in range(6):
        for number in range(4):
            fields: dict[str, Value] = {"x": (second * number) % 4, "y": float(second // 2), "s": "pqrs"[number]}
            lines.append(line("ties", {"t": str(number), "u": "ab"[number % 2]}, second, fields))
    return lines


ODD_TEXTS = (
    "",
    " ",
    "a b",
    'quo"ted',
    "back\\slash",
    "<tag> & more",
    "é ü 日本 🙂",
    "tab\there",
    "new\nline",
    "it's",
    "{}",
)


def odd_names() -> list[str]:
    """Strings, names and tags that need quoting somewhere on their way."""
    lines = [line("odd", {"k": str(number % 2)}, number, {"s": text}) for number, text in enumerate(ODD_TEXTS)]
    lines += [
        line("two words", {"tag key": "tag value", "comma,": "a,b"}, 1, {"field key": 1, "eq=": 2.5}),
        line("two words", {"tag key": "ü", "comma,": "="}, 2, {"field key": 2}),
        line("select", {"from": "where", "time.": "x"}, 1, {"group": 1, "by": 2.0}),
        line("m.dot", {"a.b": "c.d"}, 1, {"v.w": 1}),
        line('q"uote', {'t"ag': 'v"al'}, 1, {'f"ield': 1}),
        line("<html>", {"amp": "&"}, 1, {"v<": "<b>"}),
        line("日本", {"国": "東京"}, 1, {"値": 5}),
        line("back\\slash", {"b\\s": "v\\w"}, 1, {"f\\g": 1}),
    ]
    return lines


def summer_time() -> list[str]:
    """Every half hour around both changes of the clocks of 2018 in Europe and of America's of 2018-03-11."""
    starts_s = (1_520_722_800, 1_521_929_400, 1_540_677_600)
    return [
        line("dst", {"k": "x"}, start_s + 1800 * step, {"v": step, "f": step / 4})
        for start_s in starts_s
        for step in range(60)
    ]


def sequences() -> list[str]:
    """A regular sequence for transformations and forecasts, with a season of four, and one with resets and gaps."""
    lines = []
    for step in range(32):
        lines.append(line("seq", {"k": "x"}, 60 * step, {"v": 3 * step + (0, 5, 2, 9)[step % 4], "f": step * 1.5 - 7}))
    for step, value in enumerate((1, 4, 9, 2, 3, 8, 8, 0, 5, 11)):
        gap_s = 0 if step < 4 else 130
        lines.append(line("steps", {"k": "xy"[step % 2]}, 20 * step + gap_s, {"n": value, "g": value / 8}))
    return lines


def random_hour() -> list[str]:
    """Two hundred points of four hosts with unique times."""
    rng = random.Random(1)
    lines = []
    for moment in rng.sample(range(3600 * 8), 200):
        tags = {"host": rng.choice(("h1", "h2", "h3", "h4"))}
        if rng.random() < 0.8:
            tags["rack"] = rng.choice(("r1", "r2"))
        fields: dict[str, Value] = {}
        if rng.random() < 0.8:
            fields["load"] = rng.uniform(-50, 50)
        if rng.random() < 0.6:
            fields["jobs"] = rng.randrange(-5, 20)
        if rng.random() < 0.3 or not fields:
            fields["state"] = rng.choice(("up", "down"))
        if rng.random() < 0.3:
            fields["ok"] = rng.random() < 0.5
        lines.append(line("sys", tags, moment / 8, fields))
    return lines


def overwritten() -> tuple[list[str], list[str]]:
    """Points that are written twice: the second request goes back in time, adds fields and replaces others."""
    first = [line("dup", {"k": "x"}, second, {"v": second, "w": 1.5}) for second in range(10)]
    second_time = [line("dup", {"k": "x"}, second, {"v": -second, "z": "new"}) for second in range(8, 0, -2)]
    return [*first, line("dup", {"k": "x"}, 3, {"v": 30})], [*second_time, line("dup", {"k": "x"}, 0.5, {"v": 5})]


def policies() -> list[Body]:
    """Points of another retention policy and of another database, some under the same names."""
    long = [line("cpu", {"host": "a"}, second, {"f": 100.0 + second, "i": second}) for second in range(0, 50, 10)]
    long += [line("archive", {"host": "a"}, 7 * WEEK_S * step, {"v": step}) for step in range(4)]
    long += [line("num", {"k": "x"}, 10 * step + 5, {"v": step, "w": step / 4}) for step in range(5)]
    other = [line("cpu", {"host": "e"}, second, {"f": -float(second)}) for second in range(0, 30, 10)]
    return [Body("d", "long", tuple(long)), Body("e", "", tuple(other))]


def bodies() -> list[Body]:
    """All write requests, in the order in which they are to be sent."""
    first, again = overwritten()
    rng = random.Random(3)
    lines = [
        *(cpu() + small_ones() + two_types() + extremes() + equal_times()),
        *(odd_names() + summer_time() + sequences() + random_hour() + first),
    ]
    rng.shuffle(lines)
    return [
        Body("d", "", tuple(lines[0::2])),
        Body("d", "", tuple(lines[1::2])),
        Body("d", "", tuple(again)),
        *policies(),
    ]
