"""Series of one measurement in one shard: numbers, and which of them a predicate selects.

A series is kept as one code per tag; its key is built from the codes when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Bools, Int32s, Int64s
from dsdbd.model.digest import UInt64s, series_hashes
from dsdbd.model.predicate import AllOf, TagPredicate
from dsdbd.model.scan import SeriesSet, TagColumn
from dsdbd.model.series import Series, parse_key
from dsdbd.storage.index_columns import Keys, ParsedSeries, SeriesColumns, Tags
from dsdbd.storage.index_given import GivenTags
from dsdbd.storage.index_parse import ParsedKeys, parse_uniform
from dsdbd.storage.index_select import select_rows
from dsdbd.storage.index_table import STEP, HashTable
from dsdbd.storage.key_blocks import KeyBlock

Numbers = Int64s

_CACHED_KEYS = 1 << 17
"""Keys whose numbers are kept in a dict, for series whose points keep coming; 40 MB with keys of 200 bytes."""
_FEW = 16
"""So few series are handled one by one, without columns."""


class SeriesIndex:
    """Numbers series from 0 in order of arrival and finds them by tag.

    One thread at a time may add (``number``, ``numbers``, ``numbers_of_columns``); all others may be called by any
    thread meanwhile, without a lock, and see every series whose adding was finished before.

    ``hash_of`` is replaced in tests only: equal hashes of different keys are part of the design.
    """

    def __init__(self, hash_of: Callable[[Any], int] = hash) -> None:
        self._hash_of = hash_of
        self._columns = SeriesColumns(hash_of)
        self._table = HashTable()
        self._elsewhere: dict[bytes, int] = {}
        self._cache: dict[bytes, int] = {}
        self._uncached = 0
        self.keys = Keys(self._columns)
        self.series: Sequence[Series] = ParsedSeries(self.keys)

    def __len__(self) -> int:
        return len(self._columns)

    def size_bytes(self) -> int:
        """Memory of the index, the cache of keys included."""
        cached = len(self._cache) * (160 + len(next(iter(self._cache), b"")))
        return self._columns.size_bytes + self._table.size_bytes + cached

    # --- adding

    def number(self, key: bytes) -> int:
        """Number of a series, which is added when it is new; raises CorruptData for bytes that are no series key."""
        found = self._cache.get(key)
        return int(self.numbers((key,))[0]) if found is None else found

    def numbers(self, keys: Iterable[bytes]) -> Numbers:
        """Numbers of several series, in their order; raises CorruptData as ``number`` does."""
        if isinstance(keys, KeyBlock):
            known = keys.numbers()
            return self._numbers_of_block(keys) if known is None else known
        if not isinstance(keys, list | tuple):
            keys = list(keys)
        found = np.empty(len(keys), dtype=np.int64)
        for start in range(0, len(keys), STEP):
            part = keys[start : start + STEP]
            numbers = np.fromiter(map(self._cache.get, part, repeat(-1)), dtype=np.int64, count=len(part))
            missing = np.flatnonzero(numbers < 0).tolist()
            if missing:
                unknown = list(part) if len(missing) == len(part) else [part[position] for position in missing]
                numbers[missing] = resolved = self._resolve(unknown)
                self._keep(unknown, resolved)
            found[start : start + len(part)] = numbers
        return found

    def find(self, keys: Sequence[bytes]) -> Numbers:
        """Numbers of at most STEP series, -1 for those that are not known; nobody may add meanwhile."""
        numbers = np.fromiter(map(self._cache.get, keys, repeat(-1)), dtype=np.int64, count=len(keys))
        missing = np.flatnonzero(numbers < 0)
        if len(missing):
            asked = [keys[position] for position in missing.tolist()]
            numbers[missing] = self._find(asked)[0]
        return numbers

    def _find(self, keys: list[bytes]) -> tuple[Numbers, Int64s, Bools]:
        """Numbers of keys, -1 where there is none, their hashes, and whether a series has the hash."""
        hashes = np.fromiter(map(self._hash_of, keys), dtype=np.int64, count=len(keys))
        numbers = self._table.find(hashes).astype(np.int64)
        taken: Bools = numbers >= 0
        hit = np.flatnonzero(taken)
        if len(hit):
            asked = keys if len(hit) == len(keys) else [keys[position] for position in hit.tolist()]
            given = pa.array(asked, pa.large_binary())
            same = pc.equal(self.keys.array(numbers[hit]).cast(pa.large_binary()), given)
            for position in hit[~same.to_numpy(zero_copy_only=False)].tolist():
                numbers[position] = self._elsewhere.get(keys[position], -1)
        return numbers, hashes, taken

    def _numbers_of_block(self, block: KeyBlock) -> Numbers:
        """Numbers of keys that may all be new, in which case what was parsed of them elsewhere is used."""
        keys, groups = block.parsed()
        hashes = np.fromiter(map(self._hash_of, keys), dtype=np.int64, count=len(keys))
        new = not bool((self._table.find(hashes) >= 0).any()) and len(set(keys)) == len(keys)
        numbers = self._add(keys, hashes, np.zeros(len(keys), dtype=np.bool_), groups) if new else self.numbers(keys)
        block.found(numbers, new=new)
        return numbers

    def _keep(self, keys: list[bytes], numbers: Numbers) -> None:
        """Cache keys while there is room; begin anew when most look-ups have missed what is cached for a while."""
        if len(self._cache) + len(keys) > _CACHED_KEYS:
            self._uncached += len(keys)
            if self._uncached < 4 * _CACHED_KEYS:
                return
            self._uncached = 0
            self._cache = {}
        self._cache.update(zip(keys, numbers.tolist(), strict=True))

    def _resolve(self, keys: list[bytes]) -> Numbers:
        """Numbers of keys that are not cached."""
        if len(keys) <= _FEW:
            return np.fromiter(map(self._resolve_one, keys), dtype=np.int64, count=len(keys))
        numbers, hashes, taken = self._find(keys)
        new = np.flatnonzero(numbers < 0)
        if len(new):
            wanted = keys if len(new) == len(keys) else [keys[position] for position in new.tolist()]
            distinct = dict.fromkeys(wanted)
            if len(distinct) == len(wanted):
                numbers[new] = self._add(wanted, hashes[new], taken[new])
            else:
                numbers[new] = self._resolve_repeated(wanted, list(distinct))
        return numbers

    def _resolve_repeated(self, keys: list[bytes], distinct: list[bytes]) -> Numbers:
        by_key = dict(zip(distinct, self._resolve(distinct).tolist(), strict=True))
        return np.fromiter(map(by_key.__getitem__, keys), dtype=np.int64, count=len(keys))

    def _resolve_one(self, key: bytes) -> int:
        found = self._table.find_one(self._hash_of(key))
        if found >= 0 and self.keys[found] != key:
            found = self._elsewhere.get(key, -1)
        return self._add_one(key) if found < 0 else found

    def _add(
        self, keys: list[bytes], hashes: Int64s, taken: Bools, groups: Sequence[ParsedKeys] | None = None
    ) -> Numbers:
        """Add distinct new keys; ``taken``: another key has the hash. ``groups``: of ``parse_uniform``."""
        numbers = np.full(len(keys), -1, dtype=np.int64)
        in_order = np.sort(hashes)
        known = None if bool((in_order[1:] == in_order[:-1]).any()) else taken
        for group in parse_uniform(keys) if groups is None else groups:
            shape_id = self._columns.shape_id(group.prefix, group.names)
            codes = [
                self._intern(name, values, column)
                for name, (values, column) in zip(group.names, group.columns, strict=True)
            ]
            numbers[group.positions] = self._columns.append(shape_id, codes, len(group.positions))
            self._register(keys, group.positions, hashes, known)
        for position in np.flatnonzero(numbers < 0).tolist():
            numbers[position] = self._add_one(keys[position])
        return numbers

    def _add_one(self, key: bytes) -> int:
        tags = parse_key(key).tags
        first_of = dict(tags[::-1])  # of a tag given twice the first counts
        by_name = dict(sorted(first_of.items()))
        prefix = _prefix_of(key)
        shape_id = self._columns.shape_id(prefix, tuple(by_name))
        codes = [self._columns.dictionaries[name].add(value) for name, value in by_name.items()]
        number = self._columns.append_one(shape_id, codes, key)
        if not self._table.add_one(self._hash_of(key)):
            self._elsewhere[key] = number
        return number

    def _register(self, keys: list[bytes], positions: Int64s, hashes: Int64s, taken: Bools | None) -> None:
        """Make the series that were added last findable by their keys, which stand at these positions."""
        first = len(self._table)
        for place in self._table.add(hashes[positions], None if taken is None else taken[positions]).tolist():
            self._elsewhere[keys[int(positions[place])]] = first + place

    def _intern(self, name: str, values: Any, codes: Int32s) -> Int32s:
        """Codes of this index for codes in an Arrow array of values, of which only those in use are added."""
        used: Bools = np.zeros(len(values), dtype=np.bool_)
        used[codes] = True
        mapping = np.full(len(values), -1, dtype=np.int32)
        places = np.flatnonzero(used)
        chosen = values if len(places) == len(values) else values.take(pa.array(places))
        mapping[places] = self._columns.dictionaries[name].add_all(chosen)
        return mapping[codes]

    def numbers_of_columns(self, measurement: str, tags: Mapping[str, TagColumn]) -> Numbers:
        """Numbers of n series given by their tags, all columns of the same length; new ones are added."""
        return np.concatenate([piece() for piece in self.numbering(measurement, tags)])

    def numbering(self, measurement: str, tags: Mapping[str, TagColumn]) -> Iterator[Callable[[], Numbers]]:
        """The same in pieces: each call adds and numbers the next series, so that others may add between the calls.

        For many series at once, such as those of a file; ``values`` had better be ``Texts``. Without any tag it is
        the one series that has none. The calls are made in order, by one thread.
        """
        names = sorted(tags)
        prefix = _prefix_of(Series(measurement, ()).key())
        if not names:
            yield lambda: self.numbers((prefix.encode(),))
            return
        given = GivenTags(measurement, prefix, {name: tags[name] for name in names})
        for start in range(0, len(tags[names[0]].codes), STEP):
            yield partial(self._number_step, given, start)

    def _number_step(self, given: GivenTags, start: int) -> Numbers:
        codes = given.codes(start)
        numbers = np.empty(len(codes[given.names[0]]), dtype=np.int64)
        for present, rows in _by_presence(codes):
            columns = {name: codes[name][rows] for name in present}
            keys = given.keys(columns, len(rows))
            if given.odd or not present or len(keys) <= _FEW:
                numbers[rows] = self._resolve(keys)
            else:
                numbers[rows] = self._numbers_of_shape(given, columns, keys)
        return numbers

    def _numbers_of_shape(self, given: GivenTags, columns: Mapping[str, Int32s], keys: list[bytes]) -> Numbers:
        """Numbers of series that all have the same tags, given by these and by their keys."""
        shape_id = self._columns.shape_id(given.prefix, tuple(columns))
        shape = self._columns.shapes[shape_id]
        dictionaries = self._columns.dictionaries
        codes = [given.interned(name, column, dictionaries[name]) for name, column in columns.items()]
        hashes = np.fromiter(map(self._hash_of, keys), dtype=np.int64, count=len(keys))
        numbers = self._table.find(hashes).astype(np.int64)
        hit = np.flatnonzero(numbers >= 0)
        same: Bools = self._columns.shape_of.view()[numbers[hit]] == shape_id
        rows = np.where(same, self._columns.row_of.view()[numbers[hit]], 0)
        for column, wanted in zip(shape.codes, codes, strict=True):
            same &= column.view()[rows] == wanted[hit] if column.count else False
        new = np.flatnonzero(numbers < 0)
        if not same.all() or len(set(keys)) < len(keys):
            return self._resolve(keys)
        numbers[new] = self._columns.append(shape_id, [column[new] for column in codes], len(new))
        self._register(keys, new, hashes, np.zeros(len(keys), dtype=np.bool_))
        return numbers

    # --- reading

    def subset(self, measurement: str, numbers: Numbers) -> SeriesSet:
        """Some series with their tags as columns, which are gathered when they are looked at."""
        return SeriesSet(measurement, self.keys, numbers, Tags(self._columns, numbers))

    def tag_keys(self) -> frozenset[str]:
        """Tag keys any series has."""
        return frozenset(self._columns.names())

    def select(self, predicate: TagPredicate) -> Numbers:
        """Numbers of the matching series, ascending."""
        if isinstance(predicate, AllOf) and not predicate.parts:
            return np.arange(len(self), dtype=np.int64)
        found = []
        shapes = list(self._columns.shapes)
        for shape in shapes:
            known = shape.numbers.view()
            rows = select_rows(shape, predicate, len(known))
            found.append(known if rows is None else known[rows])
        if len(found) == 1:
            numbers: Numbers = found[0].astype(np.int64)
            return numbers
        return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *found]))

    def in_key_order(self, numbers: Numbers) -> Numbers:
        """The same numbers ordered by their series' keys."""
        return self.keys.in_order(numbers)


def _prefix_of(key: bytes) -> str:
    """The escaped measurement of a key."""
    at = key.find(b",")
    while at > 0 and key[at - 1 : at] == b"\\":
        at = key.find(b",", at + 1)
    return key[: at if at >= 0 else len(key)].decode()


def hashes_of_columns(measurement: str, tags: Mapping[str, TagColumn], count: int) -> UInt64s | None:
    """Hashes (``model.digest``) of ``count`` series given by their tags, none of which becomes known anywhere.

    None where texts read differently once they stand in a key, so that only an index can tell.
    """
    names = sorted(tags)
    prefix = _prefix_of(Series(measurement, ()).key())
    given = GivenTags(measurement, prefix, {name: tags[name] for name in names})
    if given.odd:
        return None
    found: UInt64s = np.empty(count, dtype=np.uint64)
    if not names:
        found[:] = series_hashes([prefix.encode()])
    for start in range(0, count if names else 0, STEP):
        codes = given.codes(start)
        for present, rows in _by_presence(codes):
            keys = given.keys({name: codes[name][rows] for name in present}, len(rows))
            found[start + rows] = series_hashes(keys)
    return found


def _by_presence(codes: Mapping[str, Int32s]) -> list[tuple[list[str], Int64s]]:
    """Rows by the tags they have: names of these tags, and positions."""
    names = list(codes)
    count = len(codes[names[0]])
    sparse = [name for name in names if bool((codes[name] < 0).any())]
    everything = np.arange(count, dtype=np.int64)
    if not sparse:
        return [(names, everything)]
    pattern = np.zeros(count, dtype=np.int64)
    for name in sparse:
        _, pattern = np.unique(pattern * 2 + (codes[name] >= 0), return_inverse=True)
    order = np.argsort(pattern, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(pattern[order])) + 1)
    return [([name for name in names if codes[name][rows[0]] >= 0], rows) for rows in pieces]
