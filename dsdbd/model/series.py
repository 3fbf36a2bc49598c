r"""A series: a measurement and its tags.

Its key is the line protocol text before the first unescaped space, tags sorted by their keys: UTF-8 bytes such as
``cpu,host=a,region=eu\ west``. Keys travel with points; they are parsed once, where a series is new.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import NamedTuple

from dsdbd.errors import CorruptData

_MEASUREMENT_ESCAPES = str.maketrans({",": r"\,", " ": r"\ "})
_TAG_ESCAPES = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\="})
_COMMA = re.compile(r"(?<!\\),")
_EQUALS = re.compile(r"(?<!\\)=")


class Series(NamedTuple):
    """Measurement and tags; ``tags`` is sorted by key and holds no empty value, so equal series are equal tuples."""

    measurement: str
    tags: tuple[tuple[str, str], ...]

    def key(self) -> bytes:
        r"""Canonical escaped text in UTF-8, e.g. ``cpu,host=a,region=eu\ west``."""
        parts = [self.measurement.translate(_MEASUREMENT_ESCAPES)]
        parts += [f"{key.translate(_TAG_ESCAPES)}={value.translate(_TAG_ESCAPES)}" for key, value in self.tags]
        return ",".join(parts).encode()

    def tag(self, key: str) -> str:
        """Value of a tag; the empty string where the series lacks it, as InfluxQL compares absent tags."""
        for name, value in self.tags:
            if name == key:
                return value
        return ""


def parse_key(key: bytes) -> Series:
    """The series of a canonical key; raises CorruptData for bytes that are none."""
    try:
        text = key.decode()
        if "\\" not in text:
            measurement, *pairs = text.split(",")
            tags = [(name, value) for name, _, value in (pair.partition("=") for pair in pairs)]
        else:
            measurement, *pairs = _COMMA.split(text)
            measurement = measurement.replace("\\,", ",").replace("\\ ", " ")
            tags = []
            for pair in pairs:
                name, value = _EQUALS.split(pair, maxsplit=1)
                tags.append((_unescape_tag(name), _unescape_tag(value)))
    except ValueError as error:
        raise CorruptData(f"{key[:200]!r} is not the key of a series: {error}") from error
    if not all(name and value for name, value in tags):
        raise CorruptData(f"{key[:200]!r} is not the key of a series: a tag lacks its name or value")
    return Series(measurement, tuple(tags))


def _unescape_tag(text: str) -> str:
    return text.replace("\\,", ",").replace("\\ ", " ").replace("\\=", "=")


@functools.lru_cache(maxsize=1 << 17)
def series_hash(key: bytes) -> int:
    """Stable 64-bit hash of a series key that places the series on a shard (BLAKE2b, little endian).

    The value decides where points live, so it must never change between versions; a test pins examples.
    """
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
