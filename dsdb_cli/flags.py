"""Command-line flags in the style of Go's flag package, as InfluxDB's tools have them.

``-name value``, ``-name=value`` and the same with two dashes; a boolean flag takes a value only after ``=``.
Parsing stops at ``--``, at a lone ``-`` and at the first word that is not a flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from dsdb_cli.errors import UsageError


class Kind(Enum):
    """Type of a flag's value."""

    TEXT = "string"
    INTEGER = "whole number"
    SWITCH = "boolean"


Value = str | int | bool

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """Values of the flags that were given, by name, and the words after them."""

    values: Mapping[str, Value]
    rest: tuple[str, ...]

    def text(self, name: str, default: str = "") -> str:
        """Value of a TEXT flag."""
        return str(self.values.get(name, default))

    def integer(self, name: str, default: int = 0) -> int:
        """Value of an INTEGER flag."""
        return int(self.values.get(name, default))

    def switch(self, name: str) -> bool:
        """Value of a SWITCH flag; off when it was not given."""
        return bool(self.values.get(name, False))


def flag_name(word: str) -> str | None:
    """Name in ``-name``, ``--name`` or ``-name=value``; None when the word is not a flag."""
    if len(word) < 2 or word[0] != "-" or word == "--":
        return None
    return word.removeprefix("-").removeprefix("-").partition("=")[0]


def parse_flags(kinds: Mapping[str, Kind], words: Sequence[str]) -> Parsed:
    """Split ``words`` into flags and the rest; a flag given twice keeps its last value.

    Raises UsageError for an unknown flag, a missing value and a value of the wrong type.
    """
    values: dict[str, Value] = {}
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            index += 1
            break
        name = flag_name(word)
        if name is None:
            break
        kind = kinds.get(name)
        if kind is None:
            raise UsageError(f"flag provided but not defined: -{name}")
        index += 1
        _, equals, raw = word.partition("=")
        if not equals and kind is Kind.SWITCH:
            raw = "true"
        elif not equals:
            if index >= len(words):
                raise UsageError(f"flag needs an argument: -{name}")
            raw = words[index]
            index += 1
        values[name] = _convert(name, kind, raw)
    return Parsed(values, tuple(words[index:]))


def _convert(name: str, kind: Kind, raw: str) -> Value:
    if kind is Kind.TEXT:
        return raw
    if kind is Kind.SWITCH and raw in _TRUE:
        return True
    if kind is Kind.SWITCH and raw in _FALSE:
        return False
    if kind is Kind.INTEGER:
        try:
            return int(raw)
        except ValueError:
            pass
    raise UsageError(f'invalid value "{raw}" for flag -{name}: it takes a {kind.value}')
