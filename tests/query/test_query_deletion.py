"""What a deletion is about: measurements, tags and times; what it is never guessed from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.errors import RequestError
from dsdbd.model.predicate import EVERY_SERIES, TagEquals, TagMatches, matches
from dsdbd.model.series import Series
from dsdbd.query import MAX_NS, MIN_NS, Deletion, deletions
from tests.query.query_engine import parse_one

FIELDS = {"cpu": {"v"}, "mem": {"host"}, "net": {"w"}}
NOW_NS = 1_000
FIELDS_REFUSED = "fields not supported in WHERE clause during deletion"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DELETE FROM cpu", [Deletion("cpu", None, MIN_NS, MAX_NS)]),
        ("DELETE FROM nosuch WHERE v = 1", []),
        ("DELETE FROM cpu WHERE time > 5 AND time < 3", []),
        ("DELETE FROM cpu WHERE time >= 5 AND time < now()", [Deletion("cpu", None, 5, 999)]),
        ("DELETE FROM cpu WHERE host = 'a' AND true", [Deletion("cpu", TagEquals("host", "a"), MIN_NS, MAX_NS)]),
        ("DELETE FROM cpu WHERE 'a' != host OR false", [Deletion("cpu", TagEquals("host", "a", True), MIN_NS, MAX_NS)]),
        ("DELETE FROM cpu WHERE host = 'a' OR true", [Deletion("cpu", None, MIN_NS, MAX_NS)]),
        ("DELETE WHERE _name =~ /^c/", [Deletion("cpu", None, MIN_NS, MAX_NS)]),
        ("DELETE FROM mem WHERE host::tag = 'a'", [Deletion("mem", TagEquals("host", "a"), MIN_NS, MAX_NS)]),
        ("DROP SERIES FROM /net|x/ WHERE a !~ /b/", [Deletion("net", TagMatches("a", "b", True), MIN_NS, MAX_NS)]),
    ],
)
def test_a_statement_says_what_is_deleted(text: str, expected: list[Deletion]) -> None:
    assert deletions(parse_one(text), FIELDS, NOW_NS) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("DELETE FROM cpu WHERE v = 'a'", FIELDS_REFUSED),
        ("DELETE WHERE host = 'a'", FIELDS_REFUSED),
        ("DELETE FROM cpu WHERE host = 3", FIELDS_REFUSED),
        ("DELETE FROM cpu WHERE host != 3", FIELDS_REFUSED),
        ("DELETE FROM cpu WHERE host::field = 'a'", FIELDS_REFUSED),
        ("DELETE FROM cpu WHERE host > 'a'", "invalid tag comparison operator"),
        ("DELETE FROM cpu WHERE host = region", "invalid tag comparison operator"),
        ("DELETE FROM cpu WHERE _tagKey != 'x'", "_tagKey is not supported"),
        ("DROP SERIES FROM cpu WHERE time > 5", "DROP SERIES doesn't support time in WHERE clause"),
    ],
)
def test_what_is_no_tag_is_refused(text: str, error: str) -> None:
    with pytest.raises(RequestError, match=error.replace("(", r"\(")):
        deletions(parse_one(text), FIELDS, NOW_NS)


atoms = st.sampled_from(
    ["host = 'a'", "host != 'a'", "zone =~ /a|b/", "zone !~ /a/", "host = ''", "_name = 'cpu'", "true", "false"]
)
conditions = st.recursive(
    atoms, lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda p: f"({' '.join(p)})")
)


@given(conditions, st.sampled_from(["", "a", "b"]), st.sampled_from(["", "a", "c"]))
def test_a_series_is_deleted_when_the_condition_holds(condition: str, host: str, zone: str) -> None:
    series = Series("cpu", tuple((key, text) for key, text in (("host", host), ("zone", zone)) if text))
    plain = (
        condition.replace("host = 'a'", str(host == "a"))
        .replace("host != 'a'", str(host != "a"))
        .replace("host = ''", str(host == ""))
        .replace("zone =~ /a|b/", str(zone == "a"))
        .replace("zone !~ /a/", str(zone != "a"))
        .replace("_name = 'cpu'", "True")
        .replace("true", "True")
        .replace("false", "False")
    )
    wanted = holds(plain)
    found = deletions(parse_one(f"DELETE FROM cpu WHERE {condition}"), FIELDS, NOW_NS)
    assert wanted == any(matches(one.predicate or EVERY_SERIES, series) for one in found)


def holds(text: str) -> bool:
    """Value of True and False joined by AND and OR, each pair in parentheses."""
    while "(" in text:
        for op, function in (("AND", all), ("OR", any)):
            for left in (True, False):
                for right in (True, False):
                    text = text.replace(f"({left} {op} {right})", str(function((left, right))))
    return text == "True"
