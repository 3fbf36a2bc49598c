"""Points for comparisons with influxd: few enough to reason about, with gaps, ties, blanks and all four types."""

from __future__ import annotations

import random

from tests.query.query_engine import Row

S = 1_000_000_000
A = (("host", "a"), ("region", "eu"))
B = (("host", "b"), ("region", "us"))
C = (("host", "c"),)

ROWS = [
    Row("cpu", A, 1 * S, (("v", 1.0), ("i", 1), ("s", "x"), ("b", True))),
    Row("cpu", A, 2 * S, (("v", 2.5), ("i", 2))),
    Row("cpu", B, 1 * S + 1, (("v", 3.0), ("i", 5), ("s", "y"), ("b", False))),
    Row("cpu", B, 11 * S, (("v", 4.0),)),
    Row("cpu", A, 12 * S, (("v", 2.5), ("s", "x"))),
    Row("cpu", C, 25 * S, (("i", 7), ("b", True))),
    Row("cpu", B, 26 * S, (("v", 0.75), ("i", -3), ("s", "z z"))),
    Row("cpu", A, 41 * S, (("v", 8.125), ("i", 2), ("b", False))),
    Row("mem", (("host", "a"),), 3 * S, (("used", 5), ("v", 7))),
    Row("mem", (), 4 * S, (("used", 6),)),
    Row("mem", (), 14 * S, (("used", 9), ("v", 2))),
]


def random_rows(seed: int, count: int = 600) -> list[Row]:
    """Points with unique times, so that no order depends on chance."""
    rng = random.Random(seed)
    times = rng.sample(range(0, 3600 * S, S // 8), count)
    rows = []
    for time_ns in times:
        tags = [("host", rng.choice(("h1", "h2", "h3", "h4")))]
        if rng.random() < 0.8:
            tags.append(("rack", rng.choice(("r1", "r2"))))
        fields: list[tuple[str, float | int | str | bool]] = []
        if rng.random() < 0.8:
            fields.append(("load", rng.uniform(-50, 50)))
        if rng.random() < 0.6:
            fields.append(("jobs", rng.randrange(-5, 20)))
        if rng.random() < 0.3 or not fields:
            fields.append(("state", rng.choice(("up", "down", '<odd & "quoted">'))))
        if rng.random() < 0.3:
            fields.append(("ok", rng.random() < 0.5))
        rows.append(Row("sys", tuple(tags), time_ns, tuple(fields)))
    return rows
