"""The list of intended differences is the one of the documentation, and each is still a difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.compare import same_answer
from tests.reference.influxd import needs_influxd
from tests.reference.intended import Intended, rows_of_the_document
from tests.reference.intended_table import INTENDED
from tests.reference.pair import Pair

REPOSITORY = Path(__file__).parents[2]
ASKED = [entry for entry in INTENDED if entry.example]


def test_the_document_has_a_row_for_each_entry_and_an_entry_for_each_row() -> None:
    assert sorted(rows_of_the_document()) == sorted(entry.row for entry in INTENDED)


def test_what_is_not_asked_here_is_proved_elsewhere() -> None:
    for entry in INTENDED:
        assert bool(entry.example) != bool(entry.proof), entry.row
        assert not entry.proof or (REPOSITORY / entry.proof).exists(), entry.proof


@pytest.mark.slow
@pytest.mark.debian
@needs_influxd
@pytest.mark.xdist_group("reference")
@pytest.mark.parametrize("entry", ASKED, ids=lambda entry: entry.row)
def test_what_is_listed_really_differs(pair: Pair, entry: Intended) -> None:
    ours, theirs = pair.ask(entry.example, **entry.parameters)
    assert not same_answer(ours, theirs), f"{entry.example} is answered the same: take the row out"
    assert entry.accepts(entry.example, ours, theirs), f"{ours.body[:500]!r}\n{theirs.body[:500]!r}"
