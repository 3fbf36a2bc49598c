from __future__ import annotations

import contextlib
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import QueryParseError
from dsdbd.influxql import ast, ast_show, parse, to_text
from dsdbd.influxql.lexer import KEYWORDS
from dsdbd.influxql.parser_expr import PRECEDENCE
from tests.examples import examples
from tests.reference.notation import tables

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=8) | st.sampled_from(
    ["a", "host", "select", "time", "data", "x_1", 'q"q', "b\\", "n\nl"]
)
STRINGS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)
REGEXES = st.sampled_from(["a", "^x/y$", r"\d+", "(a|b)*", "é", "a\\\\/b", "[/]", r"\.", ""])
INTS = st.integers(-(2**63), 2**63 - 1)
COUNTS = st.integers(0, 2**63 - 1)
CALL_NAMES = st.sampled_from(["mean", "count", "top", "now", "x9"])
POSITIVE_NS = st.integers(1, 2**63 - 1)

LITERALS = st.one_of(
    INTS.map(ast.IntegerLiteral),
    st.integers(2**63, 2**64 - 1).map(ast.UnsignedLiteral),
    st.floats(allow_nan=False, allow_infinity=False).map(ast.NumberLiteral),
    STRINGS.map(ast.StringLiteral),
    st.booleans().map(ast.BooleanLiteral),
    st.integers(-(2**63) + 1, 2**63 - 1).map(ast.DurationLiteral),
)
VARS = st.builds(
    ast.VarRef,
    NAMES,
    st.sampled_from([None, "float", "integer", "unsigned", "string", "boolean", "field", "tag"]),
)


def binary(op: str, lhs: ast.Expr, rhs: ast.Expr) -> ast.Expr:
    """A tree as the parser builds it: parentheses wherever the text needs them."""

    def wrapped(side: ast.Expr, least: int) -> ast.Expr:
        weak = isinstance(side, ast.BinaryExpr) and PRECEDENCE[side.op] < least
        return ast.ParenExpr(side) if weak else side

    return ast.BinaryExpr(op, wrapped(lhs, PRECEDENCE[op]), wrapped(rhs, PRECEDENCE[op] + 1))


ARITHMETIC = st.recursive(
    LITERALS | VARS,
    lambda inner: st.one_of(
        st.builds(binary, st.sampled_from(list("+-*/%&|^")), inner, inner),
        st.builds(ast.ParenExpr, inner),
        st.builds(lambda name, args: ast.Call(name, tuple(args)), CALL_NAMES, st.lists(inner, max_size=3)),
    ),
    max_leaves=12,
)
COMPARISONS = st.builds(binary, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), ARITHMETIC, ARITHMETIC) | st.builds(
    ast.BinaryExpr, st.sampled_from(["=~", "!~"]), VARS, REGEXES.map(ast.RegexLiteral)
)
CONDITIONS = st.recursive(
    COMPARISONS, lambda inner: st.builds(binary, st.sampled_from(["AND", "OR"]), inner, inner), max_leaves=8
)
MEASUREMENTS = st.builds(ast.Measurement, NAMES, st.none(), st.none() | NAMES, st.none() | NAMES) | st.builds(
    ast.Measurement, st.just(""), REGEXES.map(ast.RegexLiteral), st.none(), st.none() | NAMES
)
SORTS = st.just(()) | st.builds(ast.SortField, st.sampled_from(["", "time"]), st.booleans()).map(lambda field: (field,))
FIELDS = st.builds(
    ast.Field,
    ARITHMETIC | REGEXES.map(ast.RegexLiteral) | st.sampled_from([ast.Wildcard(kind) for kind in ast.WildcardKind]),
    st.none() | NAMES,
)


def tuples(element: st.SearchStrategy, least: int = 0) -> st.SearchStrategy:
    return st.lists(element, min_size=least, max_size=3).map(tuple)


def selects(sources: st.SearchStrategy) -> st.SearchStrategy:
    fills = st.sampled_from([(kind, None) for kind in ast.FillKind if kind is not ast.FillKind.NUMBER]) | (
        INTS | st.floats(-1e20, 1e20)
    ).map(lambda value: (ast.FillKind.NUMBER, value))
    dimensions = VARS | REGEXES.map(ast.RegexLiteral) | st.just(ast.Call("time", (ast.DurationLiteral(60),)))
    return st.builds(
        lambda fill, **parts: ast.Select(fill=fill[0], fill_value=fill[1], **parts),
        fills,
        fields=tuples(FIELDS, 1),
        target=st.none() | st.builds(ast.Measurement, NAMES, st.none(), st.none() | NAMES, st.none() | NAMES),
        sources=tuples(sources, 1),
        condition=st.none() | CONDITIONS,
        dimensions=tuples(dimensions.filter(lambda node: getattr(node, "name", "").lower() != "fill")),
        sort=SORTS,
        limit=COUNTS,
        offset=COUNTS,
        slimit=COUNTS,
        soffset=COUNTS,
        timezone=st.sampled_from([None, "UTC", "Europe/Paris"]),
    )


SELECTS = selects(MEASUREMENTS | selects(MEASUREMENTS).map(ast.SubQuery))
KEYS = st.sampled_from(["=", "!="]).flatmap(
    lambda op: STRINGS.filter(bool).map(lambda key: (op, ast.StringLiteral(key)))
)
OPTIONAL_NAMES = st.none() | NAMES
OPTIONAL_CONDITIONS = st.none() | CONDITIONS
CARDINALITIES = {
    "exact": st.booleans(),
    "database": OPTIONAL_NAMES,
    "sources": tuples(MEASUREMENTS),
    "condition": OPTIONAL_CONDITIONS,
    "dimensions": tuples(VARS.filter(lambda node: node.name.lower() != "fill")),
    "limit": COUNTS,
    "offset": COUNTS,
}
PLAIN_MEASUREMENTS = st.builds(ast.Measurement, NAMES) | st.builds(
    ast.Measurement, st.just(""), REGEXES.map(ast.RegexLiteral)
)
OTHER_STATEMENTS = st.one_of(
    st.builds(ast.Delete, tuples(PLAIN_MEASUREMENTS, 1), OPTIONAL_CONDITIONS),
    st.builds(ast.DropSeries, tuples(PLAIN_MEASUREMENTS, 1), OPTIONAL_CONDITIONS),
    st.builds(ast.DropMeasurement, NAMES),
    st.builds(ast.DropDatabase, NAMES),
    st.builds(ast.DropRetentionPolicy, NAMES, NAMES),
    st.builds(ast.DropShard, st.integers(0, 2**63 - 1)),
    st.builds(ast.AlterRetentionPolicy, NAMES, NAMES, COUNTS, st.integers(1, 2**31 - 1), POSITIVE_NS, st.booleans()),
    st.builds(ast.DropUser, NAMES),
    st.builds(ast.GrantAdmin, NAMES),
    st.builds(ast.RevokeAdmin, NAMES),
    st.builds(ast.Revoke, st.sampled_from([ast.Privilege.READ, ast.Privilege.WRITE, ast.Privilege.ALL]), NAMES, NAMES),
    st.builds(ast.DropContinuousQuery, NAMES, NAMES),
    st.builds(ast.DropSubscription, NAMES, NAMES, NAMES),
    st.builds(ast.KillQuery, st.integers(0, 2**63 - 1), st.none() | NAMES),
    st.builds(
        ast_show.ShowMeasurements, OPTIONAL_NAMES, st.none() | PLAIN_MEASUREMENTS, OPTIONAL_CONDITIONS, SORTS, COUNTS
    ),
    st.builds(ast_show.ShowTagKeys, OPTIONAL_NAMES, tuples(MEASUREMENTS), OPTIONAL_CONDITIONS, SORTS, COUNTS, COUNTS),
    st.builds(ast_show.ShowFieldKeys, OPTIONAL_NAMES, tuples(MEASUREMENTS), SORTS, COUNTS, COUNTS),
    st.builds(ast_show.ShowRetentionPolicies, OPTIONAL_NAMES),
    st.builds(ast_show.ShowGrants, NAMES),
    st.builds(ast_show.ShowStats, st.none() | STRINGS),
    st.builds(ast_show.ShowSeriesCardinality, **CARDINALITIES),
    st.builds(ast_show.ShowMeasurementCardinality, **CARDINALITIES),
    st.builds(ast_show.ShowTagKeyCardinality, **CARDINALITIES),
    st.builds(ast_show.ShowFieldKeyCardinality, **CARDINALITIES),
    KEYS.flatmap(lambda key: st.builds(ast_show.ShowTagValuesCardinality, *map(st.just, key), **CARDINALITIES)),
)
STATEMENTS = st.one_of(
    OTHER_STATEMENTS,
    SELECTS,
    SELECTS.map(ast.Explain),
    st.builds(ast.CreateDatabase, NAMES),
    st.builds(ast.CreateRetentionPolicy, NAMES, NAMES, COUNTS, st.integers(1, 2**31 - 1), st.none() | POSITIVE_NS),
    st.builds(ast.DropServer, st.integers(0, 2**64 - 1), st.sampled_from(ast.ServerRole), st.booleans()),
    st.builds(
        ast.Grant,
        st.sampled_from([ast.Privilege.READ, ast.Privilege.WRITE, ast.Privilege.ALL]),
        NAMES,
        NAMES,
    ),
    st.builds(ast.CreateSubscription, NAMES, NAMES, NAMES, st.sampled_from(["ALL", "ANY"]), tuples(STRINGS, 1)),
    st.builds(
        ast_show.ShowSeries, st.none() | NAMES, tuples(MEASUREMENTS), st.none() | CONDITIONS, SORTS, COUNTS, COUNTS
    ),
    st.builds(
        lambda key, **parts: ast_show.ShowTagValues(key[0], key[1], **parts),
        KEYS | tuples(NAMES, 1).map(lambda names: ("IN", ast.ListLiteral(names))),
        database=st.none() | NAMES,
        condition=st.none() | CONDITIONS,
        limit=COUNTS,
    ),
)


@settings(max_examples=examples(300), deadline=None)
@given(STATEMENTS)
def test_what_is_printed_parses_to_the_same_tree(statement: ast.Statement) -> None:
    text = to_text(statement)
    assert parse(text) == (statement,), text


def test_what_is_printed_of_the_tables_of_the_reference_parses_to_the_same_trees() -> None:
    differ, parsed = [], 0
    for rule in tables():
        for text in rule.statements:
            try:
                statements = parse(text)
            except QueryParseError:
                continue
            # A password is not printed.
            printed = {to_text(one): one for one in statements if not isinstance(one, ast.CreateUser | ast.SetPassword)}
            parsed += len(printed)
            differ += [text for text, one in printed.items() if parse(text) != (one,)]
    assert differ == []
    assert parsed > 5000


WORDS = st.sampled_from(
    [
        *sorted(KEYWORDS),
        "a",
        "m",
        "fill",
        "tz",
        "time",
        "now()",
        "$x",
        "1",
        "1.5",
        "5m",
        "'s'",
        '"i"',
        "/x/",
        "*",
        "::",
        "=~",
        "!~",
        "<=",
        "<>",
        *"+-*/%&|^=<>(),;:.'\"$\\π\n",
        "--",
        "/*",
        "*/",
        "SERVER",
        "FORCE",
    ]
)


@settings(max_examples=examples(1000), deadline=None)
@given(st.lists(WORDS, max_size=25), st.sampled_from(["", " "]))
def test_random_words_parse_or_fail_with_a_parse_error(words: list[str], glue: str) -> None:
    with contextlib.suppress(QueryParseError):
        for statement in parse(glue.join(words), {"x": 1}):
            to_text(statement)


@settings(max_examples=examples(500), deadline=None)
@given(st.text(st.characters() | st.sampled_from(string.printable), max_size=60))
def test_random_text_parses_or_fails_with_a_parse_error(text: str) -> None:
    for query in (text, f"SELECT {text}", f"SELECT a FROM m WHERE {text}"):
        with contextlib.suppress(QueryParseError):
            parse(query)
