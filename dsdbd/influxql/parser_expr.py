"""Expressions: precedence climbing over operators, with the exact quirks of InfluxQL 1.x at its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

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
from dsdbd.influxql.lexer import Token, is_bare_identifier
from dsdbd.limits import MAX_EXPRESSION_DEPTH

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
_LONG_CHAIN = 32


def parse_expr(cursor: Cursor) -> Expr:
    """One expression; stops at the first token that cannot continue it."""
    expr = _disjunction(cursor)
    if _deeper_than(expr, MAX_EXPRESSION_DEPTH):
        raise cursor.error(f"an expression is more than {MAX_EXPRESSION_DEPTH} operators deep; use fewer of them")
    return expr


def _disjunction(cursor: Cursor) -> Expr:
    conjunctions = [_conjunction(cursor)]
    while cursor.accept("OR"):
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


def parse_segments(cursor: Cursor) -> list[str]:
    """Names joined by dots, such as ``db.rp.name`` and ``db..name``; stops after a dot before ``/`` or ``:``."""
    names = [cursor.identifier()]
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
    comparisons = [_comparison(cursor)]
    while cursor.accept("AND"):
        comparisons.append(_comparison(cursor))
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


def _comparison(cursor: Cursor) -> Expr:
    operands: list[Expr] = [_unary(cursor)]
    operators: list[str] = []

    def fold(strength: int) -> None:
        while operators and PRECEDENCE[operators[-1]] >= strength:
            right, left = operands.pop(), operands.pop()
            operands.append(BinaryExpr(operators.pop(), left, right))

    while (strength := PRECEDENCE.get(cursor.peek().kind, 0)) > PRECEDENCE["AND"]:
        op = cursor.take().kind
        fold(strength)
        operators.append(op)
        operands.append(_right_side(cursor, operators))
    fold(0)
    return operands[0]


def _right_side(cursor: Cursor, operators: list[str]) -> Expr:
    if operators[-1] in {"=~", "!~"}:
        return require_regex(cursor)
    if operators[-1] == "!=" and cursor.peek().kind in {"/", "REGEX"}:
        # The guide writes `!= /re/`; it means `!~`.
        operators[-1] = "!~"
        return require_regex(cursor)
    return _unary(cursor)


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
    token = cursor.peek()
    match token.kind:
        case "(":
            cursor.take()
            cursor.enter()
            inner = _disjunction(cursor)
            cursor.nesting -= 1
            cursor.expect(")")
            return ParenExpr(inner)
        case "IDENT":
            return _reference_or_call(cursor)
        case "DISTINCT":
            return _distinct(cursor)
        case "+" | "-":
            return _signed(cursor)
        case "*":
            return _wildcard(cursor)
        case "REGEX":
            return require_regex(cursor)
        case "BOUNDPARAM":
            name = token.text[1:]
            raise cursor.error(f"missing parameter: {name}" if name else "empty bound parameter")
        case _:
            return _literal(cursor)


def _literal(cursor: Cursor) -> Expr:
    token = cursor.peek()
    match token.kind:
        case "STRING":
            literal: Expr = StringLiteral(token.text)
        case "NUMBER":
            value = float(token.text)
            if not math.isfinite(value):
                raise cursor.error_at("unable to parse number", token.at)
            literal = NumberLiteral(value)
        case "INTEGER":
            literal = _integer(cursor, token)
        case "TRUE" | "FALSE":
            literal = BooleanLiteral(token.kind == "TRUE")
        case "DURATIONVAL":
            try:
                literal = DurationLiteral(parse_duration(token.text))
            except ValueError as error:
                raise cursor.error(str(error)) from None
        case _:
            raise cursor.expected(token, "identifier", "string", "number", "bool")
    cursor.take()
    return literal


def _integer(cursor: Cursor, token: Token) -> Expr:
    digits = token.text.lstrip("0") or "0"
    value = int(digits) if len(digits) <= 20 else _MAX_UINT64 + 1
    if value > _MAX_UINT64 or value < -_MAX_INT64 - 1:
        raise cursor.error_at("unable to parse integer", token.at)
    return IntegerLiteral(value) if value <= _MAX_INT64 else UnsignedLiteral(value)


def _reference_or_call(cursor: Cursor) -> Expr:
    names = parse_segments(cursor)
    if len(names) == 1 and cursor.adjacent("("):
        cursor.take()
        return _call(cursor, names[0])
    return VarRef(".".join(names), _cast(cursor))


def _cast(cursor: Cursor) -> str | None:
    if not cursor.adjacent("::"):
        return None
    cursor.take()
    token = cursor.peek()
    if token.kind in {"FIELD", "TAG"}:
        return cursor.take().kind.lower()
    if token.kind != "IDENT":
        raise cursor.expected(token, "float", "integer", "string", "boolean", "field", "tag")
    if token.text.lower() not in _CASTS:
        raise cursor.expected(token, *_CASTS, "field", "tag")
    return cursor.take().text.lower()


def _call(cursor: Cursor, name: str) -> Call:
    """The arguments of a call whose opening parenthesis has been read."""
    cursor.enter()
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
    if token.kind not in {"FIELD", "TAG"}:
        raise cursor.expected(token, "field", "tag")
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
            return BinaryExpr("*", IntegerLiteral(sign), operand)
