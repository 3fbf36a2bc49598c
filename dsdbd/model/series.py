"""A series: a measurement and its tags. Its key is the line protocol text before the first unescaped space."""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

_MEASUREMENT_ESCAPES = str.maketrans({",": r"\,", " ": r"\ "})
_TAG_ESCAPES = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\="})


class Series(NamedTuple):
    """Measurement and tags; ``tags`` is sorted by key and holds no empty value, so equal series are equal tuples."""

    measurement: str
    tags: tuple[tuple[str, str], ...]

    def key(self) -> str:
        r"""Canonical escaped text, e.g. ``cpu,host=a,region=eu\ west``."""
        parts = [self.measurement.translate(_MEASUREMENT_ESCAPES)]
        parts += [f"{key.translate(_TAG_ESCAPES)}={value.translate(_TAG_ESCAPES)}" for key, value in self.tags]
        return ",".join(parts)

    def tag(self, key: str) -> str:
        """Value of a tag; the empty string where the series lacks it, as InfluxQL compares absent tags."""
        for name, value in self.tags:
            if name == key:
                return value
        return ""


@functools.lru_cache(maxsize=1 << 17)
def series_hash(series: Series) -> int:
    """Stable 64-bit hash that places a series on a shard (BLAKE2b of the key, little endian).

    The value decides where points live, so it must never change between versions; a test pins examples.
    """
    return int.from_bytes(hashlib.blake2b(series.key().encode(), digest_size=8).digest(), "little")
