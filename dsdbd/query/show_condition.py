"""WHERE of SHOW statements: which series of a measurement it is about, and which measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import re2

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.model.columns import Bools
from dsdbd.model.predicate import AllOf, TagEquals, TagMatches, TagPredicate
from dsdbd.model.scan import SeriesSet, TagColumn
from dsdbd.query.plan_condition import tags_only
from dsdbd.query.schema import ShardReader

_EQUALITIES = ("=", "!=", "=~", "!~")
KEY, MATCH = "k", "m"
"""Facts about a measurement and a comparison: it has the tag, and one of its values is the one that is named."""


def predicate_of(condition: ast.Expr | None, measurement: str) -> TagPredicate:
    """What a series must satisfy to be listed; raises RequestError for what a listing cannot compare.

    As in InfluxDB 1.x two tags are "equal" where a series has both, and "unequal" where it has the first one only.
    """
    return AllOf(()) if condition is None else tags_only(_simplified(condition, measurement, _listed))


def counted_series(
    reader: ShardReader, measurement: str, condition: ast.Expr | None, *, absent_differs: bool = False
) -> SeriesSet:
    """The series that a cardinality is about: tags are compared with tags as they are, and no field has a value.

    ``absent_differs``: no comparison holds for a tag that a series lacks, as where values are counted; else the tag
    is the empty text.
    """
    if condition is None or not _compares_tags(condition):
        comparison = _counted_if_there if absent_differs else _counted
        predicate = AllOf(()) if condition is None else tags_only(_simplified(condition, measurement, comparison))
        return reader.series(measurement, predicate)
    every = reader.series(measurement, AllOf(()))
    return chosen(every, np.flatnonzero(_mask(condition, every, reader)))


def chosen(series: SeriesSet, rows: Any) -> SeriesSet:
    """Some series of a set, by position (int64)."""
    tags = {key: TagColumn(column.codes[rows], column.values) for key, column in series.tags.items()}
    return SeriesSet(series.measurement, series.all_keys, series.numbers[rows], tags)


def _simplified(expr: ast.Expr, measurement: str, comparison: Callable[[ast.BinaryExpr], ast.Expr]) -> ast.Expr:
    """The condition with ``_name`` decided and what ``comparison`` makes of each comparison with a name at its left."""
    match expr:
        case ast.ParenExpr(inner):
            return ast.ParenExpr(_simplified(inner, measurement, comparison))
        case ast.BinaryExpr("AND" | "OR", lhs, rhs):
            return replace(
                expr,
                lhs=_simplified(lhs, measurement, comparison),
                rhs=_simplified(rhs, measurement, comparison),
            )
        case ast.BinaryExpr(op, ast.VarRef("_name"), value) if op in _EQUALITIES:
            return ast.BooleanLiteral(_name_matches(op, measurement, value))
        case ast.BinaryExpr(_, ast.VarRef()):
            return comparison(expr)
    return expr


def _listed(expr: ast.BinaryExpr) -> ast.Expr:
    if expr.op not in _EQUALITIES:
        raise RequestError("invalid tag comparison operator")
    if isinstance(expr.rhs, ast.VarRef):
        there = ast.BinaryExpr("!=", expr.lhs, ast.StringLiteral(""))
        other = ast.BinaryExpr("!=" if expr.op == "=" else "=", expr.rhs, ast.StringLiteral(""))
        return ast.ParenExpr(ast.BinaryExpr("AND", there, other))
    # Comparisons with numbers are passed over.
    return expr if isinstance(expr.rhs, ast.StringLiteral | ast.RegexLiteral) else ast.BooleanLiteral(True)


def _counted(expr: ast.BinaryExpr) -> ast.Expr:
    if expr.op in _EQUALITIES and isinstance(expr.rhs, ast.StringLiteral | ast.RegexLiteral):
        return expr
    return ast.BooleanLiteral(False)


def _counted_if_there(expr: ast.BinaryExpr) -> ast.Expr:
    there = ast.BinaryExpr("!=", expr.lhs, ast.StringLiteral(""))
    return ast.ParenExpr(ast.BinaryExpr("AND", there, _counted(expr)))


def _name_matches(op: str, measurement: str, value: ast.Expr) -> bool:
    match value:
        case ast.StringLiteral(text):
            return (measurement == text) == (op == "=")
        case ast.RegexLiteral(pattern):
            return (re2.search(pattern, measurement) is not None) == (op in ("=", "=~"))
    raise RequestError("_name can be compared with a string or a regular expression only")


# --- two tags of a series


def _compares_tags(expr: ast.Expr) -> bool:
    match expr:
        case ast.ParenExpr(inner):
            return _compares_tags(inner)
        case ast.BinaryExpr("AND" | "OR", lhs, rhs):
            return _compares_tags(lhs) or _compares_tags(rhs)
        case ast.BinaryExpr("=" | "!=", ast.VarRef(name), ast.VarRef()):
            return name != "_name"
    return False


def _mask(expr: ast.Expr, every: SeriesSet, reader: ShardReader) -> Bools:
    """Which series of the set satisfy the condition."""
    match expr:
        case ast.ParenExpr(inner):
            return _mask(inner, every, reader)
        case ast.BinaryExpr("AND", lhs, rhs):
            return _mask(lhs, every, reader) & _mask(rhs, every, reader)
        case ast.BinaryExpr("OR", lhs, rhs):
            return _mask(lhs, every, reader) | _mask(rhs, every, reader)
        case ast.BinaryExpr("=" | "!=" as op, ast.VarRef(left), ast.VarRef(right)) if left != "_name":
            here = _texts(every, left)
            same: Bools = np.asarray(pc.equal(here, _texts(every, right))) & np.asarray(pc.not_equal(here, ""))
            return same if op == "=" else ~same
    some = reader.series(every.measurement, tags_only(_simplified(expr, every.measurement, _counted)))
    found: Bools = np.isin(every.numbers, some.numbers)
    return found


def _texts(series: SeriesSet, key: str) -> Any:
    column = series.tags.get(key)
    if column is None:
        return TagColumn(np.full(len(series), -1, dtype=np.int32), ("",)).to_arrow().fill_null("")
    return column.to_arrow().fill_null("")


# --- measurements


def comparisons(condition: ast.Expr) -> Iterator[ast.BinaryExpr]:
    """The comparisons of a SHOW MEASUREMENTS condition, from left to right.

    Raises RequestError in the words of InfluxDB 1.x for one that is none of a tag with a constant.
    """
    match condition:
        case ast.ParenExpr(inner):
            yield from comparisons(inner)
        case ast.BinaryExpr("AND" | "OR", lhs, rhs):
            yield from comparisons(lhs)
            yield from comparisons(rhs)
        case ast.BinaryExpr(op, lhs, rhs):
            if op not in _EQUALITIES:
                raise RequestError("invalid tag comparison operator")
            if not isinstance(lhs, ast.VarRef):
                raise RequestError(f"left side of '{op}' must be a tag key")
            if op in ("=~", "!~") and not isinstance(rhs, ast.RegexLiteral):
                raise RequestError(f"right side of '{op}' must be a regular expression")
            if op in ("=", "!=") and not isinstance(rhs, ast.StringLiteral):
                raise RequestError(f"right side of '{op}' must be a tag value string")
            yield condition
        case ast.BooleanLiteral(value):
            raise RequestError(f"&influxql.BooleanLiteral{{Val:{str(value).lower()}}}")
        case ast.VarRef(name):
            raise RequestError(f'&influxql.VarRef{{Val:"{name}", Type:0}}')
        case _:
            raise RequestError("invalid tag comparison operator")


def facts_about(condition: ast.Expr, reader: ShardReader, measurement: str) -> dict[str, list[str]]:
    """What a shard knows of a measurement, by the number of the comparison."""
    keys = reader.tag_keys(measurement)
    found: dict[str, list[str]] = {}
    for number, comparison in enumerate(comparisons(condition)):
        assert isinstance(comparison.lhs, ast.VarRef)
        key = comparison.lhs.name
        if key in keys:
            matches = len(reader.series(measurement, _having(key, comparison.rhs))) > 0
            found[str(number)] = [KEY, MATCH] if matches else [KEY]
    return found


def _having(key: str, value: ast.Expr) -> TagPredicate:
    """Series that have the tag with a value that is named."""
    there = TagEquals(key, "", negated=True)
    if isinstance(value, ast.RegexLiteral):
        return AllOf((there, TagMatches(key, value.pattern)))
    assert isinstance(value, ast.StringLiteral)
    return AllOf((there, TagEquals(key, value.value)))


def measurement_matches(condition: ast.Expr, measurement: str, facts: Mapping[str, list[str]]) -> bool:
    """Whether SHOW MEASUREMENTS lists a measurement of which all shards together know these facts.

    As in InfluxDB 1.x a comparison is about all series of a measurement: ``=`` and ``=~`` hold when one of them has
    such a value, ``!=`` and ``!~`` when it has the tag and none of them has.
    """
    numbers = iter(range(len(list(comparisons(condition)))))

    def holds(expr: ast.Expr) -> bool:
        match expr:
            case ast.ParenExpr(inner):
                return holds(inner)
            case ast.BinaryExpr("AND" | "OR" as op, lhs, rhs):
                left, right = holds(lhs), holds(rhs)
                return (left and right) if op == "AND" else (left or right)
            case ast.BinaryExpr(op, ast.VarRef(key), value):
                known = facts.get(str(next(numbers)), [])
                if key == "_name":
                    return _name_matches(op, measurement, value)
                return KEY in known and (MATCH in known) == (op in ("=", "=~"))
        return False

    return holds(condition)
