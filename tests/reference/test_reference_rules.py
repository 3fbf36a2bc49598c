"""Every statement of the tables is answered as InfluxDB answers it, rule by rule."""

from __future__ import annotations

import pytest

from tests.reference.influxd import needs_influxd
from tests.reference.notation import RULES, Rule, tables
from tests.reference.pair import Pair

LEAST_STATEMENTS = 1500
MOST_OF_A_RULE = 24
"""``python -m tests.reference`` asks all statements of a rule."""
TABLES = tables()

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd, pytest.mark.xdist_group("reference")]


@pytest.mark.parametrize("rule", TABLES, ids=lambda rule: rule.id)
def test_answers_keep_the_rule(pair: Pair, rule: Rule) -> None:
    found = {statement: pair.difference(statement, **rule.parameters) for statement in rule.sample(MOST_OF_A_RULE)}
    report = [f"{statement}\n    {difference}" for statement, difference in found.items() if difference]
    assert not report, f"{len(report)} of {len(found)} differ:\n" + "\n".join(report)


def test_the_tables_are_as_many_as_promised_and_named_by_their_files() -> None:
    assert sum(len(rule.sample(MOST_OF_A_RULE)) for rule in TABLES) >= LEAST_STATEMENTS
    assert {rule.file for rule in TABLES} == {path.stem for path in RULES.glob("*.txt")}
    assert len({rule.id for rule in TABLES}) == len(TABLES)
