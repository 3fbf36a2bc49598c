"""Answers of the engine beside those of the InfluxDB 1.x that Debian ships, statement by statement, as JSON text."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.query.influx_reference import same_json
from tests.query.query_engine import MemoryShard, Row, json_answer
from tests.query.sample_data import ROWS, S, random_rows
from tests.reference.influxd import Influxd, needs_influxd

STATEMENTS = [
    line
    for line in (Path(__file__).parent / "statements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
RANDOM_STATEMENTS = [
    f"select {fields} from sys where time >= 0 and time < 1h {rest}"
    for fields in (
        "mean(load), count(jobs), max(load), first(state)",
        "median(load), stddev(load), percentile(jobs, 75), spread(load)",
        "sum(load), min(jobs), last(ok), mean(jobs)",
    )
    for rest in (
        "",
        "group by host",
        "group by time(7m), host",
        "group by time(1m), rack fill(previous)",
        "group by time(90s, 11s), * fill(linear) order by time desc limit 20",
        "and (jobs > 3 or rack = 'r1') group by time(5m) fill(none)",
        "and state !~ /do/ group by host, rack",
    )
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.debian,
    needs_influxd,
]


def cluster(rows: list[Row]) -> list[list[MemoryShard]]:
    """The rows on two nodes, by series and by time, as shards of a cluster would hold them."""
    cut_ns = 12 * S
    early = [row for row in rows if row.time_ns < cut_ns]
    late = [row for row in rows if row.time_ns >= cut_ns]
    one = [row for row in late if row.tags[:1] <= (("host", "b"),)]
    other = [row for row in late if row not in one]
    return [
        [MemoryShard(early, 1, -(2**63), cut_ns), MemoryShard(one, 2, cut_ns, 2**63 - 1)],
        [MemoryShard(other, 3, cut_ns, 2**63 - 1)],
    ]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_answers_like_influxd(reference: Influxd, statement: str) -> None:
    ours, theirs = (
        json_answer(statement, cluster(ROWS), time.time_ns()),
        reference.query(statement, db="d").body.decode(),
    )
    assert same_json(ours, theirs), f"\nours:   {ours}\ntheirs: {theirs}"


@pytest.mark.parametrize("statement", RANDOM_STATEMENTS)
def test_answers_like_influxd_on_random_points(random_reference: Influxd, statement: str) -> None:
    ours = json_answer(statement, cluster(random_rows(1)), time.time_ns())
    theirs = random_reference.query(statement, db="d").body.decode()
    assert same_json(ours, theirs), f"\nours:   {ours[:3000]}\ntheirs: {theirs[:3000]}"
