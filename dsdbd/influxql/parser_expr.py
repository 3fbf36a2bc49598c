"""Expressions: precedence climbing over operators, with the exact quirks of InfluxQL 1.x at its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dsdbd.influxql.ast import (
    BinaryExpr,
    BooleanLiteral,
    Call,
    Distinct,
    DurationLiteral,
    Expr,
    IntegerLiteral,
    NumberLiteral,
    ParenExpr,
    RegexLiteral,
    StringLiteral,
    UnsignedLiteral,
    VarRef,
    Wildcard,
    WildcardKind,
)
from dsdbd.influxql.cursor import Cursor
from dsdbd.influxql.durations import parse_duration
from dsdbd.influxql.lexer import is_bare_identifier
from dsdbd.limits import MAX_EXPRESSION_DEPTH

if TYPE_CHECKING:
    from dsdbd.errors import QueryParseError

PRECEDENCE: Final = {
    "OR": 1,
    "AND": 2,
    "=": 3,
    "!=": 3,
    "=~": 3,
    "!~": 3,
    "<": 3,
    "<=": 3,
    ">": 3,
    ">=": 3,
    "+": 4,
    "-": 4,
    "|": 4,
    "^": 4,
    "*": 5,
    "/": 5,
    "%": 5,
    "&": 5,
}
"""Binding strength of every operator; all associate to the left."""
_MAX_INT64 = 2**63 - 1
_MAX_UINT64 = 2**64 - 1
_CASTS = ("float", "integer", "unsigned", "string", "boolean")
_COMPARING = PRECEDENCE["="]
_MATCHING = frozenset({"=~", "!~"})
_LONG_CHAIN = 32
_MOST_OPERATORS = 100 * MAX_EXPRESSION_DEPTH
"""Operators without AND and OR between them, which are deeper than may be unless they stand in wide calls."""


def parse_expr(cursor: Cursor) -> Expr:
    """One expression; stops at the first token that cannot continue it."""
    before = cursor.operators
    expr = _disjunction(cursor)
    if cursor.operators - before >= MAX_EXPRESSION_DEPTH and _deeper_than(expr, MAX_EXPRESSION_DEPTH):
        raise _too_deep(cursor)
    return expr


def _too_deep(cursor: Cursor) -> QueryParseError:
    return cursor.error(f"an expression is more than {MAX_EXPRESSION_DEPTH} operators deep; use fewer of them")


def _disjunction(cursor: Cursor) -> Expr:
    first = _conjunction(cursor)
    if cursor.kind != "OR":
        return first
    conjunctions = [first]
    while cursor.accept("OR"):
        cursor.operators += 1
        conjunctions.append(_conjunction(cursor))
    return _join("OR", conjunctions)


def parse_regex(cursor: Cursor) -> RegexLiteral | None:
    """A regex literal if one comes next."""
    pattern = cursor.regex()
    return None if pattern is None else RegexLiteral(pattern)


def require_regex(cursor: Cursor) -> RegexLiteral:
    """A regex literal, or an error."""
    regex = parse_regex(cursor)
    if regex is None:
        raise cursor.expected(cursor.peek(), "regex")
    return regex


def parse_segments(cursor: Cursor, first: str | None = None) -> list[str]:
    """Names joined by dots, such as ``db.rp.name`` and ``db..name``; stops after a dot before ``/`` or ``:``.

    ``first`` is the first name where it has been read.
    """
    names = [cursor.identifier() if first is None else first]
    while cursor.adjacent("."):
        cursor.take()
        following = cursor.peek()
        if following.kind == "EOF":
            cursor.regex()  # 1.x looks for a regex here, which moves the place of the error
        if following.kind in {"/", ":", "REGEX"}:
            break
        names.append("" if following.kind == "." else cursor.identifier())
    if len(names) > 3:
        # InfluxDB 1.x gives this error no position of its own, which prints as the first character.
        raise cursor.error_at(f"too many segments in {_quoted_path(names)}", 0)
    return names


def _quoted_path(names: list[str]) -> str:
    *heads, last = names
    shown = [f'"{name}"' if name else "" for name in heads]
    return ".".join([*shown, last if is_bare_identifier(last) else f'"{last}"'])


def _conjunction(cursor: Cursor) -> Expr:
    first = _comparison(cursor, _unary(cursor), _COMPARING)
    if cursor.kind != "AND":
        return first
    comparisons = [first]
    while cursor.accept("AND"):
        cursor.operators += 1
        comparisons.append(_comparison(cursor, _unary(cursor), _COMPARING))
    return _join("AND", comparisons)


def _join(op: str, terms: Sequence[Expr]) -> Expr:
    """Terms joined from the left; a long chain becomes a balanced tree, which means the same and is not deep."""
    if len(terms) > _LONG_CHAIN:
        middle = len(terms) // 2
        return BinaryExpr(op, _join(op, terms[:middle]), _join(op, terms[middle:]))
    expr = terms[0]
    for term in terms[1:]:
        expr = BinaryExpr(op, expr, term)
    return expr


def _comparison(cursor: Cursor, left: Expr, least: int) -> Expr:
    """``left`` with the operators behind it that bind at least as strongly as ``least``, which is above AND's."""
    before = cursor.operators
    while (strength := PRECEDENCE.get(cursor.kind, 0)) >= least:
        op = cursor.kind
        cursor.advance()
        cursor.operators += 1
        if cursor.operators - before > _MOST_OPERATORS:
            # A chain like this is refused anyway; a megabyte of it is not read to its end.
            raise _too_deep(cursor)
        if op in _MATCHING:
            right: Expr = require_regex(cursor)
        elif op == "!=" and cursor.kind in {"/", "REGEX"}:
            # The guide writes `!= /re/`; it means `!~`.
            op, right = "!~", require_regex(cursor)
        else:
            right = _unary(cursor)
        if PRECEDENCE.get(cursor.kind, 0) > strength:
            right = _comparison(cursor, right, strength + 1)
        left = BinaryExpr(op, left, right)
    return left


def _deeper_than(expr: Expr, limit: int) -> bool:
    level: list[Expr] = [expr]
    for _ in range(limit):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return True


def _children(node: Expr) -> tuple[Expr, ...]:
    match node:
        case BinaryExpr(_, lhs, rhs):
            return (lhs, rhs)
        case ParenExpr(inner):
            return (inner,)
        case Call(_, args):
            return args
        case _:
            return ()


def _unary(cursor: Cursor) -> Expr:
    kind = cursor.kind
    if kind == "IDENT":
        return _reference_or_call(cursor)
    if kind == "STRING":
        return StringLiteral(cursor.string())
    match kind:
        case "(":
            cursor.advance()
            cursor.enter()
            cursor.operators += 1
            inner = _disjunction(cursor)
            cursor.nesting -= 1
            cursor.expect(")")
            return ParenExpr(inner)
        case "DISTINCT":
            return _distinct(cursor)
        case "+" | "-":
            return _signed(cursor)
        case "*":
            return _wildcard(cursor)
        case "REGEX":
            return require_regex(cursor)
        case "BOUNDPARAM":
            name = cursor.text[1:]
            raise cursor.error(f"missing parameter: {name}" if name else "empty bound parameter")
        case _:
            return _literal(cursor)


def _literal(cursor: Cursor) -> Expr:
    text = cursor.text
    match cursor.kind:
        case "NUMBER":
            value = float(text)
            if not math.isfinite(value):
                raise cursor.error_at("unable to parse number", cursor.peek().at)
            literal: Expr = NumberLiteral(value)
        case "INTEGER":
            literal = _integer(cursor, text)
        case "TRUE" | "FALSE" as kind:
            literal = BooleanLiteral(kind == "TRUE")
        case "DURATIONVAL":
            try:
                literal = DurationLiteral(parse_duration(text))
            except ValueError as error:
                raise cursor.error(str(error)) from None
        case _:
            raise cursor.expected(cursor.peek(), "identifier", "string", "number", "bool")
    cursor.advance()
    return literal


def _integer(cursor: Cursor, text: str) -> Expr:
    digits = text.lstrip("0") or "0"
    value = int(digits) if len(digits) <= 20 else _MAX_UINT64 + 1
    if value > _MAX_UINT64 or value < -_MAX_INT64 - 1:
        raise cursor.error_at("unable to parse integer", cursor.peek().at)
    return IntegerLiteral(value) if value <= _MAX_INT64 else UnsignedLiteral(value)


def _reference_or_call(cursor: Cursor) -> Expr:
    name = cursor.identifier()
    kind = cursor.kind
    if kind == "(" and cursor.adjacent("("):
        cursor.advance()
        return _call(cursor, name)
    if kind == ".":
        name = ".".join(parse_segments(cursor, name))
    return VarRef(name, _cast(cursor) if cursor.kind == "::" else None)


def _cast(cursor: Cursor) -> str | None:
    if not cursor.adjacent("::"):
        return None
    cursor.take()
    token = cursor.peek()
    if token.kind in {"FIELD", "TAG"} and not token.space:
        return cursor.take().kind.lower()
    if token.kind != "IDENT" or token.space:
        raise cursor.expected_adjacent("float", "integer", "string", "boolean", "field", "tag")
    if token.text.lower() not in _CASTS:
        raise cursor.expected(token, *_CASTS, "field", "tag")
    return cursor.take().text.lower()


def _call(cursor: Cursor, name: str) -> Call:
    """The arguments of a call whose opening parenthesis has been read."""
    cursor.enter()
    cursor.operators += 1
    args: list[Expr] = []
    first = parse_regex(cursor)
    if first is None and cursor.accept(")"):
        cursor.nesting -= 1
        return Call(name.lower())
    args.append(first if first is not None else _disjunction(cursor))
    while cursor.accept(","):
        args.append(parse_regex(cursor) or _disjunction(cursor))
    cursor.nesting -= 1
    cursor.expect(")")
    return Call(name.lower(), tuple(args))


def _distinct(cursor: Cursor) -> Expr:
    cursor.take()
    token = cursor.peek()
    if cursor.adjacent("("):
        cursor.take()
        return _call(cursor, "distinct")
    if not token.space:
        raise cursor.expected(token, "(", "identifier")
    return Distinct(cursor.identifier())


def _wildcard(cursor: Cursor) -> Wildcard:
    cursor.take()
    if not cursor.adjacent("::"):
        return Wildcard()
    cursor.take()
    token = cursor.peek()
    if token.kind not in {"FIELD", "TAG"} or token.space:
        raise cursor.expected_adjacent("field", "tag")
    cursor.take()
    return Wildcard(WildcardKind(token.kind.lower()))


def _signed(cursor: Cursor) -> Expr:
    sign = -1 if cursor.take().kind == "-" else 1
    token = cursor.peek()
    if token.kind not in {"NUMBER", "INTEGER", "DURATIONVAL", "(", "IDENT"}:
        raise cursor.expected(token, "identifier", "number", "duration", "(")
    operand = _unary(cursor)
    match operand:
        case NumberLiteral(value):
            return NumberLiteral(sign * value)
        case IntegerLiteral(value):
            return IntegerLiteral(sign * value)
        case DurationLiteral(value_ns):
            return DurationLiteral(sign * value_ns)
        case UnsignedLiteral(value) if sign < 0:
            # The one number whose negative fits into int64 and whose positive does not.
            if value == _MAX_INT64 + 1:
                return IntegerLiteral(-value)
            raise cursor.error(f"constant -{value} underflows int64")
        case UnsignedLiteral():
            return operand
        case _:
            cursor.operators += 1
            return BinaryExpr("*", IntegerLiteral(sign), operand)
