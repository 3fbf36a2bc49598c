"""Where the lines of a body and the parts of a line begin and end, found for a megabyte at a time.

Only lines of the usual form count as regular: no white space but the spaces between the three parts, no backslash
behind the series, quotes only around whole values. The others are for the code that looks at lines one by one. Pure,
vectorised: a pass over all bytes costs less than a loop over the lines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dsdbd.model.columns import Bools, Int64s

Bytes = npt.NDArray[np.uint8]

NEWLINE, SPACE, QUOTE, COMMA, EQUALS, BACKSLASH = (int(code) for code in b'\n ",=\\')
_CACHED_BYTES = 256 << 10
"""Bytes that are compared at once; what comes of it stays in the processor's cache."""
_MARKS = bytes([NEWLINE, SPACE, QUOTE, COMMA, EQUALS])
_IS_MARK: Bools = np.zeros(256, np.bool_)
_IS_MARK[list(_MARKS)] = True


class Marks(NamedTuple):
    """The marks of n lines.

    ``data``: the bytes. ``at``: offsets, ascending, of the newlines, spaces, commas and equals signs that no backslash
    and no string takes the meaning of; at the end of data that lack it stands the newline that would follow. ``kind``:
    these bytes.
    ``begins``, ``ends``: int64[n], of each line, its newline excluded.
    ``space``: int64[n], position in ``at`` of the space before the fields. ``stop``: the same of what ends the fields,
    a space or the newline. ``timed``: bool[n], whether it is a space. They mean nothing for lines that are not regular.
    ``regular``: bool[n].
    """

    data: Bytes
    at: Int64s
    kind: Bytes
    begins: Int64s
    ends: Int64s
    space: Int64s
    stop: Int64s
    timed: Bools
    regular: Bools


def find_marks(text: bytes, max_line_bytes: int) -> Marks | None:
    """The marks of some whole lines; longer ones than given are not regular.

    None where that cannot be told line by line: a quote without a partner may reach into the next line.
    """
    data = np.frombuffer(text, np.uint8)
    at = np.concatenate(
        [_low(data[start : start + _CACHED_BYTES]) + start for start in range(0, len(data), _CACHED_BYTES)]
    )
    kind = data.take(at)
    if kind.tobytes().translate(None, _MARKS):
        known = np.flatnonzero(_IS_MARK.take(kind))
        at, kind = at.take(known), kind.take(known)
    if not text.endswith(b"\n"):
        at, kind = np.append(at, len(data)), np.append(kind, np.uint8(NEWLINE))
    backslashes = np.flatnonzero(data == BACKSLASH) if b"\\" in text else None
    if backslashes is not None:
        escaped = np.searchsorted(at, backslashes + 1)
        escaped = escaped[(at[escaped] == backslashes + 1) & (kind[escaped] != NEWLINE)]
        if len(escaped):
            at, kind = np.delete(at, escaped), np.delete(kind, escaped)
    newline = np.flatnonzero(kind == NEWLINE)
    ends = at[newline]
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    odd: Bools = ends - begins > max_line_bytes
    if b'"' in text:
        taken = _without_strings(at, kind, newline, odd)
        if taken is None:
            return None
        at, kind, newline = taken
    space, stop, timed, regular = _parts(at, kind, newline)
    regular &= ~odd
    if backslashes is not None:
        line = np.searchsorted(ends, backslashes)
        behind = (backslashes > at[space[line]]) | (backslashes + 1 == ends[line])
        regular[line[behind]] = False
    return Marks(data, at, kind, begins, ends, space, stop, timed, regular)


def _low(data: Bytes) -> Int64s:
    """Offsets of marks, and of other bytes with low codes: two comparisons are quicker than five."""
    return np.flatnonzero((data <= COMMA) | (data == EQUALS))


def _without_strings(at: Int64s, kind: Bytes, newline: Int64s, odd: Bools) -> tuple[Int64s, Bytes, Int64s] | None:
    """The marks outside of strings and without quotes; notes in ``odd`` lines with a quote where no value has one.

    None when a line has a quote without a partner.
    """
    is_quote = kind == QUOTE
    quotes = np.flatnonzero(is_quote)
    if (np.searchsorted(quotes, newline) & 1).any():
        return None
    opening, closing = quotes[::2], quotes[1::2]
    # The last mark is a newline, so every quote has a mark behind it; the first may have none before it.
    previous = np.maximum(opening - 1, 0)
    good = (kind[previous] == EQUALS) & (at[previous] + 1 == at[opening])
    after = kind[closing + 1]
    good &= (at[closing + 1] == at[closing] + 1) & (after != EQUALS) & (after != QUOTE)
    if not good.all():
        odd[np.searchsorted(newline, opening[~good])] = True
    # A quote in front of the first space is in the series.
    spaces = np.flatnonzero(kind == SPACE)
    if len(spaces):
        begins = np.concatenate([np.zeros(1, np.int64), newline[:-1]])
        first = spaces[np.minimum(np.searchsorted(spaces, begins), len(spaces) - 1)]
        odd |= np.searchsorted(quotes, np.minimum(first, newline)) > np.searchsorted(quotes, begins)
    outside = np.flatnonzero(~(np.bitwise_xor.accumulate(is_quote) | is_quote))
    at, kind = at.take(outside), kind.take(outside)
    return at, kind, np.flatnonzero(kind == NEWLINE)


def _parts(at: Int64s, kind: Bytes, newline: Int64s) -> tuple[Int64s, Int64s, Bools, Bools]:
    """``space``, ``stop``, ``timed`` and ``regular`` of Marks, as far as spaces and the number of marks tell."""
    spaces = np.flatnonzero(kind == SPACE)
    if not len(spaces):
        nothing = np.zeros(len(newline), np.bool_)
        return newline, newline, nothing, nothing
    until = np.searchsorted(spaces, newline)
    since = np.concatenate([np.zeros(1, np.int64), until[:-1]])
    number = until - since
    space = spaces[np.minimum(since, len(spaces) - 1)]
    second = spaces[np.minimum(since + 1, len(spaces) - 1)]
    timed = number == 2
    stop = np.where(timed, second, newline)
    regular = (number == 1) | (timed & (second + 1 == newline) & (at[newline] - at[second] > 1))
    # Between the names and values of k fields there are k equals signs and k - 1 commas.
    regular &= (stop > space) & ((stop - space) & 1 == 0)
    begins = np.concatenate([np.zeros(1, np.int64), at[newline[:-1]] + 1])
    regular &= at[space] > begins
    return space, stop, timed, regular
