"""Patterns that prove many lines at once to be of one form.

They run on RE2, which looks at each byte once and lets go of the interpreter meanwhile.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import re2

from dsdbd import limits

_PATTERN_BASE_BYTES = 512 << 10
_PATTERN_FIELD_BYTES = 64 << 10
"""Measured: what RE2 needs to keep all states of one name with one value, and half as much again."""
_PATIENCE = 64


def pattern_bytes(pairs: int) -> int:
    """Memory that a pattern of so many name=value pairs may take."""
    return _PATTERN_BASE_BYTES + _PATTERN_FIELD_BYTES * pairs


def compile_lines(pattern: bytes, pairs: int) -> Any:
    """An RE2 pattern for any number of lines, each of them matching ``pattern``, which has so many name=value pairs."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = pattern_bytes(pairs)
    compiled = re2.compile(b"(?:" + pattern + b"\n)*", options)
    # The library would keep its last 128 patterns, whatever memory they have grown to by then.
    re2.purge()
    return compiled


class Accepted(NamedTuple):
    """Lines that a pattern accepted.

    ``text``: the lines, each ended by a newline. ``rows``: their positions, None for all. ``refused``: the others.
    """

    text: bytes
    rows: list[int] | None
    refused: list[int]


def split_accepted(pattern: Any, lines: Sequence[bytes]) -> Accepted:
    """Part lines by whether a pattern of ``compile_lines`` accepts them.

    Each refused line costs one more call of the pattern. When far more are refused than accepted, those not looked at
    yet are given back as refused.
    """
    text = b"\n".join(lines) + b"\n"
    if text.count(b"\n") != len(lines):  # an escaped newline: it must not look like the end of a line
        lines = [b"" if b"\n" in line else line for line in lines]
        text = b"\n".join(lines) + b"\n"
    if pattern.fullmatch(text) is not None:
        return Accepted(text, None, [])
    starts = np.zeros(len(lines) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)) + 1, out=starts[1:])
    accepted: list[int] = []
    refused: list[int] = []
    pieces: list[bytes] = []
    at = 0
    while at < len(lines):
        start = int(starts[at])
        end = pattern.match(text, start).end()
        stop = int(np.searchsorted(starts, end))
        accepted.extend(range(at, stop))
        pieces.append(text[start:end])
        if stop < len(lines):
            refused.append(stop)
        at = stop + 1
        if len(refused) > _PATIENCE + 2 * len(accepted):
            refused.extend(range(at, len(lines)))
            break
    return Accepted(b"".join(pieces), accepted, refused)


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class PatternCache(Generic[K, V]):
    """Keeps what was made for a key while it is used; for all threads.

    ``cost`` says how many bytes a key's value may take; together they take at most ``max_bytes``. A value is made
    when ``worth`` rows have asked for it: making one takes as long as reading so many lines one by one. ``make`` may
    give None for a key that has no value.
    """

    def __init__(self, make: Callable[[K], V | None], cost: Callable[[K], int], max_bytes: int, worth: int) -> None:
        self._make = make
        self._cost = cost
        self._max_bytes = max_bytes
        self._worth = worth
        self._held_bytes = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._wanted: dict[K, int] = {}
        self._lock = threading.Lock()

    def get(self, key: K, rows: int) -> V | None:
        """The value for a key of which ``rows`` rows are at hand; None as long as it is not worth making."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
                return value
            rows += self._wanted.get(key, 0)
            if rows < self._worth:
                if len(self._wanted) >= limits.MAX_PARSER_WANTED:
                    self._wanted.clear()
                self._wanted[key] = rows
                return None
            self._wanted.pop(key, None)
        value = self._make(key)
        with self._lock:
            if value is not None and key not in self._values:
                self._values[key] = value
                self._held_bytes += self._cost(key)
                while self._held_bytes > self._max_bytes and len(self._values) > 1:
                    oldest, _ = self._values.popitem(last=False)
                    self._held_bytes -= self._cost(oldest)
        return value
