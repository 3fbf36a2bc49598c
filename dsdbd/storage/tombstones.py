"""Deletions: what was written before one and is within its series and times does not count. Pure.

A tombstone hides rows in scans at once; writing out and merging leave such rows out. It is kept while a file or a late
batch may still bring one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from dsdbd.decoding import decode_json
from dsdbd.errors import CorruptData
from dsdbd.model.columns import Bools, Int64s
from dsdbd.model.predicate import AllOf, AnyOf, TagEquals, TagMatches, TagPredicate
from dsdbd.storage.rows import Rows

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Rows of a measurement with a version below ``version``, within inclusive times, of matching series are deleted.

    ``predicate``: None for all series. ``files``: numbers of the segment files that may hold such rows.
    """

    measurement: str
    predicate: TagPredicate | None
    min_ns: int
    max_ns: int
    version: int
    files: frozenset[tuple[int, int]] = frozenset()

    def covers(self, other: Tombstone) -> bool:
        """Whether everything the other one hides is hidden by this one, too."""
        return (
            self.measurement == other.measurement
            and (self.predicate is None or self.predicate == other.predicate)
            and self.min_ns <= other.min_ns
            and self.max_ns >= other.max_ns
            and self.version >= other.version
        )


@dataclass(frozen=True, slots=True)
class Hidden:
    """A deletion for a set of series: rows of versions below ``version`` do not count. ``series``: bool by position."""

    series: Bools
    min_ns: int
    max_ns: int
    version: int


def marked(
    tombstones: Iterable[Tombstone],
    numbers: Int64s,
    select: Callable[[TagPredicate], Int64s],
    min_ns: int,
    max_ns: int,
) -> tuple[Hidden, ...]:
    """The deletions that concern series (distinct numbers, in any order) and inclusive times.

    ``select``: numbers of the series that match a predicate. Positions of the result are those in ``numbers``.
    """
    found = []
    for one in tombstones:
        if one.max_ns < min_ns or one.min_ns > max_ns:
            continue
        if one.predicate is None:
            series: Bools = np.ones(len(numbers), dtype=np.bool_)
        else:
            series = np.isin(numbers, select(one.predicate))
        if series.any():
            found.append(Hidden(series, one.min_ns, one.max_ns, one.version))
    return tuple(found)


def hidden_rows(marks: Sequence[Hidden], rows: Rows) -> Bools | None:
    """Which rows are deleted; ``rows.series`` are positions. None when no row is."""
    hidden: Bools | None = None
    for one in marks:
        mask = one.series[rows.series] & (rows.version < one.version)
        mask &= (rows.time_ns >= one.min_ns) & (rows.time_ns <= one.max_ns)
        hidden = mask if hidden is None else hidden | mask
    return hidden if hidden is not None and hidden.any() else None


def visible(marks: Sequence[Hidden], rows: Rows) -> Rows:
    """The rows that are not deleted."""
    hidden = hidden_rows(marks, rows)
    return rows if hidden is None else rows.take(np.flatnonzero(~hidden))


def with_tombstone(known: Sequence[Tombstone], new: Tombstone) -> tuple[Tombstone, ...]:
    """The tombstones with one more; those it covers go, and when one covers it, only the files are added to that."""
    for at, one in enumerate(known):
        if one.covers(new):
            return (*known[:at], replace(one, files=one.files | new.files), *known[at + 1 :])
    return (*(one for one in known if not new.covers(one)), new)


def still_needed(
    known: Sequence[Tombstone], measurement: str, files: Iterable[tuple[int, int]], horizon: int
) -> tuple[Tombstone, ...]:
    """The tombstones without those of a measurement that can meet no row any more.

    ``files``: the measurement's segment files that there are. Files that are gone were merged, and what replaced them
    holds no row that was deleted. ``horizon``: no batch of a lower version is in memory or can still arrive.
    """
    there = frozenset(files)
    kept = []
    for one in known:
        mine = one.measurement == measurement
        left = one.files & there if mine else one.files
        if left or not mine or one.version > horizon:
            kept.append(replace(one, files=left))
    return tuple(kept)


def found_again(known: Iterable[Tombstone], files: Mapping[str, Iterable[tuple[int, int]]]) -> tuple[Tombstone, ...]:
    """Tombstones after a start, with the files there are by measurement.

    A crash may have come between a merge and the note that a deletion was not applied to it; so files that stand for
    others are taken to hold what those held.
    """
    return tuple(
        replace(
            one,
            files=frozenset(
                (low, high)
                for low, high in files.get(one.measurement, ())
                if any(low <= first and last <= high for first, last in one.files)
            ),
        )
        for one in known
    )


def after_merge(
    known: Sequence[Tombstone],
    applied: Sequence[Tombstone],
    merged: frozenset[tuple[int, int]],
    result: tuple[int, int],
) -> tuple[Tombstone, ...]:
    """Tombstones after files were merged into one to which only ``applied`` ones were applied."""
    done = {replace(one, files=frozenset()) for one in applied}
    return tuple(
        replace(one, files=one.files | {result})
        if one.files & merged and replace(one, files=frozenset()) not in done
        else one
        for one in known
    )


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    measurement: str
    predicate: list[Any] | None
    min_ns: int
    max_ns: int
    version: int
    files: list[tuple[int, int]]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    tombstones: list[_Wire]


def encode_tombstones(tombstones: Iterable[Tombstone]) -> bytes:
    """The content of a shard's file of tombstones: JSON."""
    wires = [
        _Wire(
            one.measurement,
            None if one.predicate is None else _to_wire(one.predicate),
            one.min_ns,
            one.max_ns,
            one.version,
            sorted(one.files),
        )
        for one in tombstones
    ]
    return msgspec.json.encode(_File(_FORMAT, wires))


def decode_tombstones(data: bytes) -> tuple[Tombstone, ...]:
    """The tombstones of ``encode_tombstones``; raises CorruptData for anything else."""
    try:
        content = decode_json(data, _File)
        if content.format != _FORMAT:
            raise CorruptData(f"it has format {content.format}; this version reads {_FORMAT}")
        return tuple(
            Tombstone(
                one.measurement,
                None if one.predicate is None else _from_wire(one.predicate),
                one.min_ns,
                one.max_ns,
                one.version,
                frozenset(one.files),
            )
            for one in content.tombstones
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptData(str(error)) from error


def _to_wire(predicate: TagPredicate) -> list[Any]:
    match predicate:
        case TagEquals(key, value, negated):
            return ["equals", key, value, negated]
        case TagMatches(key, pattern, negated):
            return ["matches", key, pattern, negated]
        case AllOf(parts):
            return ["all", *map(_to_wire, parts)]
        case AnyOf(parts):
            return ["any", *map(_to_wire, parts)]


def _from_wire(wire: Any) -> TagPredicate:
    match wire:
        case ["equals", str(key), str(value), bool(negated)]:
            return TagEquals(key, value, negated)
        case ["matches", str(key), str(pattern), bool(negated)]:
            return TagMatches(key, pattern, negated)
        case ["all", *parts]:
            return AllOf(tuple(map(_from_wire, parts)))
        case ["any", *parts]:
            return AnyOf(tuple(map(_from_wire, parts)))
    raise CorruptData(f"it holds a predicate that is none: {wire!r:.80}")
