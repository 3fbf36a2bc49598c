"""What head and segments have in common for a reader: blocks of rows sorted by series and time, divided into runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dsdbd.model.columns import Column, Int64s
from dsdbd.model.types import FieldType


@dataclass(frozen=True, slots=True)
class Runs:
    """The r runs of a block: neighbouring rows of one series, sorted by (time, version). All int64[r].

    ``series``: number of the series in the shard's index of the measurement, each at most once.
    ``starts``: first row of each run, ascending from 0. ``lengths``: rows of each run, at least 1.
    ``first_ns``, ``last_ns``: least and greatest time of each run.
    """

    series: Int64s
    starts: Int64s
    lengths: Int64s
    first_ns: Int64s
    last_ns: Int64s


class Block(Protocol):
    """Sorted, unchanging rows of one measurement, in memory or in a file.

    Row ranges are given as two int64 arrays, ``starts`` and ``stops``, disjoint and ascending; results have the rows
    of all ranges one after another. Reading a file raises CorruptData or OSError.
    """

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """Fields that some row may have."""

    @property
    def unique(self) -> bool:
        """Whether no two rows have the same series and time."""

    @property
    def portions(self) -> Int64s:
        """First rows of the portions in which the block lies in memory, from 0: a range inside one is no copy."""

    def runs(self) -> Runs:
        """The runs; their series are numbered before a block is read."""

    def prepare(self, starts: Int64s, stops: Int64s, fields: Sequence[str]) -> None:
        """Read what the following calls will ask for in one go; they work without it, too."""

    def times(self, starts: Int64s, stops: Int64s) -> Int64s:
        """Times in nanoseconds."""

    def times_of_each(self, starts: Int64s, stops: Int64s) -> list[Int64s]:
        """The same for each of a few ranges by itself, without copying where a range lies in one portion."""

    def versions(self, starts: Int64s, stops: Int64s) -> Int64s:
        """Row versions."""

    def column(self, field: str, starts: Int64s, stops: Int64s) -> Column:
        """Values of a field the block has."""
