"""Long work in pieces that are done one after another. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_Item = TypeVar("_Item")


def in_groups(those: Sequence[_Item], most: int) -> Iterator[Sequence[_Item]]:
    """A sequence in pieces of at most ``most``."""
    for at in range(0, len(those), most):
        yield those[at : at + most]
