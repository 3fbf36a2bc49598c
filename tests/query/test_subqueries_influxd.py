"""Statements with subqueries beside the InfluxDB 1.x that Debian ships: a table, and random ones."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.query.influx_reference import same_json
from tests.query.nested_statements import Statements
from tests.query.query_engine import json_answer
from tests.query.sample_data import ROWS, random_rows
from tests.query.test_query_influxd import cluster
from tests.reference.influxd import Influxd, needs_influxd

STATEMENTS = [
    line
    for line in (Path(__file__).parent / "statements_nested.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
SEEDS = range(4)
OF_A_SEED = 25

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd]


def test_the_table_answers_like_influxd(reference: Influxd) -> None:
    shards = cluster(ROWS)
    different = []
    for statement in STATEMENTS:
        ours = json_answer(statement, shards, time.time_ns())
        theirs = reference.query(statement, db="d").body.decode()
        if not same_json(ours, theirs):
            different.append(f"{statement}\nours:   {ours}theirs: {theirs}")
    assert len(STATEMENTS) > 200
    assert not different, "\n".join(different[:10])


@pytest.mark.parametrize("seed", SEEDS)
def test_random_statements_answer_like_influxd(random_reference: Influxd, seed: int) -> None:
    shards = cluster(random_rows(1))
    statements = Statements(seed)
    some = 0
    for _ in range(OF_A_SEED):
        statement = statements.statement()
        ours = json_answer(statement, shards, time.time_ns())
        theirs = random_reference.query(statement, db="d").body.decode()
        assert same_json(ours, theirs), f"\n{statement}\nours:   {ours[:2000]}\ntheirs: {theirs[:2000]}"
        some += "series" in ours
    assert some > OF_A_SEED // 2
