"""Growing columns and a hash table over them, in NumPy: no Python object per entry, and no step that takes long."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dsdbd.model.columns import Bools, Int32s, Int64s

STEP = 1 << 14
"""Entries handled in one go, so that the interpreter lock is never held for more than a few milliseconds."""
_FIRST_SLOTS = 16
_FULL = 0.6
"""Share of used slots at which the table doubles; with linear probing a look-up then takes two steps on average."""


class Growing:
    """An append-only column. One thread appends, any thread reads: what ``view`` gave once never changes."""

    __slots__ = ("_buffer", "count")

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._buffer: npt.NDArray[Any] = np.empty(8, dtype=dtype)
        self.count = 0

    def view(self) -> npt.NDArray[Any]:
        """All entries, without a copy."""
        count = self.count  # before the buffer: a later buffer holds these entries too
        return self._buffer[:count]

    def extend(self, values: npt.NDArray[Any]) -> None:
        """Append entries."""
        end = self.count + len(values)
        self._reserve(end)
        self._buffer[self.count : end] = values
        self.count = end

    def append(self, value: int) -> None:
        """Append one entry."""
        self._reserve(self.count + 1)
        self._buffer[self.count] = value
        self.count += 1

    def _reserve(self, needed: int) -> None:
        if needed > len(self._buffer):
            # What is reserved and not yet written takes no memory: the system gives pages when they are touched.
            larger = np.empty(max(needed, len(self._buffer) * 3 // 2), dtype=self._buffer.dtype)
            larger[: self.count] = self._buffer[: self.count]
            self._buffer = larger

    @property
    def size_bytes(self) -> int:
        """Memory of the entries."""
        return self.count * self._buffer.itemsize


class HashTable:
    """Ids 0, 1, 2 … by their 64-bit hashes: open addressing with linear probing.

    It knows hashes only. An id whose hash another one has already is not placed: the caller compares what ``find``
    gives with what it looks for, and keeps the ids that ``add`` did not place elsewhere.
    """

    def __init__(self) -> None:
        self._hashes = Growing(np.int64)
        self._slots: Int32s = np.full(_FIRST_SLOTS, -1, dtype=np.int32)
        self._unplaced: set[int] = set()

    def __len__(self) -> int:
        return self._hashes.count

    @property
    def size_bytes(self) -> int:
        """Memory of hashes and slots."""
        return self._hashes.size_bytes + self._slots.nbytes

    def find(self, hashes: Int64s) -> Int32s:
        """The placed id of each hash, -1 where there is none."""
        slots = self._slots
        mask = len(slots) - 1
        at = hashes & mask
        ids: Int32s = slots[at]
        if not len(self):
            return ids
        stored = self._hashes.view()
        stepping = np.flatnonzero((ids >= 0) & (stored[ids] != hashes))
        at = at[stepping]
        while len(stepping):
            at = at + 1 & mask
            found = slots[at]
            ids[stepping] = found
            further = (found >= 0) & (stored[found] != hashes[stepping])
            stepping, at = stepping[further], at[further]
        return ids

    def find_one(self, value: int) -> int:
        """The placed id of a hash, -1 when there is none."""
        slots = self._slots
        stored = self._hashes.view()
        mask = len(slots) - 1
        at = value & mask
        while (found := int(slots[at])) >= 0:
            if stored[found] == value:
                break
            at = at + 1 & mask
        return found

    def add(self, hashes: Int64s, taken: Bools | None = None) -> Int64s:
        """Give the next ids to some hashes; returns the positions of those whose hash was taken already.

        ``taken``: which of them are, for a caller that has asked ``find``.
        """
        first = len(self)
        taken = self.find(hashes) >= 0 if taken is None else taken.copy()
        in_order = np.sort(hashes)
        if bool((in_order[1:] == in_order[:-1]).any()):
            again = np.ones(len(hashes), dtype=np.bool_)
            again[np.unique(hashes, return_index=True)[1]] = False
            taken |= again
        self._hashes.extend(hashes)
        positions = np.flatnonzero(taken)
        self._unplaced.update((positions + first).tolist())
        if len(self) > len(self._slots) * _FULL:
            self._grow()
        else:
            _place(self._slots, self._hashes.view(), _all_but(first, len(self), self._unplaced))
        return positions

    def add_one(self, value: int) -> bool:
        """Give the next id to a hash; False when another id has it."""
        if len(self) + 1 > len(self._slots) * _FULL:
            return not len(self.add(np.array([value], dtype=np.int64)))
        slots = self._slots
        placed = self.find_one(value) < 0
        number = len(self)
        self._hashes.append(value)
        if placed:
            mask = len(slots) - 1
            at = value & mask
            while slots[at] >= 0:
                at = at + 1 & mask
            slots[at] = number
        else:
            self._unplaced.add(number)
        return placed

    def _grow(self) -> None:
        size = len(self._slots)
        while len(self) > size * _FULL:
            size *= 2
        slots: Int32s = np.full(size, -1, dtype=np.int32)
        hashes = self._hashes.view()
        for start in range(0, len(hashes), STEP):
            _place(slots, hashes, _all_but(start, min(start + STEP, len(hashes)), self._unplaced))
        self._slots = slots  # readers see the old table or the new one


def _all_but(start: int, stop: int, left_out: set[int]) -> Int32s:
    ids = np.arange(start, stop, dtype=np.int32)
    return ids[~np.isin(ids, np.fromiter(left_out, np.int32, len(left_out)))] if left_out else ids


def _place(slots: Int32s, hashes: Int64s, ids: Int32s) -> None:
    mask = len(slots) - 1
    at = hashes[ids] & mask
    while len(ids):
        free = slots[at] < 0
        slots[at[free]] = ids[free]  # of several ids for one slot the last one wins
        lost: Bools = slots[at] != ids
        ids, at = ids[lost], at[lost] + 1 & mask
