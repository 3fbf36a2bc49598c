"""Expressions over columns, as InfluxQL 1.x evaluates them row by row: missing operands, mixed types, division by 0."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import re2

from dsdbd.model.columns import Bools, Column
from dsdbd.model.types import FieldType
from dsdbd.query import mathfunctions
from dsdbd.query.plan_types import Expr, FieldLeaf, Lit, MathCall, Op, Pattern, Slot, TagLeaf

_OF_BOOLEANS = frozenset({"&", "|", "^", "=", "!="})
COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">=", "=~", "!~"})
_RING: dict[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
"""What is the same for whole numbers and for others; division is not."""
_LITERAL_TYPES = {bool: FieldType.BOOLEAN, int: FieldType.INTEGER, float: FieldType.FLOAT, str: FieldType.STRING}


@dataclass(frozen=True, slots=True)
class Vector:
    """Values of an expression: ``values`` is an array of n entries (as in Column) or one Python value for all rows.

    ``type`` is None where no row has a value. ``valid`` is None where every row has one.
    """

    type: FieldType | None
    values: Any
    valid: Bools | None = None


NOTHING = Vector(None, None)
Lookup = Callable[[Slot | FieldLeaf | TagLeaf], Column | None]


def evaluate(expr: Expr, lookup: Lookup) -> Vector:
    """Value of ``expr`` in every row; ``lookup`` gives the column of a leaf, None for one that has no values."""
    match expr:
        case Lit(value):
            return Vector(_LITERAL_TYPES[type(value)], value)
        case MathCall(name, args):
            return _math_call(name, [evaluate(arg, lookup) for arg in args])
        case Op(op, lhs, rhs):
            if isinstance(rhs, Pattern):
                return _match(evaluate(lhs, lookup), rhs.text, negated=op == "!~")
            return _operation(op, lhs, rhs, lookup)
        case Pattern():
            return NOTHING
    column = lookup(expr)
    return NOTHING if column is None else Vector(column.type, column.values, column.valid)


def to_column(vector: Vector, rows: int) -> Column:
    """The values as a column; a vector without a type becomes a float column without values."""
    if vector.type is None:
        return Column.missing(FieldType.FLOAT, rows)
    values = vector.values
    if isinstance(values, bool | int | float):
        values = np.full(rows, values)
    elif isinstance(values, str):
        values = pa.repeat(pa.scalar(values, pa.string()), rows)
    return Column(vector.type, values, vector.valid)


def to_mask(vector: Vector, rows: int) -> Bools:
    """Rows for which a condition holds; what has no value or is no boolean does not hold."""
    if vector.type is not FieldType.BOOLEAN:
        return np.zeros(rows, dtype=np.bool_)
    mask = np.broadcast_to(np.asarray(vector.values, dtype=np.bool_), (rows,))
    return mask if vector.valid is None else mask & vector.valid


def both_valid(lhs: Bools | None, rhs: Bools | None) -> Bools | None:
    """Rows in which both have a value."""
    if lhs is None:
        return rhs
    return lhs if rhs is None else lhs & rhs


def _booleans(vector: Vector) -> Any:
    """Truth of a vector for AND and OR, where a missing value counts as false."""
    if vector.type is not FieldType.BOOLEAN:
        return np.False_
    values = np.asarray(vector.values, dtype=np.bool_)
    return values if vector.valid is None else values & vector.valid


def _operation(op: str, lhs: Expr, rhs: Expr, lookup: Lookup) -> Vector:
    """``lhs op rhs``; beside a boolean, what has no value counts as false, but for a field in a condition."""
    left, right = evaluate(lhs, lookup), evaluate(rhs, lookup)
    if op not in _OF_BOOLEANS or FieldType.BOOLEAN not in (left.type, right.type):
        return _binary(op, left, right)
    found = _binary(op, left, right)
    for one, other, other_expr in ((left, right, rhs), (right, left, lhs)):
        if one.type is FieldType.BOOLEAN and type(other_expr) is not FieldLeaf:
            found = _where_missing(found, op, one, other)
    return found


def _where_missing(found: Vector, op: str, one: Vector, other: Vector) -> Vector:
    """``found`` with ``one op false`` in the rows in which the boolean ``one`` has a value and ``other`` has none."""
    rows = one.valid
    if other.type is not None:
        if other.valid is None:
            return found
        rows = both_valid(rows, ~other.valid)
    value = one.values
    alone = _compare_values(op, value, False) if op in COMPARISONS else _bitwise(op, value, False)
    if rows is None or found.type is not FieldType.BOOLEAN:
        return Vector(FieldType.BOOLEAN, alone, rows)
    valid = None if found.valid is None else found.valid | rows
    return Vector(FieldType.BOOLEAN, np.where(rows, alone, found.values), valid)


def _binary(op: str, lhs: Vector, rhs: Vector) -> Vector:
    if op in ("AND", "OR"):
        left, right = _booleans(lhs), _booleans(rhs)
        return Vector(FieldType.BOOLEAN, left & right if op == "AND" else left | right)
    if lhs.type is None or rhs.type is None:
        return Vector(FieldType.BOOLEAN, False) if op in COMPARISONS else NOTHING
    if op in COMPARISONS:
        return _compare(op, lhs, rhs)
    valid = both_valid(lhs.valid, rhs.valid)
    types = {lhs.type, rhs.type}
    if types == {FieldType.BOOLEAN}:
        if op in ("&", "|", "^"):
            return Vector(FieldType.BOOLEAN, _bitwise(op, np.asarray(lhs.values), np.asarray(rhs.values)), valid)
        return NOTHING
    if lhs.type is FieldType.BOOLEAN and op in ("&", "|", "^"):
        return Vector(FieldType.BOOLEAN, False, valid)
    if not types <= {FieldType.FLOAT, FieldType.INTEGER}:
        return NOTHING
    if types == {FieldType.INTEGER} and op != "/":
        return Vector(FieldType.INTEGER, _integer_math(op, lhs.values, rhs.values), valid)
    if op in ("&", "|", "^"):
        return NOTHING
    return Vector(FieldType.FLOAT, _float_math(op, lhs.values, rhs.values), valid)


def _bitwise(op: str, left: Any, right: Any) -> Any:
    if op == "&":
        return left & right
    return left | right if op == "|" else left ^ right


def _integer_math(op: str, lhs: Any, rhs: Any) -> Any:
    """Whole numbers wrap around as int64 does; the rest of a division by 0 is 0."""
    left, right = np.asarray(lhs, dtype=np.int64), np.asarray(rhs, dtype=np.int64)
    with np.errstate(all="ignore"):
        if op in _RING:
            return _RING[op](left, right)
        if op == "%":
            return np.where(right == 0, 0, np.fmod(left, np.where(right == 0, 1, right)))
    return _bitwise(op, left, right)


def _float_math(op: str, lhs: Any, rhs: Any) -> Any:
    """Division by 0 is 0, as in InfluxDB 1.x."""
    left, right = np.asarray(lhs, dtype=np.float64), np.asarray(rhs, dtype=np.float64)
    with np.errstate(all="ignore"):
        if op in _RING:
            return _RING[op](left, right)
        if op == "%":
            return np.fmod(left, right)
        zero = right == 0
        return np.where(zero, 0.0, left / np.where(zero, 1.0, right))


def _compare(op: str, lhs: Vector, rhs: Vector) -> Vector:
    """Comparison; values of types that cannot be compared, and missing ones, are neither equal nor unequal."""
    numbers = {FieldType.FLOAT, FieldType.INTEGER}
    valid = both_valid(lhs.valid, rhs.valid)
    if lhs.type is FieldType.STRING and rhs.type is FieldType.STRING:
        result = _compare_strings(op, lhs.values, rhs.values)
    elif (lhs.type in numbers and rhs.type in numbers) or (lhs.type is rhs.type and op in ("=", "!=")):
        result = _compare_values(op, np.asarray(lhs.values), np.asarray(rhs.values))
    else:
        return Vector(FieldType.BOOLEAN, False)
    return Vector(FieldType.BOOLEAN, result if valid is None else result & valid)


def _compare_values(op: str, left: Any, right: Any) -> Any:
    match op:
        case "=":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right
    return np.False_


def _compare_strings(op: str, left: Any, right: Any) -> Any:
    """Strings know only equality, as in InfluxDB 1.x."""
    if op not in ("=", "!="):
        return np.False_
    if isinstance(left, str) and isinstance(right, str):
        return np.bool_((left == right) == (op == "="))
    function = pc.equal if op == "=" else pc.not_equal
    return np.asarray(pc.fill_null(function(left, right), False))


def _match(vector: Vector, pattern: str, *, negated: bool) -> Vector:
    """Regex on strings; each distinct string is matched once."""
    if vector.type is not FieldType.STRING:
        return Vector(FieldType.BOOLEAN, False)
    compiled = re2.compile(pattern)
    if isinstance(vector.values, str):
        return Vector(FieldType.BOOLEAN, (compiled.search(vector.values) is not None) != negated)
    encoded = vector.values.dictionary_encode()
    hits = [(compiled.search(text) is not None) != negated for text in encoded.dictionary.to_pylist()]
    if not hits:
        return Vector(FieldType.BOOLEAN, False)
    indices = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    present = np.asarray(vector.values.is_valid())
    result = np.array(hits, dtype=np.bool_)[indices] & present
    return Vector(FieldType.BOOLEAN, result if vector.valid is None else result & vector.valid)


def _math_call(name: str, args: list[Vector]) -> Vector:
    valid: Bools | None = None
    for arg in args:
        if arg.type not in (FieldType.FLOAT, FieldType.INTEGER):
            return NOTHING
        valid = both_valid(valid, arg.valid)
    values, is_integer, defined = mathfunctions.apply(
        name, [np.asarray(arg.values) for arg in args], all(arg.type is FieldType.INTEGER for arg in args)
    )
    return Vector(FieldType.INTEGER if is_integer else FieldType.FLOAT, values, both_valid(valid, defined))
