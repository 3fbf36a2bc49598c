"""A map that is never changed in place and whose changed copy is cheap: √n entries are copied, not n."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

V = TypeVar("V")

_FIRST_BUCKETS = 8
_FILL = 2  # mean bucket size at which the buckets are doubled, in units of their number


class PersistentMap(msgspec.Struct, Generic[V], frozen=True, array_like=True):
    """Text keys to values, spread over buckets by CRC-32 of the key, so that every node and every start agrees.

    The number of buckets follows the square root of the size: a change copies one bucket and the tuple of buckets,
    about 3·√n references. Equal histories give equal maps; the order of ``items`` is fixed by the keys and the size.
    """

    size: int = 0
    buckets: tuple[dict[str, V], ...] = ()

    def __len__(self) -> int:
        return self.size

    def get(self, key: str) -> V | None:
        """The value of ``key``, or None."""
        if not self.buckets:
            return None
        return self.buckets[_slot(key, len(self.buckets))].get(key)

    def items(self) -> Iterator[tuple[str, V]]:
        """All entries, bucket after bucket."""
        for bucket in self.buckets:
            yield from bucket.items()

    def with_items(self, changes: Mapping[str, V]) -> PersistentMap[V]:
        """A copy in which ``changes`` are set; buckets that no change touches are shared with this map."""
        buckets = list(self.buckets) or [{} for _ in range(_FIRST_BUCKETS)]
        fresh: set[int] = set()
        size = self.size
        for key, value in changes.items():
            slot = _slot(key, len(buckets))
            if slot not in fresh:
                buckets[slot] = buckets[slot].copy()
                fresh.add(slot)
            size += key not in buckets[slot]
            buckets[slot][key] = value
        wanted = len(buckets)
        while size > _FILL * wanted * wanted:
            wanted *= 2
        if wanted != len(buckets):
            buckets = _spread(buckets, wanted)
        return PersistentMap(size, tuple(buckets))

    def without(self, key: str) -> PersistentMap[V]:
        """A copy that lacks ``key``; this map itself where it never had it. Buckets are not merged again."""
        if self.get(key) is None:
            return self
        slot = _slot(key, len(self.buckets))
        bucket = self.buckets[slot].copy()
        del bucket[key]
        return PersistentMap(self.size - 1, (*self.buckets[:slot], bucket, *self.buckets[slot + 1 :]))


def _slot(key: str, buckets: int) -> int:
    return zlib.crc32(key.encode()) & (buckets - 1)


def _spread(buckets: list[dict[str, V]], wanted: int) -> list[dict[str, V]]:
    spread: list[dict[str, V]] = [{} for _ in range(wanted)]
    for bucket in buckets:
        for key, value in bucket.items():
            spread[_slot(key, wanted)][key] = value
    return spread
