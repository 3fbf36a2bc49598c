"""JSON laid out for people."""

from __future__ import annotations

import re

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\[\]{},:"]+')


class Indenter:
    """Lays compact JSON out with four spaces, as Go's json.Indent does; it comes in pieces that end between tokens."""

    def __init__(self) -> None:
        self._depth, self._before = self._marked = (0, b"")

    def mark(self) -> None:
        """Remember this place."""
        self._marked = (self._depth, self._before)

    def back(self) -> None:
        """Be as at the marked place."""
        self._depth, self._before = self._marked

    def text(self, piece: bytes) -> bytes:
        """The piece, laid out."""
        out: list[bytes] = []
        for match in _TOKENS.finditer(piece):
            word = match[0]
            opened = self._before in (b"[", b"{")
            if word in (b"]", b"}"):
                self._depth -= 1
                out.append(word if opened else self._line() + word)
            else:
                if opened:
                    out.append(self._line())
                if word in (b"[", b"{"):
                    self._depth += 1
                out.append(word)
                if word == b",":
                    out.append(self._line())
                elif word == b":":
                    out.append(b" ")
            self._before = word
        return b"".join(out)

    def _line(self) -> bytes:
        return b"\n" + b"    " * self._depth
