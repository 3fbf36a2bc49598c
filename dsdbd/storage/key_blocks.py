"""Lists of series keys as they stand in logged batches, and the numbers found for them.

A client that writes the same series again and again sends the same list again and again: a replay recognises the bytes
of the list and need not look up its keys one by one.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from dsdbd.model.columns import Int32s, Int64s, decode_keys
from dsdbd.storage.index_parse import ParsedKeys, parse_uniform

_DIGEST_BYTES = 16
_KEPT_BYTES = 64 << 20
"""Numbers kept by one replay, four bytes each; beyond it those go that were not asked for the longest."""


class KnownNumbers:
    """Numbers of lists of keys by where the lists belong and by a digest of their bytes.

    For one thread; another one may call ``has`` and read ``expects_new``: whether the last list that was not known
    was one of new series, so that the next probably is.
    """

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        self.expects_new = True
        self._kept_bytes = kept_bytes
        self._bytes = 0
        self._numbers: OrderedDict[tuple[int, str, bytes], Int32s] = OrderedDict()

    def has(self, place: tuple[int, str, bytes]) -> bool:
        """Whether the numbers are known."""
        return place in self._numbers

    def find(self, place: tuple[int, str, bytes]) -> Int64s | None:
        """The numbers int64[n], None when they are not known."""
        found = self._numbers.get(place)
        if found is None:
            return None
        self._numbers.move_to_end(place)
        return found.astype(np.int64)

    def keep(self, place: tuple[int, str, bytes], numbers: Int64s) -> None:
        """Remember the numbers of a list that was not known."""
        self._numbers[place] = kept = numbers.astype(np.int32)
        self._bytes += kept.nbytes
        while self._bytes > self._kept_bytes:
            self._bytes -= self._numbers.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all: series may have lost their numbers."""
        self._numbers.clear()
        self._bytes = 0


class KeyBlock(Sequence[bytes]):
    """n keys as MessagePack, decoded when somebody looks at them, which may raise CorruptData.

    ``shard_id``, ``measurement``: whose series they are. Shares ``known`` with the other lists of a replay.
    """

    __slots__ = ("_count", "_encoded", "_known", "_parsed", "_place")

    def __init__(
        self, encoded: bytes | memoryview, count: int, shard_id: int, measurement: str, known: KnownNumbers
    ) -> None:
        self._encoded = encoded
        self._count = count
        digest = hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).digest()
        self._place = shard_id, measurement, digest
        self._known = known
        self._parsed: tuple[list[bytes], list[ParsedKeys]] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        return self.keys()[index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.keys())

    def keys(self) -> list[bytes]:
        """The keys, decoded anew."""
        return decode_keys(self._encoded)

    def parse_new(self) -> None:
        """Parse the keys ahead of time if they are probably new. Raises CorruptData."""
        if self._known.expects_new and not self._known.has(self._place):
            keys = self.keys()
            self._parsed = keys, list(parse_uniform(keys))

    def parsed(self) -> tuple[list[bytes], list[ParsedKeys] | None]:
        """The keys, and what ``parse_uniform`` made of them ahead of time."""
        return (self.keys(), None) if self._parsed is None else self._parsed

    def numbers(self) -> Int64s | None:
        """Their numbers, if they were found before."""
        return self._known.find(self._place)

    def found(self, numbers: Int64s, *, new: bool) -> None:
        """Remember their numbers; ``new``: no series was known before."""
        self._known.keep(self._place, numbers)
        self._known.expects_new = new
