"""Predicates on tags: what a query asks of a series, as data that crosses rooms and nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import re2

from dsdbd.model.series import Series


@dataclass(frozen=True, slots=True)
class TagEquals:
    """``key = value``; an absent tag equals the empty string."""

    key: str
    value: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class TagMatches:
    """``key =~ /pattern/`` with RE2 syntax; an absent tag is matched as the empty string."""

    key: str
    pattern: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class AllOf:
    """True when every part is; an empty one is true."""

    parts: tuple[TagPredicate, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when at least one part is; an empty one is false."""

    parts: tuple[TagPredicate, ...]


TagPredicate: TypeAlias = TagEquals | TagMatches | AllOf | AnyOf
EVERY_SERIES = AllOf(())


def matches(predicate: TagPredicate, series: Series) -> bool:
    """Evaluate a predicate on one series; the reference that indexes are compared with."""
    match predicate:
        case TagEquals(key, value, negated):
            return (series.tag(key) == value) != negated
        case TagMatches(key, pattern, negated):
            return (re2.search(pattern, series.tag(key)) is not None) != negated
        case AllOf(parts):
            return all(matches(part, series) for part in parts)
        case AnyOf(parts):
            return any(matches(part, series) for part in parts)
