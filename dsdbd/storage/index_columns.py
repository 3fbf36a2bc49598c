"""Everything an index holds, as columns: what its readers look at without a lock while one thread adds series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Int32s, Int64s
from dsdbd.model.scan import KeyColumn, TagColumn
from dsdbd.model.series import Series, parse_key
from dsdbd.storage.index_order import Group, can_order, key_order
from dsdbd.storage.index_shapes import Shape
from dsdbd.storage.index_table import STEP, Growing
from dsdbd.storage.index_texts import TextDictionary

_FEW = 16
"""So few keys are sorted as Python bytes."""


class SeriesColumns:
    """Shapes, values and the place of every series number; a series is in them before its number is known.

    ``odd``: keys that the codes would give back differently, kept as they came.
    """

    def __init__(self, hash_of: Callable[[Any], int]) -> None:
        self._hash_of = hash_of
        self.shapes: list[Shape] = []
        self._by_name: dict[str, list[int]] = {}
        self._ids: dict[tuple[str, tuple[str, ...]], int] = {}
        self.dictionaries: dict[str, TextDictionary] = {}
        self.shape_of = Growing(np.int32)
        self.row_of = Growing(np.int32)
        self.odd: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self.row_of.count

    @property
    def size_bytes(self) -> int:
        """Memory of everything."""
        shapes = sum(shape.size_bytes for shape in self.shapes)
        values = sum(dictionary.size_bytes for dictionary in self.dictionaries.values())
        odd = sum(len(key) + 150 for key in self.odd.values())
        return shapes + values + self.shape_of.size_bytes + self.row_of.size_bytes + odd

    def shape_id(self, prefix: str, names: tuple[str, ...]) -> int:
        """Number of a shape, which is made when it is new."""
        found = self._ids.get((prefix, names))
        if found is None:
            for name in names:
                if name not in self.dictionaries:
                    self.dictionaries[name] = TextDictionary(self._hash_of)
            shape = Shape(prefix, names, [self.dictionaries[name] for name in names])
            found = self._ids[prefix, names] = len(self.shapes)
            self.shapes.append(shape)
            for name in names:
                self._by_name[name] = [*self._by_name.get(name, ()), found]
        return found

    def append(self, shape_id: int, codes: Sequence[Int32s], count: int) -> Int64s:
        """Give the next numbers to ``count`` series of a shape, known by their codes."""
        shape = self.shapes[shape_id]
        for column, values in zip(shape.codes, codes, strict=True):
            column.extend(values)
        first = len(self)
        rows = np.arange(shape.numbers.count, shape.numbers.count + count, dtype=np.int32)
        self.shape_of.extend(np.full(count, shape_id, dtype=np.int32))
        self.row_of.extend(rows)
        shape.numbers.extend(np.arange(first, first + count, dtype=np.int32))
        return np.arange(first, first + count, dtype=np.int64)

    def append_one(self, shape_id: int, codes: Sequence[int], key: bytes) -> int:
        """The same for one series, given its key too."""
        shape = self.shapes[shape_id]
        for column, value in zip(shape.codes, codes, strict=True):
            column.append(value)
        number, row = len(self), shape.numbers.count
        if shape.key(row) != key:
            self.odd[number] = key
        self.shape_of.append(shape_id)
        self.row_of.append(row)
        shape.numbers.append(number)
        return number

    def names(self) -> list[str]:
        """Tag keys that some series has."""
        return list(self._by_name)

    def with_name(self, name: str) -> list[int]:
        """Numbers of the shapes that have a tag key."""
        return self._by_name.get(name, [])

    def groups(self, numbers: Int64s) -> list[Group]:
        """Series by their shapes."""
        everything = np.arange(len(numbers), dtype=np.int64)
        rows = self.row_of.view()[numbers]
        if len(self.shapes) == 1:
            return [Group(self.shapes[0], everything, rows)]
        shape_ids = self.shape_of.view()[numbers]
        order = np.argsort(shape_ids, kind="stable")
        bounds = np.flatnonzero(np.diff(shape_ids[order], prepend=-1, append=-1))
        return [
            Group(self.shapes[int(shape_ids[order[low]])], order[low:high], rows[order[low:high]])
            for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        ]


class Keys(KeyColumn):
    """The keys of all series by number, built when they are asked for."""

    def __init__(self, columns: SeriesColumns) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns)

    def key(self, number: int) -> bytes:
        """One key."""
        odd = self._columns.odd.get(number)
        if odd is not None:
            return odd
        shape = self._columns.shapes[int(self._columns.shape_of.view()[number])]
        return shape.key(int(self._columns.row_of.view()[number]))

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self), STEP):
            numbers = np.arange(start, min(start + STEP, len(self)), dtype=np.int64)
            yield from self.array(numbers).cast(pa.large_binary()).to_pylist()

    def array(self, numbers: Int64s) -> Any:
        """Keys of some series as an Arrow ``large_string`` array."""
        pieces = [self._piece(numbers[at : at + 4 * STEP]) for at in range(0, len(numbers), 4 * STEP)]
        return pa.concat_arrays(pieces or [pa.array([], pa.large_string())])

    def in_order(self, numbers: Int64s) -> Int64s:
        """The same numbers ordered by their keys."""
        if len(numbers) <= _FEW:
            return np.array(sorted(numbers.tolist(), key=self.key), dtype=np.int64)
        groups = self._columns.groups(numbers)
        if can_order(groups) and not self._columns.odd:
            return numbers[key_order(groups, len(numbers))]
        ordered: Int64s = numbers[np.asarray(pc.sort_indices(self.array(numbers)))]
        return ordered

    def _piece(self, numbers: Int64s) -> Any:
        groups = self._columns.groups(numbers)
        keys = pa.concat_arrays([group.shape.keys(group.rows) for group in groups])
        if len(groups) > 1:
            back = np.empty(len(numbers), dtype=np.int64)
            back[np.concatenate([group.positions for group in groups])] = np.arange(len(numbers))
            keys = keys.take(pa.array(back))
        odd = self._columns.odd
        if odd:
            replaced: list[bytes] = keys.cast(pa.large_binary()).to_pylist()
            texts = [odd.get(number, key) for number, key in zip(numbers.tolist(), replaced, strict=True)]
            keys = pa.array(texts, pa.large_binary()).cast(pa.large_string())
        return keys


class ParsedSeries(Sequence[Series]):
    """All series by number, parsed from their keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> Series: ...
    @overload
    def __getitem__(self, index: slice) -> list[Series]: ...
    def __getitem__(self, index: int | slice) -> Series | list[Series]:
        if isinstance(index, slice):
            return [parse_key(key) for key in self._keys[index]]
        return parse_key(self._keys[index])


class Tags(Mapping[str, TagColumn]):
    """Tags of some series; a column is gathered when it is looked at."""

    def __init__(self, columns: SeriesColumns, numbers: Int64s) -> None:
        self._columns = columns
        self._numbers = numbers
        self._names = dict.fromkeys(sorted(columns.names()))
        self._found: dict[str, TagColumn] = {}
        self._groups: dict[Shape, Group] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> TagColumn:
        if name not in self._names:
            raise KeyError(name)
        found = self._found.get(name)
        if found is None:
            # The codes first: their values are known before them.
            codes = self._codes(name)
            found = self._found[name] = TagColumn(codes, self._columns.dictionaries[name].texts())
        return found

    def _codes(self, name: str) -> Int32s:
        columns, numbers = self._columns, self._numbers
        count = len(numbers)
        if len(columns.shapes) == 1:
            shape = columns.shapes[0]
            column: Int32s = shape.codes[shape.places[name]].view()
            if count >= len(column) and count and numbers[0] == 0 and bool((np.diff(numbers) == 1).all()):
                return column[:count]
            return column[numbers]
        if self._groups is None:
            self._groups = {group.shape: group for group in columns.groups(numbers)}
        codes: Int32s = np.full(count, -1, dtype=np.int32)
        for shape_id in columns.with_name(name):
            shape = columns.shapes[shape_id]
            group = self._groups.get(shape)
            if group is not None:
                codes[group.positions] = shape.codes[shape.places[name]].view()[group.rows]
        return codes
