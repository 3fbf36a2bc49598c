"""Functions of many points, forecasts, averages and time zones beside the InfluxDB 1.x that Debian ships."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.query.influx_reference import filled_influxd, same_json
from tests.query.query_engine import MemoryShard, Row, json_answer
from tests.query.sample_data import ROWS, S, random_rows
from tests.reference.influxd import Influxd, needs_influxd

STATEMENTS = [
    line
    for line in (Path(__file__).parent / "functions.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
SPRING_AND_AUTUMN_S = (1_540_504_800, 1_541_120_400, 1_553_810_400, 1_554_386_400)
"""Days around changes of clocks: Berlin and New York in 2018, Berlin and Lord Howe Island in 2019."""
CLOCK_ROWS = [
    Row("dst", (("host", "ab"[place % 2]),), (start_s + place * 1500) * S, (("v", float(place % 7)),))
    for start_s in SPRING_AND_AUTUMN_S
    for place in range(0, 200, 1 if start_s < 1_550_000_000 else 3)
]
POINTS = ROWS + random_rows(1) + CLOCK_ROWS

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd]


def cluster() -> list[list[MemoryShard]]:
    """The points on two nodes, dealt out to shards of several times."""
    cuts_ns = (12 * S, 1800 * S, 1_550_000_000 * S)
    bounds = list(zip((-(2**63), *cuts_ns), (*cuts_ns, 2**63 - 1), strict=True))
    shards = [
        MemoryShard([row for row in POINTS if low <= row.time_ns < high], number, low, high)
        for number, (low, high) in enumerate(bounds)
    ]
    return [shards[::2], shards[1::2]]


NODES = cluster()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with filled_influxd(tmp_path_factory.mktemp("influxd"), POINTS) as server:
        yield server


@pytest.mark.parametrize("statement", STATEMENTS)
def test_functions_answer_like_influxd(reference: Influxd, statement: str) -> None:
    ours = json_answer(statement, NODES, time.time_ns())
    theirs = reference.query(statement, db="d").body.decode()
    assert same_json(ours, theirs), f"\nours:   {ours[:3000]}\ntheirs: {theirs[:3000]}"
