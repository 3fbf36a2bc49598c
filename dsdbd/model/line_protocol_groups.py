"""Lines of one measurement parted into groups of one shape each, and read column by column."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dsdbd.model.columns import Column, Int64s
from dsdbd.model.line_protocol_patterns import split_accepted
from dsdbd.model.line_protocol_shapes import Shape, find_shape, guess_shape, signature, take_strings

_MIN_ROWS = 4
"""Fewer lines of a shape are read one by one: that costs less than the group would."""
_MAX_ROUNDS = 4
"""Shapes tried on lines that looked alike and are not; what is left then is read one by one."""


class Group(NamedTuple):
    """Lines of one shape.

    ``rows``: int64[n], their positions among the lines given, ascending. ``times``: int64[n] in the unit of the
    request, None where the lines have none. ``columns``: one per field, of n rows.
    """

    shape: Shape
    rows: Int64s
    times: Int64s | None
    columns: dict[str, Column]


def read_groups(rests: list[bytes], quoted: bool, max_time: int) -> list[Group]:
    """Read what can be read column by column; lines in no group are for the scanner.

    ``rests``: what follows the key of each line. ``quoted`` says that there may be quotes among them. Times beyond
    ``max_time`` on either side are left to the scanner.
    """
    if len(rests) < _MIN_ROWS:
        return []
    text = b"\n".join(rests) + b"\n"
    pieces: list[list[bytes]] | None = None
    if quoted and b'"' in text:
        rests, pieces = take_strings(rests, b"\\" in text)
        text = b"\n".join(rests) + b"\n"
    reader = _Reader(rests, pieces, max_time)
    if reader.read_uniform(text):
        return reader.groups
    alike: dict[bytes, list[int]] = {}
    for row, rest in enumerate(rests):
        alike.setdefault(signature(rest), []).append(row)
    for rows in alike.values():
        for _ in range(_MAX_ROUNDS):
            if len(rows) < _MIN_ROWS:
                break
            rows = reader.read(rows)
    return reader.groups


class _Reader:
    def __init__(self, rests: list[bytes], pieces: list[list[bytes]] | None, max_time: int) -> None:
        self.groups: list[Group] = []
        self._rests = rests
        self._pieces = pieces
        self._max_time = max_time

    def read_uniform(self, text: bytes) -> bool:
        """Read all lines, given as one text too, as one group; False leaves them as they are."""
        count = len(self._rests)
        shape = guess_shape(self._rests[0], count)
        # An escaped newline must not look like the end of a line: their number is what the pattern cannot see.
        if shape is None or text.count(b"\n") != count or shape.pattern.fullmatch(text) is None:
            return False
        self._add(shape, text, np.arange(count, dtype=np.int64), self._pieces)
        return True

    def read(self, rows: list[int]) -> list[int]:
        """Read the lines that have the shape of the first; returns the others, without the first."""
        texts = [self._rests[row] for row in rows]
        shape = guess_shape(texts[0], len(rows))
        if shape is None:
            return []
        accepted = split_accepted(shape.pattern, texts)
        if accepted.refused[:1] == [0]:
            shape = find_shape(texts[0], len(rows))
            if shape is None:
                return []
            accepted = split_accepted(shape.pattern, texts)
        refused = [rows[position] for position in accepted.refused if position]
        taken = rows if accepted.rows is None else [rows[position] for position in accepted.rows]
        if taken:
            pieces = None if self._pieces is None else [self._pieces[row] for row in taken]
            self._add(shape, accepted.text, np.array(taken, np.int64), pieces)
        return refused

    def _add(self, shape: Shape, text: bytes, rows: Int64s, pieces: list[list[bytes]] | None) -> None:
        found = pieces or []
        if shape.strings and (not found or any(len(parts) != 2 * shape.strings + 1 for parts in found)):
            # Quotes that are not paired. Rare enough to leave the whole group to the scanner.
            return
        result = shape.read(text, len(rows), found)
        if result is None:
            return
        columns, times = result
        if times is not None and not (-self._max_time <= int(times.min()) and int(times.max()) <= self._max_time):
            inside = np.flatnonzero((times >= -self._max_time) & (times <= self._max_time))
            columns = {name: column.take(inside) for name, column in columns.items()}
            rows, times = rows[inside], times[inside]
        if len(rows):
            self.groups.append(Group(shape, rows, times, columns))
