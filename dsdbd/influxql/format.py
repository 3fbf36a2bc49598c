"""The normal form of statements and expressions, as InfluxDB 1.x prints them.

Column names, SHOW QUERIES, error messages and the text of continuous queries come from here, so what is printed parses
back to the same tree. Where 1.x prints something else than it read, the meaning wins: numbers keep all their digits
(1.x cuts after three), ``a / -b`` gets parentheses, and durations of CREATE DATABASE are written like all others.
"""

from __future__ import annotations

from decimal import Decimal
from functools import singledispatch
from typing import Final

from dsdbd.influxql import ast
from dsdbd.influxql.durations import format_duration
from dsdbd.influxql.lexer import is_bare_identifier
from dsdbd.influxql.parser_expr import PRECEDENCE
from dsdbd.model.times import format_rfc3339nano

_NUMBERS: Final = (ast.IntegerLiteral, ast.NumberLiteral, ast.UnsignedLiteral)
REDACTED: Final = "[REDACTED]"
"""What stands in place of a password."""


def quote_identifier(name: str) -> str:
    """A name as InfluxQL writes it: bare where that is possible, else in double quotes."""
    return name if is_bare_identifier(name) else f'"{_escape(name, chr(34))}"'


def quote_string(value: str) -> str:
    """A string literal."""
    return f"'{_escape(value, chr(39))}'"


def _escape(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace(quote, "\\" + quote)


@singledispatch
def to_text(node: object) -> str:
    """The text of any statement, expression, source or part of one; passwords are redacted."""
    raise TypeError(f"{type(node).__name__} is not a node of InfluxQL")


# --- expressions


@to_text.register
def _(node: ast.VarRef) -> str:
    name = quote_identifier(node.name)
    return name if node.type is None else f"{name}::{node.type}"


@to_text.register
def _(node: ast.NumberLiteral) -> str:
    short = f"{node.value:.3f}"
    return short if float(short) == node.value else _decimal(node.value)


def _decimal(value: float) -> str:
    """All digits, without an exponent and with a point, so that it is read as a number again."""
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else text + ".0"


@to_text.register
def _(node: ast.IntegerLiteral) -> str:
    return str(node.value)


@to_text.register
def _(node: ast.UnsignedLiteral) -> str:
    return str(node.value)


@to_text.register
def _(node: ast.StringLiteral) -> str:
    return quote_string(node.value)


@to_text.register
def _(node: ast.BooleanLiteral) -> str:
    return "true" if node.value else "false"


@to_text.register
def _(node: ast.DurationLiteral) -> str:
    return format_duration(node.value_ns)


@to_text.register
def _(node: ast.TimeLiteral) -> str:
    return f"'{format_rfc3339nano(node.value_ns)}'"


@to_text.register
def _(node: ast.RegexLiteral) -> str:
    # A backslash before the closing slash would escape it: at the end, an escaped backslash is written as its code.
    body = node.pattern.rstrip("\\")
    ending = "\\x5c" * ((len(node.pattern) - len(body)) // 2)
    return "/" + body.replace("/", "\\/") + ending + "/"


@to_text.register
def _(node: ast.ListLiteral) -> str:
    return f"({', '.join(map(quote_identifier, node.values))})"


@to_text.register
def _(node: ast.Wildcard) -> str:
    return f"*::{node.kind}" if node.kind else "*"


@to_text.register
def _(node: ast.Distinct) -> str:
    return f"DISTINCT {quote_identifier(node.name)}"


@to_text.register
def _(node: ast.Call) -> str:
    return f"{node.name}({', '.join(map(to_text, node.args))})"


@to_text.register
def _(node: ast.ParenExpr) -> str:
    return f"({to_text(node.expr)})"


@to_text.register
def _(node: ast.BinaryExpr) -> str:
    strength = PRECEDENCE[node.op]
    lhs, rhs = to_text(node.lhs), to_text(node.rhs)
    if isinstance(node.lhs, ast.BinaryExpr) and PRECEDENCE[node.lhs.op] < strength:
        lhs = f"({lhs})"
    if isinstance(node.rhs, ast.BinaryExpr) and PRECEDENCE[node.rhs.op] <= strength:
        # AND and OR mean the same however they are grouped; long chains of them are grouped for depth.
        rhs = rhs if node.rhs.op == node.op and node.op in {"AND", "OR"} else f"({rhs})"
    return f"{lhs} {node.op} {rhs}"


# --- sources and SELECT


@to_text.register
def _(node: ast.Measurement) -> str:
    database = "" if node.database is None else quote_identifier(node.database) + "."
    policy = "" if node.retention_policy is None else quote_identifier(node.retention_policy)
    path = f"{database}{policy}." if database or policy else ""
    if node.regex is not None:
        return path + to_text(node.regex)
    return path + (":MEASUREMENT" if node.is_back_reference else quote_identifier(node.name))


@to_text.register
def _(node: ast.SubQuery) -> str:
    return f"({to_text(node.statement)})"


@to_text.register
def _(node: ast.Field) -> str:
    text = to_text(node.expr)
    return text if node.alias is None else f"{text} AS {quote_identifier(node.alias)}"


@to_text.register
def _(node: ast.SortField) -> str:
    direction = "ASC" if node.ascending else "DESC"
    return f"{node.name} {direction}" if node.name else direction


@to_text.register
def _(node: ast.Select) -> str:
    return (
        "SELECT "
        + ", ".join(map(to_text, node.fields))
        + ("" if node.target is None else f" INTO {to_text(node.target)}")
        + sources_clause(node.sources)
        + where_clause(node.condition)
        + group_by_clause(node.dimensions)
        + _fill_clause(node)
        + order_by_clause(node.sort)
        + limit_clauses(node.limit, node.offset, node.slimit, node.soffset)
        + ("" if node.timezone is None else f" TZ({quote_string(node.timezone)})")
    )


def _fill_clause(node: ast.Select) -> str:
    if node.fill is ast.FillKind.NULL:
        return ""
    if node.fill is not ast.FillKind.NUMBER:
        return f" fill({node.fill})"
    value = node.fill_value
    assert value is not None
    whole = isinstance(value, int) or value.is_integer()
    return f" fill({int(value) if whole and abs(value) < 2**63 else _decimal(float(value))})"


def sources_clause(sources: tuple[ast.Source, ...]) -> str:
    """FROM with a space before it, or nothing; so are the other clauses."""
    return f" FROM {', '.join(map(to_text, sources))}" if sources else ""


def where_clause(condition: ast.Expr | None) -> str:
    """WHERE."""
    return "" if condition is None else f" WHERE {to_text(condition)}"


def group_by_clause(dimensions: tuple[ast.Expr, ...]) -> str:
    """GROUP BY."""
    return f" GROUP BY {', '.join(map(to_text, dimensions))}" if dimensions else ""


def order_by_clause(sort: tuple[ast.SortField, ...]) -> str:
    """ORDER BY."""
    return f" ORDER BY {', '.join(map(to_text, sort))}" if sort else ""


def limit_clauses(limit: int = 0, offset: int = 0, slimit: int = 0, soffset: int = 0) -> str:
    """LIMIT, OFFSET, SLIMIT and SOFFSET, those that are not 0."""
    counts = {"LIMIT": limit, "OFFSET": offset, "SLIMIT": slimit, "SOFFSET": soffset}
    return "".join(f" {word} {count}" for word, count in counts.items() if count)


# --- columns


def column_name(field: ast.Field) -> str:
    """The name of a column in an answer: alias, function, field, or the names inside an expression joined by ``_``."""
    return field.alias if field.alias else _expr_name(field.expr)


def _expr_name(expr: ast.Expr) -> str:
    match expr:
        case ast.Call(name) | ast.VarRef(name):
            return name
        case ast.Distinct():
            return "distinct"
        case ast.ParenExpr(inner):
            return _expr_name(inner)
        case ast.BinaryExpr():
            return "_".join(_names_inside(expr))
        case _:
            return ""


def _names_inside(expr: ast.Expr) -> list[str]:
    match expr:
        case ast.Call(_, args) if args and all(isinstance(arg, _NUMBERS) for arg in args):
            return []  # a function of constants is a constant
        case ast.Call(name) | ast.VarRef(name):
            return [name]
        case ast.ParenExpr(inner):
            return _names_inside(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            return _names_inside(lhs) + _names_inside(rhs)
        case _:
            return []
