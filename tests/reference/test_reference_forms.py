"""A sample of the tables in the other forms of an answer: CSV, times as numbers, indented, in chunks."""

from __future__ import annotations

import pytest

from tests.reference.compare import difference
from tests.reference.influxd import needs_influxd
from tests.reference.notation import tables
from tests.reference.pair import Pair

SLOW = frozenset({"forecasts"})
STATEMENTS = [statement for rule in tables(exclude=SLOW) if not rule.parameters for statement in rule.statements]
EVERY = 67
FORMS = [
    ("application/csv", {}),
    ("application/csv", {"epoch": "ms"}),
    ("text/csv", {"chunked": "true", "chunk_size": "3"}),
    *(("application/json", {"epoch": epoch}) for epoch in ("ns", "u", "ms", "s", "m", "h")),
    ("application/json", {"pretty": "true"}),
    ("application/json", {"chunked": "true", "chunk_size": "2"}),
    ("application/json", {"chunked": "true", "chunk_size": "7", "epoch": "s"}),
]

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd, pytest.mark.xdist_group("reference")]


@pytest.mark.parametrize("number", range(len(FORMS)), ids=lambda number: f"{FORMS[number]}")
def test_answers_are_the_same_in_every_form(pair: Pair, number: int) -> None:
    accept, parameters = FORMS[number]
    # What is meant to differ, or is answered in another order, is looked at in JSON.
    sample = [statement for statement in STATEMENTS[number::EVERY] if not difference(*pair.ask(statement))]
    assert len(sample) > 50
    found = {statement: pair.difference(statement, accept, **parameters) for statement in sample}
    report = [f"{statement}\n    {where}" for statement, where in found.items() if where]
    assert not report, f"{len(report)} of {len(found)} differ:\n" + "\n".join(report)
