from __future__ import annotations

import pytest

from dsdbd.errors import QueryParseError
from dsdbd.influxql import parse, repeated, to_text
from dsdbd.influxql.parser import parse as parse_anew
from dsdbd.limits import MAX_KEPT_QUERIES, MAX_KEPT_QUERY_CHARS


def test_a_repeated_text_gives_the_same_statements() -> None:
    text = "SELECT max(a) FROM repeated WHERE time > now() - 1h; SHOW TAG KEYS FROM repeated"
    first = parse(text)
    assert parse(text) is first
    assert first == parse_anew(text)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE USER u WITH PASSWORD 'p'",
        "SET PASSWORD FOR u = 'p'; SELECT a FROM m",
        "CREATE SUBSCRIPTION s ON d.r DESTINATIONS ALL 'http://u:p@h'",
        "SELECT a FROM m WHERE b = '" + "x" * MAX_KEPT_QUERY_CHARS + "'",
    ],
)
def test_passwords_and_long_texts_are_not_kept(text: str) -> None:
    assert parse(text) == parse(text)
    assert parse(text) is not parse(text)


def test_errors_are_raised_each_time() -> None:
    for _ in range(2):
        with pytest.raises(QueryParseError, match="found EOF, expected FROM at line 1, char 10"):
            parse("SELECT a")


def test_bound_parameters_are_part_of_what_is_remembered() -> None:
    text = "SELECT a FROM repeated WHERE b = $x"
    values: list[object] = [1, 1.0, True, "1", -0.0, 0.0, {"string": "1"}, {"integer": 1.0}, {"float": 1}]
    for _ in range(2):
        for value in values:
            bound: dict[str, object] = {"x": value}
            assert parse(text, bound) == parse_anew(text, bound)
            assert to_text(parse(text, bound)[0]) == to_text(parse_anew(text, bound)[0])
            assert parse(text, bound) is parse(text, dict(bound))
    long: dict[str, object] = {"x": "y" * MAX_KEPT_QUERY_CHARS}
    assert parse(text, long) is not parse(text, long)
    with pytest.raises(QueryParseError, match="missing parameter: x"):
        parse(text)
    with pytest.raises(QueryParseError, match="unable to bind parameter with type list"):
        parse(text, {"x": []})


def test_the_texts_asked_for_last_are_kept_and_no_more() -> None:
    often = "SELECT often FROM repeated"
    first = parse(often)
    for number in range(2 * MAX_KEPT_QUERIES):
        parse(f"SELECT a FROM repeated LIMIT {number}")
        assert parse(often) is first
    assert len(repeated._kept) == MAX_KEPT_QUERIES
    oldest = "SELECT a FROM repeated LIMIT 0"
    assert parse(oldest) == parse_anew(oldest)
