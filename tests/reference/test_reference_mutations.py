"""Statements that change something, each sequence in a database of its own on both servers."""

from __future__ import annotations

import pytest

from tests.reference.compare import difference
from tests.reference.dataset import Body
from tests.reference.influxd import needs_influxd
from tests.reference.intended_table import explained
from tests.reference.notation import MUTATIONS, Rule, read
from tests.reference.pair import Pair

SEQUENCES = [rule for path in sorted(MUTATIONS.glob("*.txt")) for rule in read(path, sequence=True)]

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd, pytest.mark.xdist_group("reference")]


def write(pair: Pair, body: Body) -> str:
    """Where the answers to a write part."""
    ours, theirs = pair.ours.try_write(body), pair.theirs.try_write(body)
    return difference(ours, theirs)


@pytest.mark.parametrize("rule", SEQUENCES, ids=lambda rule: rule.id)
def test_a_sequence_leaves_the_same_behind(pair: Pair, rule: Rule) -> None:
    database = f"mutated_{SEQUENCES.index(rule)}"
    setup = f"create database {database}"
    assert pair.difference(setup) == ""
    report = []
    for step in rule.statements:
        text = step.replace("@db", database)
        if text.startswith("> "):
            found = write(pair, Body(database, "", (text[2:],)))
        else:
            ours, theirs = pair.ask(text, db=database)
            found = "" if explained(text, ours, theirs) else difference(ours, theirs)
        if found:
            report.append(f"{text}\n    {found}")
    assert pair.difference(f"drop database {database}") == ""
    assert not report, f"{len(report)} of {len(rule.statements)} differ:\n" + "\n".join(report)
