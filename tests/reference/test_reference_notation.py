"""What the tables and the generator are made with: the notation, the comparison, the shortening of statements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsdbd.errors import QueryParseError
from dsdbd.influxql import parse
from tests.cluster.daemons import Answer
from tests.reference.compare import difference, same
from tests.reference.generator import shrink, statements
from tests.reference.notation import expand, read, tables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("{a|b}", ["a", "b"]),
        ("x {a|b}{1|2}", ["x a1", "x a2", "x b1", "x b2"]),
        ("{a|{b|c} d|}", ["a", "b d", "c d", ""]),
        (r"/a{2}|b/ {/x\|y/|z}", ["/a{2}|b/ /x|y/", "/a{2}|b/ z"]),
        ("{open|", ["{open|"]),
    ],
)
def test_braces_stand_for_every_combination(text: str, expected: list[str]) -> None:
    assert list(expand(text)) == expected


def test_a_file_is_read_rule_by_rule(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text(
        "@all = {f|i}\n# one\nselect @all  from m\nselect f from m\n\n# two\n: epoch=s db=e\n> m f=1\n> m f=1\n"
    )
    one, two = read(path)
    assert (one.id, one.parameters, one.statements) == ("some: one", {}, ("select f from m", "select i from m"))
    assert (two.parameters, two.statements) == ({"epoch": "s", "db": "e"}, ("> m f=1",))
    assert read(path, sequence=True)[1].statements == ("> m f=1", "> m f=1")
    assert one.sample(1) == ("select f from m",)


def test_only_the_last_digits_of_floats_may_differ() -> None:
    assert same({"a": [0.1 + 0.2]}, {"a": [0.3]})
    assert same(235385266837019970, 235385266837020000)
    assert not same(2**53 + 1, 2**53 + 3)
    assert not same(1, True)
    assert not same([1.0, None], [1.0, 0])
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same(1.0, 1.001)


def test_a_difference_is_found_by_its_place() -> None:
    one, other = (Answer(200, {}, json.dumps({"results": [{"v": [1, value]}]}).encode()) for value in (2, 3))
    assert difference(one, one) == ""
    assert difference(one, other) == "[0].results[0].v[1]: ours 2 theirs 3"
    assert difference(one, Answer(400, {}, b"{}")).startswith("status 200")
    # What InfluxDB calls only by its text has a code here.
    coded = Answer(400, {}, b'{"error":"no","code":"c"}\n')
    assert difference(coded, Answer(400, {}, b'{"error":"no"}\n')) == ""


def test_a_seed_gives_the_same_statements_and_most_of_them_parse() -> None:
    made = statements(7, 500)
    assert made == statements(7, 500) != statements(8, 500)
    parsed = 0
    for statement in made:
        try:
            parse(statement)
        except QueryParseError:
            continue
        parsed += 1
    assert parsed > 450


def test_statements_are_shortened_to_what_differs() -> None:
    long = "select f, max(i) from cpu where host = 'a' and f > 1 group by time(1m), host limit 3"
    assert shrink(long, lambda text: "max" in text and "limit" in text) == "max limit"
    assert shrink(long, lambda _: False) == long


def test_no_statement_of_the_tables_stands_for_the_notation() -> None:
    left = [
        statement
        for rule in tables()
        for statement in rule.statements
        if "@" in statement and rule.file != "parse_errors"
    ]
    assert left == []
