"""A plan that is bound to other strings is the plan that the other text gets by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.influxql import ast, parse
from dsdbd.influxql.lexer import Lexer
from dsdbd.influxql.shapes import has_plain_literals, shape_of
from dsdbd.model.types import FieldType
from dsdbd.query import MeasurementSchema, Prepared, SelectPlan, normalise, plan_select, prepare

NOW_NS = 1_700_000_000_000_000_000
SCHEMA = MeasurementSchema(
    {"v": FieldType.FLOAT, "n": FieldType.INTEGER, "s": FieldType.STRING}, frozenset({"host", "region"})
)
PLACE = ("db", "autogen")
TIMES = ("2023-11-01T00:00:00Z", "2023-11-01T01:00:00.5Z", "2023-11-02", "2023-11-01 12:00:00", "2023-11-03T00:00:00Z")
LEAVES = (
    "host = '{t}'",
    "host != '{t}'",
    "region::tag = '{t}'",
    "host =~ re",
    "v > 5",
    "n = 3 AND v < 7.5",
    "time >= '{m}'",
    "time < '{m}'",
    "'{m}' <= time",
    "time > '{m}' - 1h",
    "time > now() - 1h",
    "time < 1700000000000ms",
    "true",
)
HEADS = (
    "SELECT v FROM m",
    "SELECT mean(v), max(n) FROM m",
    "SELECT * FROM m",
    "SELECT derivative(mean(v), 1s) FROM m",
    "SELECT last(v), host FROM m",
)
DASHBOARD = "SELECT max(v) FROM m WHERE"
WINDOWS = (" GROUP BY time(10m)", " GROUP BY time(1h), host fill(none)")
OTHERS = ("", " GROUP BY host LIMIT 3", " ORDER BY time DESC")


def planned(text: str) -> tuple[ast.Select, SelectPlan]:
    (statement,) = parse(text)
    assert isinstance(statement, ast.Select)
    named = normalise(statement, "db", lambda _: "autogen")
    return named, plan_select(named, {PLACE: {"m": SCHEMA}}, NOW_NS)


def prepared(text: str) -> Prepared | None:
    select, plan = planned(text)
    return prepare(select, plan, SCHEMA, shape_of(text)[1], NOW_NS) if has_plain_literals(text) else None


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """Two texts that differ in strings only, both of which can be planned."""
    leaves = draw(st.lists(st.sampled_from([leaf for leaf in LEAVES if "re" not in leaf]), min_size=1, max_size=5))
    joins = draw(st.lists(st.sampled_from([" AND ", " OR "]), min_size=len(leaves), max_size=len(leaves)))
    texts = []
    head = draw(st.sampled_from(HEADS))
    allowed = WINDOWS if "derivative" in head else WINDOWS + OTHERS if "mean" in head else OTHERS
    tail = draw(st.sampled_from(allowed))
    for _ in range(2):
        filled = [
            leaf.replace("{t}", draw(st.sampled_from(["a", "b", "", "x y", "ä", '"']))).replace(
                "{m}", draw(st.sampled_from(TIMES))
            )
            for leaf in leaves
        ]
        where = "".join(part for pair in zip(filled, joins, strict=True) for part in pair)
        texts.append(f"{head} WHERE ({where[: -len(joins[-1])]}){tail}")
    return texts[0], texts[1]


@given(pairs())
def test_binding_gives_the_plan_of_the_other_text(texts: tuple[str, str]) -> None:
    first, second = texts
    assert shape_of(first)[0] == shape_of(second)[0]
    known = prepared(first)
    if known is not None:
        assert known.bind(shape_of(second)[1], NOW_NS) == planned(second)[1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            f"{DASHBOARD} (host = 'a' or host='b') and time >= '2023-11-01' and time < '2023-11-02' GROUP BY time(9m)",
            f"{DASHBOARD} (host = 'x' or host='') and time >= '2023-11-05' and time < '2023-11-06' GROUP BY time(9m)",
        ),
        ("SELECT v FROM m WHERE host = 'a'", "SELECT v FROM m WHERE host = 'b'"),
        ("SELECT mean(v) FROM m WHERE time > now() - 1h GROUP BY time(1m)",) * 2,
        ("SELECT v FROM m",) * 2,
    ],
)
def test_statements_of_dashboards_are_prepared(first: str, second: str) -> None:
    known = prepared(first)
    assert known is not None
    assert known.bind(shape_of(second)[1], NOW_NS) == planned(second)[1]


def test_now_is_that_of_the_binding() -> None:
    text = "SELECT mean(v) FROM m WHERE time > now() - 1h GROUP BY time(1m)"
    known = prepared(text)
    assert known is not None
    later = known.bind((), NOW_NS + 10**9)
    assert later is not None
    assert (later.min_ns, later.max_ns) == (NOW_NS - 3_599 * 10**9 + 1, NOW_NS + 10**9)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT v FROM m WHERE s = 'a'",
        "SELECT v FROM m WHERE host = 'a' OR s = 'b'",
        "SELECT v FROM m WHERE 'a' = 'a'",
        "SELECT v FROM m WHERE host > 'a'",
        "SELECT v FROM m WHERE 'a' = host",
        "SELECT v FROM /m/ WHERE host = 'a'",
        "SELECT sample(v, 2) FROM m WHERE host = 'a'",
        "SELECT v FROM m WHERE host = 'a' -- 'b'",
        r"SELECT v FROM m WHERE host = 'a\'b'",
        "SELECT v FROM m WHERE time > '2023-11-01' TZ('Europe/Berlin')",
        "SELECT v FROM nothing WHERE host = 'a'",
    ],
)
def test_strings_that_mean_more_are_not_prepared(text: str) -> None:
    assert prepared(text) is None


@pytest.mark.parametrize("value", ["tomorrow", "2023-13-01", "", "9999-01-01"])
def test_what_is_no_time_is_left_to_the_planner(value: str) -> None:
    known = prepared("SELECT v FROM m WHERE time > '2023-11-01'")
    assert known is not None
    assert known.bind((value,), NOW_NS) is None


def kinds(text: str) -> list[tuple[str, str]]:
    lexer, found = Lexer(text), []
    while True:
        token = lexer.scan()
        found.append((token.kind, "" if token.kind == "STRING" else token.text))
        if token.kind in ("EOF", "BADSTRING", "BADESCAPE"):
            return found


words = st.lists(st.sampled_from(["'", '"', "a", " ", "\\", "\n", "/", "--", "/*", "=", "1", "$", "\r"]), max_size=12)
inner = st.text('ab 1="/-*$é', max_size=4)


@given(words.map("".join), st.lists(inner, max_size=12))
def test_texts_of_one_shape_have_the_same_tokens(text: str, values: list[str]) -> None:
    shape, given_values = shape_of(text)
    if not has_plain_literals(text) or len(values) < len(given_values):
        return
    parts = shape.split("''")
    other = parts[0] + "".join(f"'{value}'{part}" for value, part in zip(values, parts[1:], strict=False))
    assert shape_of(other)[0] == shape
    assert kinds(other) == kinds(text)
