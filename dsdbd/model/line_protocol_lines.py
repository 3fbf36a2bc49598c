"""A write body cut into its lines, a bounded piece at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dsdbd import limits

_BLANKS = b" \t\0"
_NOT_PLAIN = (b"", b"\t", b"\0", b"#")
"""First bytes of blank lines, comments and lines with white space in front; these are looked at more closely."""
_MARKS = re.compile(rb'[\\\n "=,]')
"""The only bytes that tell where a line ends."""
_COMPLETE = re.compile(
    rb'[^"\\ ]*+(?:\\.[^"\\ ]*+)*+ '
    rb'(?:[^"\\ ,=]*+(?:\\.[^"\\ ,=]*+)*+=(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^"\\ ,=]*+)(?:,|(?= )|\Z))++'
    rb'(?: [^"\\]*+)?',
    re.DOTALL,
)
"""Lines in which every quote belongs to a whole string field, so that the newline behind them ends them."""


class LineBlock(NamedTuple):
    """Lines without their line ends; blank lines and comments may be among them.

    ``numbers``: of each line, from 1. ``quoted``: whether there may be quotes in them.
    """

    numbers: Sequence[int]
    lines: list[bytes]
    quoted: bool


class Lines:
    """Reads a body piece by piece, forward. ``number``: that of the next line, from 1."""

    def __init__(self, body: bytes) -> None:
        self.number = 1
        self._body = body
        self._at = 0
        self._given = 0

    def piece(self) -> bytes:
        """The next whole lines: about PARSE_BLOCK_BYTES or PARSE_BLOCK_LINES, as if no string went over a line's end.

        Empty at the end of the body, and until everything that was given once has been read.
        """
        if self._at < self._given:
            return b""
        end = self._cut()
        lines = self._body.count(b"\n", self._at, end)
        if lines > limits.PARSE_BLOCK_LINES:
            # About so many lines: each may bring a series of its own, which takes the interpreter some time.
            near = self._at + (end - self._at) * limits.PARSE_BLOCK_LINES // lines
            end = max(self._body.rfind(b"\n", self._at, near), self._body.find(b"\n", self._at))
        self._given = end + 1
        return self._body if not self._at and self._given >= len(self._body) else self._body[self._at : self._given]

    def skip(self, lines: int) -> None:
        """Go on behind the piece, whose lines were read."""
        self._at = self._given
        self.number += lines

    def _cut(self) -> int:
        """Where the next piece ends, its last newline excluded."""
        body, size = self._body, len(self._body)
        end = self._at + limits.PARSE_BLOCK_BYTES
        if end < size:
            end = body.rfind(b"\n", self._at, end)
            if end < 0:
                end = body.find(b"\n", self._at)
        return size if end < 0 or end > size else end

    def block(self) -> LineBlock | None:
        r"""The next lines, at most PARSE_BLOCK_LINES; None at the end of the body.

        A line ends at a newline outside of a string field. One ``\r`` before it belongs to the line end. Comments are
        recognised before strings, so a quote in a comment does not swallow the lines after it.
        """
        while self._at < len(self._body):
            block = self._next_block()
            if block.lines:
                return block
        return None

    def _next_block(self) -> LineBlock:
        body, at, end = self._body, self._at, self._cut()
        piece = body[at:end] if at or end < len(body) else body
        lines = piece.split(b"\n", limits.PARSE_BLOCK_LINES)
        if len(lines) > limits.PARSE_BLOCK_LINES:
            end -= len(lines.pop()) + 1
            piece = body[at:end]
        numbers: Sequence[int] = range(self.number, self.number + len(lines))
        self.number += len(lines)
        cut = end
        quoted = b'"' in piece
        if quoted or b"\\" in piece:
            lines, numbers, end, self.number = _join_strings(body, at, end, lines, numbers)
        if b"\r" in piece or end != cut:  # what was added may have some
            lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
        if not lines[-1]:  # behind the last newline of the body
            lines.pop()
            numbers = numbers[:-1]
        self._at = end + 1
        return LineBlock(numbers, lines, quoted or end != cut)


def line_blocks(body: bytes) -> Iterator[LineBlock]:
    """The lines of a body in blocks."""
    lines = Lines(body)
    while (block := lines.block()) is not None:
        yield block


def strip_line(line: bytes) -> bytes:
    """The line without leading white space; empty for a blank line or a comment."""
    line = line.lstrip(_BLANKS)
    return b"" if line[:1] == b"#" else line


def _join_strings(
    body: bytes, at: int, end: int, lines: list[bytes], numbers: Sequence[int]
) -> tuple[list[bytes], Sequence[int], int, int]:
    """Lines of ``body[at:end]``, which was cut at every newline, with those cut inside of a string put together.

    The last line may reach beyond ``end``. Returns lines, their numbers, the new end, and the number of the line
    after it.
    """
    open_lines = {position for position, line in enumerate(lines) if may_go_on(line)}
    first = numbers[0]
    if not open_lines:
        return lines, numbers, end, first + len(lines)
    whole: list[bytes] = []
    kept: list[int] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        kept.append(first + position)
        if position in open_lines:
            line_end = _line_end(body, at + len(line) - len(line.lstrip(_BLANKS)))
            line = body[at:line_end]
            end = max(end, line_end)
        whole.append(line)
        at += len(line) + 1
        position += 1 + line.count(b"\n")
    return whole, kept, end, first + position


def may_go_on(line: bytes) -> bool:
    """False when the newline behind a line ends it for certain."""
    return (b'"' in line or line.endswith(b"\\")) and not _ends_here(line)


def _ends_here(line: bytes) -> bool:
    """True when the newline behind a line with quotes or backslashes ends it for certain."""
    key, _, rest = line.partition(b" ")
    if b"\\" in line or key[:1] in _NOT_PLAIN:
        line = strip_line(line)
        return not line or _COMPLETE.fullmatch(line) is not None
    parts = rest.split(b'"')
    if b'"' in key or not len(parts) & 1:
        return False
    # What _line_end counts, at each quote that would open a string.
    surplus = 0
    for part in parts[:-1:2]:
        surplus += part.count(b"=") - part.count(b",")
        if surplus <= 0:
            return False
    return True


def _line_end(body: bytes, at: int) -> int:
    """Offset of the newline that ends the line starting at ``at``, newlines in string fields left aside."""
    size = len(body)
    in_fields = quoted = False
    equals = commas = 0
    while (found := _MARKS.search(body, at)) is not None:
        at = found.start()
        byte = body[at]
        if byte == 0x5C and at + 2 < size:  # a backslash and the character after it
            at += 2
            continue
        if byte == 0x0A and not quoted:
            return at
        if byte == 0x20:
            in_fields = True
        elif in_fields:
            # A quote opens a string only as a field value: there one more "=" than "," has been seen.
            if byte == 0x22 and equals > commas:
                quoted = not quoted
            elif byte == 0x3D and not quoted:
                equals += 1
            elif byte == 0x2C and not quoted:
                commas += 1
        at += 1
    return size
