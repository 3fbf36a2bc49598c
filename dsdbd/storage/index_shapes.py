"""Series of equal tag keys as columns of codes, and their keys built from these columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Int32s, Int64s
from dsdbd.model.series import Series
from dsdbd.storage.index_table import Growing
from dsdbd.storage.index_texts import TextDictionary, escaped, large_text

_ZONE = 1 << 16
"""Series of a shape whose least and greatest code are kept, so that equality looks only where a code may be."""


class Shape:
    """The series with the same measurement and tag keys: a code per tag, and their numbers in the index.

    ``prefix``: the escaped measurement. ``names``: tag keys, ascending. ``codes``: a column per tag key.
    """

    __slots__ = ("_zones", "codes", "dictionaries", "literals", "names", "numbers", "places", "prefix")

    def __init__(self, prefix: str, names: tuple[str, ...], dictionaries: Sequence[TextDictionary]) -> None:
        self.prefix = prefix
        self.names = names
        self.dictionaries = tuple(dictionaries)
        self.places = {name: place for place, name in enumerate(names)}
        self.literals = literals(prefix, names)
        self.codes = tuple(Growing(np.int32) for _ in names)
        self.numbers = Growing(np.int32)
        self._zones: dict[int, tuple[Int32s, Int32s]] = {}

    @property
    def size_bytes(self) -> int:
        """Memory of the columns."""
        return self.numbers.size_bytes + sum(column.size_bytes for column in self.codes)

    def key(self, row: int) -> bytes:
        """Key of one series."""
        values = [
            dictionary.text(int(column.view()[row]))
            for dictionary, column in zip(self.dictionaries, self.codes, strict=True)
        ]
        if any(dictionary.has_escapes for dictionary in self.dictionaries):
            return self.prefix.encode() + Series("", tuple(zip(self.names, values, strict=True))).key()
        return "".join([part for pair in zip(self.literals, values, strict=True) for part in pair]).encode()

    def keys(self, rows: Int64s) -> Any:
        """Keys of some series, an Arrow ``large_string`` array."""
        columns = [
            (dictionary.texts().array, column.view()[rows], dictionary.has_escapes)
            for dictionary, column in zip(self.dictionaries, self.codes, strict=True)
        ]
        return join_keys(self.prefix, self.literals, columns, len(rows))

    def with_code(self, place: int, code: int, count: int) -> Int64s:
        """Rows below ``count`` that have a code in a column, ascending."""
        codes = self.codes[place].view()[:count]
        if count < _ZONE:
            found_rows: Int64s = (codes == code).nonzero()[0]
            return found_rows
        low, high = self._zone_bounds(place, codes)
        found = [
            np.flatnonzero(codes[zone * _ZONE : (zone + 1) * _ZONE] == code) + zone * _ZONE
            for zone in np.flatnonzero((low <= code) & (high >= code)).tolist()
        ]
        tail = len(low) * _ZONE
        found.append(np.flatnonzero(codes[tail:] == code) + tail)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _zone_bounds(self, place: int, codes: Int32s) -> tuple[Int32s, Int32s]:
        """Least and greatest code of every whole zone."""
        whole = len(codes) // _ZONE
        low, high = self._zones.get(place, (codes[:0], codes[:0]))
        if len(low) < whole:
            fresh = codes[len(low) * _ZONE : whole * _ZONE].reshape(-1, _ZONE)
            low, high = np.append(low, fresh.min(axis=1)), np.append(high, fresh.max(axis=1))
            self._zones[place] = (low, high)
        return low[:whole], high[:whole]


def literals(prefix: str, names: Sequence[str]) -> tuple[str, ...]:
    """What stands in a key before each value: ``cpu,host=``, ``,region=`` and so on."""
    texts = [f",{Series('', ((name, ''),)).key().decode()[1:]}" for name in names]
    return (prefix + texts[0], *texts[1:]) if texts else ()


def join_keys(prefix: str, before: Sequence[str], columns: Sequence[tuple[Any, Int32s, bool]], count: int) -> Any:
    """Keys of ``count`` series, an Arrow ``large_string`` array.

    ``before``: the literal before each tag's value. ``columns``: the values of each tag, a code per series, and
    whether a value may need escapes.
    """
    parts = []
    for literal, (values, codes, has_escapes) in zip(before, columns, strict=True):
        if len(values) <= count:
            texts = escaped(values) if has_escapes else values
            tokens = pc.binary_join_element_wise(large_text(literal), texts, large_text(""))
            parts.append(tokens.take(_positions(codes)))
        else:
            texts = values.take(_positions(codes))
            parts += [large_text(literal), escaped(texts) if has_escapes else texts]
    if not parts:
        return pc.if_else(np.ones(count, dtype=np.bool_), large_text(prefix), large_text(""))
    return pc.binary_join_element_wise(*parts, large_text(""))


def _positions(codes: Int32s) -> Any:
    return pa.array(codes)
