"""What DELETE, DROP SERIES and DROP MEASUREMENT delete, as tags and times per measurement. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import re2

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql.condition import split_condition
from dsdbd.model.predicate import EVERY_SERIES, AllOf, AnyOf, TagEquals, TagMatches, TagPredicate
from dsdbd.query.plan_condition import NO_SERIES
from dsdbd.query.schema import matching

MIN_NS, MAX_NS = -(1 << 63), (1 << 63) - 1
_EQUALITIES = ("=", "!=")
_MATCHES = ("=~", "!~")
_OF_THE_INDEX = ("_tagkey", "_fieldkey")
"""Names, in small letters, to which the index of InfluxDB gives a meaning, and which are no tags of a series."""


class Deletion(NamedTuple):
    """Points of a measurement within inclusive times; ``predicate`` None: of all its series."""

    measurement: str
    predicate: TagPredicate | None
    min_ns: int
    max_ns: int


def deletions(
    statement: ast.Delete | ast.DropSeries, fields: Mapping[str, Collection[str]], now_ns: int
) -> list[Deletion]:
    """What a statement deletes where there are these measurements, given with the names of their fields.

    A measurement that is not there is no error. Raises RequestError, with the words of InfluxDB 1.x where it has some,
    for a WHERE that needs more than tags and times, so that nothing is deleted by a condition that was meant otherwise.
    """
    condition, times = split_condition(statement.condition, now_ns)
    if isinstance(statement, ast.DropSeries) and not times.is_unbounded:
        raise RequestError("DROP SERIES doesn't support time in WHERE clause")
    low = MIN_NS if times.min_ns is None else times.min_ns
    high = MAX_NS if times.max_ns is None else times.max_ns
    found = []
    for name in _measurements(statement.sources, fields):
        predicate = EVERY_SERIES if condition is None else _predicate(condition, name, fields[name])
        if predicate != NO_SERIES and low <= high:
            found.append(Deletion(name, None if predicate == EVERY_SERIES else predicate, low, high))
    return found


def _measurements(sources: tuple[ast.Source, ...], known: Collection[str]) -> list[str]:
    if not sources:
        return sorted(known)
    wanted: list[str | re2._Regexp] = []
    for source in sources:
        assert not isinstance(source, ast.SubQuery), "the grammar has none here"
        wanted.append(source.name if source.regex is None else re2.compile(source.regex.pattern))
    return matching(known, wanted)


def _predicate(expr: ast.Expr, measurement: str, fields: Collection[str]) -> TagPredicate:
    match expr:
        case ast.ParenExpr(inner):
            return _predicate(inner, measurement, fields)
        case ast.BooleanLiteral(value):
            return EVERY_SERIES if value else NO_SERIES
        case ast.BinaryExpr("AND", lhs, rhs):
            return _both(_predicate(lhs, measurement, fields), _predicate(rhs, measurement, fields))
        case ast.BinaryExpr("OR", lhs, rhs):
            return _either(_predicate(lhs, measurement, fields), _predicate(rhs, measurement, fields))
        case ast.BinaryExpr(op, ast.VarRef(name, kind), value) | ast.BinaryExpr(op, value, ast.VarRef(name, kind)):
            if kind in (None, "tag") and (kind == "tag" or name not in fields):
                return _comparison(op, name, value, measurement)
    raise RequestError("fields not supported in WHERE clause during deletion")


def _comparison(op: str, name: str, value: ast.Expr, measurement: str) -> TagPredicate:
    negated = op in ("!=", "!~")
    match value:
        case ast.StringLiteral(text) if op in _EQUALITIES:
            if name == "_name":
                return EVERY_SERIES if (text == measurement) != negated else NO_SERIES
            _refuse_reserved(name)
            return TagEquals(name, text, negated)
        case ast.RegexLiteral(pattern) if op in (*_MATCHES, *_EQUALITIES):
            if name == "_name":
                return EVERY_SERIES if (re2.search(pattern, measurement) is not None) != negated else NO_SERIES
            _refuse_reserved(name)
            return TagMatches(name, pattern, negated)
        case ast.StringLiteral() | ast.RegexLiteral() | ast.VarRef():
            raise RequestError(
                "invalid tag comparison operator: a deletion compares a tag with a text by = or !=, "
                "with a regular expression by =~ or !~"
            )
    raise RequestError("fields not supported in WHERE clause during deletion")


def _refuse_reserved(name: str) -> None:
    if name.lower() in _OF_THE_INDEX:
        raise RequestError(f"{name} is not supported in WHERE clause during deletion")


def _both(left: TagPredicate, right: TagPredicate) -> TagPredicate:
    if NO_SERIES in (left, right):
        return NO_SERIES
    if EVERY_SERIES in (left, right):
        return right if left == EVERY_SERIES else left
    return AllOf((left, right))


def _either(left: TagPredicate, right: TagPredicate) -> TagPredicate:
    if EVERY_SERIES in (left, right):
        return EVERY_SERIES
    if NO_SERIES in (left, right):
        return right if left == NO_SERIES else left
    return AnyOf((left, right))
