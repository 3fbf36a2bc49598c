"""Many distinct texts in one Arrow array: values of a tag, without a Python object for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import pyarrow as pa

_SLICE = 1 << 14
_LISTED = 1 << 12
"""Up to this many texts are kept as Python strings too, once one was asked for."""


class Texts(Sequence[str]):
    """An unchanging sequence of strings over an Arrow ``large_string`` array without nulls."""

    __slots__ = ("_list", "array")

    def __init__(self, array: Any) -> None:
        self.array = array
        self._list: list[str] | None = None

    @staticmethod
    def of(values: Sequence[str]) -> Texts:
        """The same texts; those that are ``Texts`` already are given back."""
        return values if isinstance(values, Texts) else Texts(pa.array(values, pa.large_string()))

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if self._list is None and len(self.array) <= _LISTED:
            self._list = self.array.to_pylist()
        if self._list is not None:
            return self._list[index]
        found: Any = self.array[index]
        text: str | list[str] = found.to_pylist() if isinstance(index, slice) else found.as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.array), _SLICE):
            yield from self.array[start : start + _SLICE].to_pylist()

    def take(self, positions: Any) -> Any:
        """The texts at some positions (an integer NumPy array, none negative) as an Arrow ``large_string`` array."""
        return self.array.take(pa.array(positions))
