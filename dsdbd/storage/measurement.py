"""What a shard knows of one measurement."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from pathlib import Path

from dsdbd.model.types import FieldType
from dsdbd.storage.block import Block
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.scanning import Source
from dsdbd.storage.segment import Segment
from dsdbd.storage.selection import RunLookup


@dataclass(slots=True)
class Measurement:
    """One measurement of a shard; guarded by the shard's lock.

    ``types``: each field ever seen, in segments or in memory. ``next_number``: of the next segment file.
    """

    directory: Path
    index: SeriesIndex = field(default_factory=SeriesIndex)
    segments: list[Segment] = field(default_factory=list)
    types: dict[str, FieldType] = field(default_factory=dict)
    next_number: int = 1
    _lookups: weakref.WeakKeyDictionary[Block, RunLookup] = field(default_factory=weakref.WeakKeyDictionary)

    def source(self, block: Block) -> Source:
        """A block, the series of which have their numbers, with its runs by series."""
        lookup = self._lookups.get(block)
        if lookup is None:
            lookup = self._lookups[block] = RunLookup(block.runs())
        return Source(block, lookup)
