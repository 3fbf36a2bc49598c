"""Many series given by columns of tags, such as those of a file, on their way into an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Bools, Int32s
from dsdbd.model.scan import TagColumn
from dsdbd.model.texts import Texts
from dsdbd.storage.index_shapes import join_keys, literals
from dsdbd.storage.index_table import STEP
from dsdbd.storage.index_texts import TextDictionary


class GivenTags:
    """Columns of tags with what is found out about their values once, however many steps they are taken in.

    ``prefix``: the measurement as it stands in keys. ``names``: tag keys, ascending. ``odd``: with a backslash of its
    own a text may read differently once it stands in a key; then the key decides.
    """

    def __init__(self, measurement: str, prefix: str, tags: Mapping[str, TagColumn]) -> None:
        self.prefix = prefix
        self.names = tuple(tags)
        self._tags = tags
        self._values: dict[str, Any] = {name: Texts.of(column.values).array for name, column in tags.items()}
        self._escapes = {name for name, array in self._values.items() if _has_any(array, (",", "=", " "))}
        self.odd = any("\\" in text for text in (measurement, *self.names)) or any(
            _has_any(array, ("\\",)) for array in self._values.values()
        )
        self._codes: dict[str, Int32s] = {}

    def codes(self, start: int) -> dict[str, Int32s]:
        """The codes of one step."""
        return {name: column.codes[start : start + STEP] for name, column in self._tags.items()}

    def keys(self, columns: Mapping[str, Int32s], count: int) -> list[bytes]:
        """Keys of ``count`` series that have these tags."""
        parts = [(self._values[name], codes, name in self._escapes) for name, codes in columns.items()]
        built = join_keys(self.prefix, literals(self.prefix, list(columns)), parts, count)
        keys: list[bytes] = built.cast(pa.large_binary()).to_pylist()
        return keys

    def interned(self, name: str, codes: Int32s, dictionary: TextDictionary) -> Int32s:
        """Codes of a dictionary for some codes of a tag; values become known there when a step first meets them."""
        mapping = self._codes.get(name)
        if mapping is None:
            mapping = self._codes[name] = np.full(len(self._values[name]), -1, dtype=np.int32)
        found = mapping[codes]
        if found.min(initial=0) < 0:
            used: Bools = np.zeros(len(mapping), dtype=np.bool_)
            used[codes[found < 0]] = True
            places = np.flatnonzero(used)
            mapping[places] = dictionary.add_all(self._values[name].take(pa.array(places)))
            found = mapping[codes]
        return found


def _has_any(values: Any, specials: Sequence[str]) -> bool:
    return any(bool(pc.any(pc.match_substring(values, special)).as_py()) for special in specials)
