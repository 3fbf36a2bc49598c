"""Pieces of a scan on their way to the reader. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dsdbd.model.scan import Piece
from dsdbd.storage.scanning import PIECE_ROWS


def gathered(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """The first pieces together, up to about the rows of a large one, then each by itself.

    Damage that is found until then can be passed over by a new scan, because nothing has been given yet.
    """
    first: list[Piece] = []
    rows = 0
    for piece in pieces:
        first.append(piece)
        rows += len(piece)
        if rows >= PIECE_ROWS:
            yield first
            first = []
    if first:
        yield first
