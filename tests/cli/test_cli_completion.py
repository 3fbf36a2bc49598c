"""What TAB offers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdb_cli.completion import MAX_NAMES, Names, complete

NAMES = Names(databases=["mydb", "my db", "select"], measurements=["cpu", "cpu load", "mem"])


@pytest.mark.parametrize(
    ("text", "candidates", "replaces"),
    [
        ("us", ("use",), 2),
        ("SE", ("settings", "SELECT", "SET"), 2),
        ("sel", ("select",), 3),
        ("format ", ("json", "csv", "column"), 0),
        ("format c", ("csv", "column"), 1),
        ("format csv ", (), 0),
        ("precision m", ("m", "ms"), 1),
        ("consistency q", ("quorum",), 1),
        ("use ", ("mydb", '"my db"', '"select"'), 0),
        ('use "my', ('"mydb"', '"my db"'), 3),
        ("SHOW SERIES ON my", ("mydb", '"my db"'), 2),
        ("DROP DATABASE m", ("mydb", '"my db"'), 1),
        ("SELECT * FROM c", ("cpu", '"cpu load"'), 1),
        ("DROP MEASUREMENT m", ("mem",), 1),
        ("insert c", ("cpu", '"cpu load"'), 1),
        ("insert i", ("into",), 1),
        ("SELECT * FR", ("FROM",), 2),
        ("select * fr", ("from",), 2),
        ("SELECT * FROM cpu WH", ("WHERE",), 2),
        ("SHOW SERVER", ("SERVER", "SERVERS"), 6),
    ],
)
def test_candidates(text: str, candidates: tuple[str, ...], replaces: int) -> None:
    found = complete(text, NAMES)
    assert (found.candidates, found.replaces) == (candidates, replaces)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_every_text_has_an_answer_that_fits_it(text: str) -> None:
    found = complete(text, NAMES)
    assert 0 <= found.replaces <= len(text)
    typed = text[len(text) - found.replaces :].lower().removeprefix('"')
    for candidate in found.candidates:
        assert candidate.lower().removeprefix('"').startswith(typed)


def test_names_are_bounded() -> None:
    many = Names(databases=[f"d{number}" for number in range(3 * MAX_NAMES)])
    assert len(complete("use ", many).candidates) == MAX_NAMES
