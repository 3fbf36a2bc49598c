from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsdbd.errors import QueryParseError
from dsdbd.influxql import ast, ast_show, column_name, parse, to_text
from dsdbd.influxql.lexer import KEYWORDS
from dsdbd.limits import MAX_QUERY_CHARS, MAX_QUERY_NESTING

DATA = Path(__file__).parent / "data"
GOOD = [json.loads(line) for line in (DATA / "good.jsonl").read_text().splitlines()]
BAD = [json.loads(line) for line in (DATA / "bad.jsonl").read_text().splitlines()]


def one(text: str, **params: object) -> ast.Statement:
    (statement,) = parse(text, params)
    return statement


def condition(text: str) -> ast.Expr:
    select = one(f"SELECT a FROM m WHERE {text}")
    assert isinstance(select, ast.Select)
    assert select.condition is not None
    return select.condition


def error(text: str, params: dict[str, object] | None = None) -> str:
    with pytest.raises(QueryParseError) as caught:
        parse(text, params)
    return caught.value.message


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case["query"][:60])
def test_good_statements_print_in_normal_form(case: dict[str, str]) -> None:
    statements = parse(case["query"])
    assert "; ".join(map(to_text, statements)) == case["text"]
    if "PASSWORD" not in case["text"]:
        again = parse(case["text"])
        assert "; ".join(map(to_text, again)) == case["text"]
        assert again == statements or "a/-b" in case["query"]  # the parentheses added there are a node of the tree


@pytest.mark.parametrize("case", BAD, ids=lambda case: ascii(case["query"][:60]))
def test_bad_statements_give_the_exact_error(case: dict[str, str]) -> None:
    assert error(case["query"]) == case["error"]


def test_every_statement_class_is_reachable() -> None:
    classes = {type(statement) for case in GOOD for statement in parse(case["query"])}
    defined = {
        value
        for module in (ast, ast_show)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ast.Statement) and value is not ast.Statement
    }
    assert defined == classes


def test_precedence_and_left_association() -> None:
    assert condition("a = 1 + 2 * 3 - 4 OR b = 1 AND c = 2") == ast.BinaryExpr(
        "OR",
        ast.BinaryExpr(
            "=",
            ast.VarRef("a"),
            ast.BinaryExpr(
                "-",
                ast.BinaryExpr(
                    "+",
                    ast.IntegerLiteral(1),
                    ast.BinaryExpr("*", ast.IntegerLiteral(2), ast.IntegerLiteral(3)),
                ),
                ast.IntegerLiteral(4),
            ),
        ),
        ast.BinaryExpr(
            "AND",
            ast.BinaryExpr("=", ast.VarRef("b"), ast.IntegerLiteral(1)),
            ast.BinaryExpr("=", ast.VarRef("c"), ast.IntegerLiteral(2)),
        ),
    )


def test_regex_escapes_only_the_slash() -> None:
    assert condition(r"a =~ /x\/y\.z\d/") == ast.BinaryExpr("=~", ast.VarRef("a"), ast.RegexLiteral(r"x/y\.z\d"))
    assert condition("a != /x/") == ast.BinaryExpr("!~", ast.VarRef("a"), ast.RegexLiteral("x"))


def test_a_regex_ending_in_a_backslash_keeps_its_meaning() -> None:
    select = one("SELECT a FROM m WHERE b =~ $r", r={"regex": "a\\\\"})
    assert to_text(select) == r"SELECT a FROM m WHERE b =~ /a\x5c/"
    assert to_text(one(to_text(select))) == to_text(select)


def test_measurements_and_back_references() -> None:
    select = one("SELECT a INTO d.r.:MEASUREMENT FROM m, d..m, r.m, d.r./x/")
    assert isinstance(select, ast.Select)
    assert select.target == ast.Measurement(database="d", retention_policy="r")
    assert select.target is not None and select.target.is_back_reference
    assert select.sources == (
        ast.Measurement("m"),
        ast.Measurement("m", database="d"),
        ast.Measurement("m", retention_policy="r"),
        ast.Measurement(regex=ast.RegexLiteral("x"), database="d", retention_policy="r"),
    )


@pytest.mark.parametrize("word", ["data", "meta", "server", "servers", "force", "DATA"])
def test_contextual_words_are_ordinary_names(word: str) -> None:
    select = one(f"SELECT {word} FROM {word} WHERE {word} = 1 GROUP BY {word}")
    assert isinstance(select, ast.Select)
    assert select.fields[0].expr == ast.VarRef(word)
    assert one(f"CREATE DATABASE {word}") == ast.CreateDatabase(word)
    assert word.upper() not in KEYWORDS


def test_drop_server_forms() -> None:
    assert one("DROP META SERVER 7") == ast.DropServer(7, ast.ServerRole.META)
    assert one("drop data server 7 force") == ast.DropServer(7, ast.ServerRole.DATA, force=True)
    assert one("DROP SERVER 7 FORCE") == ast.DropServer(7, force=True)
    assert error('DROP "DATA" SERVER 7').startswith("error parsing query: found DATA, expected CONTINUOUS, DATA, ")


def test_create_database_options_in_any_order_once() -> None:
    expected = ast.CreateDatabase("d", ast.PolicyOptions(3_600_000_000_000, 2, 0, "p"))
    assert one("CREATE DATABASE d WITH NAME p SHARD DURATION INF REPLICATION 2 DURATION 1h") == expected
    assert "found duplicate NAME option" in error("CREATE DATABASE d WITH NAME p NAME q")


def test_bound_parameters() -> None:
    text = "SELECT $f FROM m WHERE a = $s AND b = $i AND c = $x AND d = $b AND e =~ $r AND time > now() - $d"
    select = one(
        text,
        f={"identifier": "my field"},
        s="it's",
        i=-3,
        x=1.5,
        b=True,
        r={"regex": "^a/b"},
        d={"duration": "5m"},
    )
    assert to_text(select) == (
        "SELECT \"my field\" FROM m WHERE a = 'it\\'s' AND b = -3 AND c = 1.500 AND d = true"
        " AND e =~ /^a\\/b/ AND time > now() - 5m"
    )


def test_bound_parameters_that_cannot_be_bound() -> None:
    query = "SELECT a FROM m WHERE a = $x"
    assert error(query) == "error parsing query: missing parameter: x"
    assert error(query, {"x": []}) == "error parsing query: unable to bind parameter with type list"
    assert error(query, {"x": float("nan")}).startswith("error parsing query: unable to bind parameter")
    assert error(query, {"x": {"integer": float("inf")}}).startswith("error parsing query: unable to bind parameter")
    assert error(query, {"x": {"regex": "("}}).startswith(
        "error parsing query: error parsing regexp: missing closing )"
    )
    assert error(query, {"x": 2**64}).startswith("error parsing query: unable to parse integer")


def test_a_parameter_is_a_value_and_never_syntax() -> None:
    select = one("SELECT a FROM m WHERE a = $x", x="1' OR 'a' = 'a")
    assert isinstance(select, ast.Select)
    assert select.condition == ast.BinaryExpr("=", ast.VarRef("a"), ast.StringLiteral("1' OR 'a' = 'a"))


def test_long_queries_are_refused_before_they_are_read() -> None:
    assert "characters" in error("x" * (MAX_QUERY_CHARS + 1))
    assert "not valid text at character 8" in error("SELECT \ud800 FROM m")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM m WHERE " + "(" * 5000 + "a = 1" + ")" * 5000,
        "SELECT " + "f(" * 5000 + "a" + ")" * 5000 + " FROM m",
        "SELECT a FROM " + "(SELECT a FROM " * 5000 + "m" + ")" * 5000,
        "SELECT a FROM m WHERE a = " + "-(" * 5000 + "1" + ")" * 5000,
    ],
)
def test_deep_nesting_is_refused(text: str) -> None:
    assert f"nested more than {MAX_QUERY_NESTING} levels deep" in error(text)


def test_deepest_allowed_nesting_prints_and_parses() -> None:
    text = "SELECT a FROM m WHERE " + "(" * MAX_QUERY_NESTING + "a = 1" + ")" * MAX_QUERY_NESTING
    assert to_text(one(text)) == text


def test_long_arithmetic_is_refused_and_long_conditions_are_not() -> None:
    assert "operators deep" in error("SELECT " + "a + " * 5000 + "a FROM m")
    for op in ("AND", "OR"):
        text = "SELECT a FROM m WHERE " + f" {op} ".join(f"host = 'h{n}'" for n in range(5000))
        assert to_text(one(text)) == text


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("a", "a"),
        ("mean(a)", "mean"),
        ("mean(a) AS x", "x"),
        ("a + b * mean(c)", "a_b_mean"),
        ("(a)", "a"),
        ("a + 1", "a"),
        ("5", ""),
        ("distinct a", "distinct"),
        ("1 + 2", ""),
    ],
)
def test_column_names(field: str, name: str) -> None:
    select = one(f"SELECT {field} FROM m")
    assert isinstance(select, ast.Select)
    assert column_name(select.fields[0]) == name
