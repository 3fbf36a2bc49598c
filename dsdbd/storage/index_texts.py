"""The distinct values of one tag: texts in one buffer, numbered by a code from 0 in order of arrival."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Bools, Int32s, Int64s
from dsdbd.model.texts import Texts
from dsdbd.storage.index_table import STEP, Growing, HashTable

_FEW = 1 << 12
"""Up to this many values are found by a Python dict, quicker for a single one, larger per value."""
_FEW_AT_ONCE = 32
"""Fewer values are looked up one by one."""
_TABLE_SHARE = 4
"""More known values than this many times the values that are looked up have a table of their own."""
_PATTERNS_KEPT = 8
"""Regular expressions whose matches are kept, one byte per value each: a dashboard repeats its own."""


class TextDictionary:
    """Values and their codes. One thread adds, any thread reads."""

    def __init__(self, hash_of: Callable[[Any], int] = hash) -> None:
        self._hash_of = hash_of
        self._bytes = Growing(np.uint8)
        self._ends = Growing(np.int64)
        self._ends.append(0)
        self._table = HashTable()
        self._clashing: dict[str, int] = {}
        self._few: dict[str, int] | None = {}
        self._texts = Texts(pa.array([], pa.large_string()))
        self._matches: dict[str, Bools] = {}
        self._ranks: dict[bool, Int32s] = {}
        self.has_escapes = False
        self.has_backslash = False

    def __len__(self) -> int:
        return self._ends.count - 1

    @property
    def size_bytes(self) -> int:
        """Memory of everything kept per value."""
        kept = sum(matched.nbytes for matched in self._matches.values())
        kept += sum(ranks.nbytes for ranks in self._ranks.values())
        return self._bytes.size_bytes + self._ends.size_bytes + self._table.size_bytes + kept

    def texts(self) -> Texts:
        """The values by code, as far as they are known now."""
        ends = self._ends.view()
        if len(self._texts) != len(ends) - 1:
            buffers = [None, pa.py_buffer(ends), pa.py_buffer(self._bytes.view())]
            self._texts = Texts(pa.Array.from_buffers(pa.large_string(), len(ends) - 1, buffers))
        return self._texts

    def text(self, code: int) -> str:
        """One value."""
        ends = self._ends.view()
        return bytes(self._bytes.view()[ends[code] : ends[code + 1]]).decode()

    def code(self, text: str) -> int:
        """Code of a value, -1 when no series has it."""
        few = self._few
        if few is not None:
            return few.get(text, -1)
        code = self._table.find_one(self._hash_of(text))
        return code if code < 0 or self.text(code) == text else self._clashing.get(text, -1)

    def add(self, text: str) -> int:
        """Code of a value, which is added when it is new."""
        code = self.code(text)
        if code >= 0:
            return code
        code = len(self)
        data = text.encode()
        self._note_specials(data)
        self._bytes.extend(np.frombuffer(data, dtype=np.uint8))
        self._ends.append(self._bytes.count)
        if not self._table.add_one(self._hash_of(text)):
            self._clashing[text] = code
        self._remember([text], code)
        return code

    def add_all(self, values: Any) -> Int32s:
        """Codes of the distinct values of an Arrow ``large_string`` array without nulls; new ones are added."""
        codes = np.empty(len(values), dtype=np.int32)
        for start in range(0, len(values), STEP):
            part = values[start : start + STEP]
            codes[start : start + len(part)] = self._add_part(part)
        return codes

    def _add_part(self, values: Any) -> Int32s:
        if len(values) < _FEW_AT_ONCE or len(self) > _TABLE_SHARE * len(values):
            return self._add_hashed(values)
        # For so few known values Arrow's own look-up, which makes its table anew, is quicker than Python objects.
        found = pc.index_in(values, value_set=self.texts().array).fill_null(-1)
        codes: Int32s = found.to_numpy(zero_copy_only=False)
        new = np.flatnonzero(codes < 0)
        if len(new):
            codes = codes.copy()
            codes[new] = self._add_hashed(values if len(new) == len(values) else values.take(pa.array(new)))
        return codes

    def _add_hashed(self, values: Any) -> Int32s:
        items: list[str] = values.to_pylist()
        few = self._few
        if few is not None and len(items) <= len(few) + 8:
            known = [few.get(item, -1) for item in items]
            if min(known, default=0) >= 0:
                return np.array(known, dtype=np.int32)
        hashes = np.fromiter(map(self._hash_of, items), dtype=np.int64, count=len(items))
        codes = self._table.find(hashes)
        hit = np.flatnonzero(codes >= 0)
        if len(hit):
            same = pc.equal(self.texts().take(codes[hit]), values.take(pa.array(hit))).to_numpy(zero_copy_only=False)
            for position in hit[~same].tolist():
                codes[position] = self._clashing.get(items[position], -1)
        new = np.flatnonzero(codes < 0)
        if len(new):
            taken: Bools = np.zeros(len(items), dtype=np.bool_)
            taken[hit] = True
            if len(new) == len(items):
                return self._append(values, items, hashes, taken)
            chosen = [items[position] for position in new.tolist()]
            codes[new] = self._append(values.take(pa.array(new)), chosen, hashes[new], taken[new])
        return codes

    def _append(self, values: Any, items: list[str], hashes: Int64s, taken: Bools) -> Int32s:
        first = len(self)
        ends, data = string_buffers(values)
        self._note_specials(data.tobytes())
        base = self._bytes.count
        self._bytes.extend(data)
        self._ends.extend(ends[1:] - ends[0] + base)
        for position in self._table.add(hashes, taken).tolist():
            self._clashing[items[position]] = first + position
        self._remember(items, first)
        return np.arange(first, first + len(items), dtype=np.int32)

    def _remember(self, items: list[str], first: int) -> None:
        if self._few is not None:
            if len(self) > _FEW:
                self._few = None
            else:
                self._few.update(zip(items, range(first, first + len(items)), strict=True))

    def _note_specials(self, data: bytes) -> None:
        self.has_backslash = self.has_backslash or b"\\" in data
        self.has_escapes = self.has_escapes or any(special in data for special in (b",", b" ", b"="))

    def matching(self, pattern: str) -> Bools:
        """Which values an RE2 pattern is found in, bool[values]."""
        texts = self.texts()
        matched = self._matches.get(pattern)
        start = 0 if matched is None else len(matched)
        if matched is None or start < len(texts):
            fresh = pc.match_substring_regex(texts.array[start:], pattern).to_numpy(zero_copy_only=False)
            matched = fresh if matched is None else np.concatenate([matched, fresh])
            kept = list(self._matches.items())[1 - _PATTERNS_KEPT :]
            self._matches = {**dict(kept), pattern: matched}
        return matched[: len(texts)]

    def ranks(self, *, last: bool) -> Int32s:
        """Place of each value in the order of series keys; ``last``: of the last tag of a key."""
        texts = self.texts()
        ranks = self._ranks.get(last)
        if ranks is None or len(ranks) < len(texts):
            order = np.asarray(pc.sort_indices(key_parts(self, texts.array, last=last)))
            ranks = np.empty(len(order), dtype=np.int32)
            ranks[order] = np.arange(len(order), dtype=np.int32)
            self._ranks = {**self._ranks, last: ranks}
        return ranks


def string_buffers(values: Any) -> tuple[Int64s, Any]:
    """Offsets int64[n + 1], not from 0 on where the array is a slice, and the bytes from the first to the last."""
    _, ends, data = values.buffers()
    offsets = np.frombuffer(ends, dtype=np.int64)[values.offset : values.offset + len(values) + 1]
    if data is None:
        return offsets, np.empty(0, dtype=np.uint8)
    return offsets, np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]]


def escaped(values: Any) -> Any:
    r"""Tag values as they stand in a series key: ``,``, ``=`` and space with a backslash before them."""
    for special in (",", "=", " "):
        values = pc.replace_substring(values, special, "\\" + special)
    return values


def key_parts(dictionary: TextDictionary, values: Any, *, last: bool) -> Any:
    """Some of its values escaped and, unless it is the last tag's, followed by the comma.

    Keys with the same tag keys are ordered as the tuples of these are, as long as no value has a backslash: then
    none of them begins another one.
    """
    if dictionary.has_escapes:
        values = escaped(values)
    if last:
        return values
    return pc.binary_join_element_wise(values, large_text(","), large_text(""))


def large_text(text: str) -> Any:
    """An Arrow scalar of the type the other texts have."""
    return pa.scalar(text, pa.large_string())
