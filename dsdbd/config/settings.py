"""What one setting is: key, kind, default, bounds, help. Reads and prints single values; knows no section.

A setting is attached to the attribute that holds its value (``Annotated[float, duration(...)]``), so table and
classes cannot differ. Values arrive as TOML gives them; ValueError texts read "reason; what to write instead".
"""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import tomli

from dsdbd.config import values

Number = TypeVar("Number", int, float)
Value = bool | int | float | str | Path | tuple[str, ...] | None


class BadValue(ValueError):
    """A value of the wrong type; the text says what to write instead."""


class Kind(StrEnum):
    """How a value is written and checked."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    FLOAT = "float"
    STRING = "string"
    PATH = "path"
    ADDRESS = "address"
    HOST = "host name"
    DURATION = "duration"
    SIZE = "size"
    CHOICE = "choice"
    LIST = "list of strings"
    JOIN = "list of addresses"


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table. ``default`` is written as in TOML; ``{base}`` in it is the directory of the profile."""

    key: str
    kind: Kind
    default: bool | int | float | str | tuple[str, ...]
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False
    """An empty path or address is a value of its own (none, off) instead of "not set"."""

    @property
    def attribute(self) -> str:
        """Name of the attribute: the key with a unit, e.g. ``write_timeout_s``."""
        suffix = {Kind.DURATION: "_s", Kind.SIZE: "_bytes"}.get(self.kind, "")
        return self.key.replace("-", "_") + suffix


def boolean(key: str, default: bool, text: str) -> Setting:
    """A setting that is true or false."""
    return Setting(key, Kind.BOOLEAN, default, text)


def integer(key: str, default: int, text: str, *, least: int, most: int, unit: str = "") -> Setting:
    """A whole number with bounds."""
    return Setting(key, Kind.INTEGER, default, text, unit, least, most)


def fraction(key: str, default: float, text: str, *, least: float, most: float) -> Setting:
    """A number with bounds."""
    return Setting(key, Kind.FLOAT, default, text, "", least, most)


def string(key: str, default: str, text: str) -> Setting:
    """Free text."""
    return Setting(key, Kind.STRING, default, text)


def host(key: str, default: str, text: str) -> Setting:
    """A host name or IP address without a port, or nothing."""
    return Setting(key, Kind.HOST, default, text)


def directory(key: str, default: str, text: str) -> Setting:
    """A directory that must be named."""
    return Setting(key, Kind.PATH, default, text)


def file(key: str, default: str, text: str) -> Setting:
    """A file, or nothing: the attribute is then None."""
    return Setting(key, Kind.PATH, default, text, optional=True)


def address(key: str, default: str, text: str, *, optional: bool = False) -> Setting:
    """An address to listen on. If ``optional``, an empty one switches the listener off."""
    return Setting(key, Kind.ADDRESS, default, text, optional=optional)


def duration(key: str, default: str, text: str, *, least: str = "1ms", most: str = "87600h") -> Setting:
    """A time span in seconds with bounds."""
    low, high = values.parse_duration(least), values.parse_duration(most)
    return Setting(key, Kind.DURATION, default, text, "seconds", low, high)


def size(key: str, default: int, text: str, *, least: int = 0, most: int = 1 << 50, unit: str = "bytes") -> Setting:
    """A number of bytes with bounds."""
    return Setting(key, Kind.SIZE, default, text, unit, least, most)


def choice(key: str, default: str, text: str, *choices: str) -> Setting:
    """One of a few words."""
    return Setting(key, Kind.CHOICE, default, text, choices=choices)


def strings(key: str, text: str) -> Setting:
    """A list of strings, empty unless given."""
    return Setting(key, Kind.LIST, (), text)


def join_list(key: str, text: str) -> Setting:
    """Addresses of other nodes, empty unless given."""
    return Setting(key, Kind.JOIN, "", text)


def parse_value(setting: Setting, raw: object) -> Value:
    """The typed value of what TOML holds for ``setting``; None where an empty text means nothing.

    Raises ValueError for a wrong type, an unreadable text and a number outside its bounds.
    """
    match setting.kind:
        case Kind.BOOLEAN:
            if not isinstance(raw, bool):
                raise BadValue(f"{_type_name(raw)} where true or false is needed; write true or false without quotes")
            return raw
        case Kind.INTEGER:
            if isinstance(raw, bool) or not isinstance(raw, int):
                raise BadValue(f"{_type_name(raw)} where a whole number is needed; write it without quotes")
            return _bounded(setting, raw)
        case Kind.FLOAT:
            if isinstance(raw, bool) or not isinstance(raw, int | float):
                raise BadValue(f"{_type_name(raw)} where a number is needed; write it without quotes")
            if not math.isfinite(raw):
                raise ValueError("not a finite number; write it like 0.5")
            return _bounded(setting, float(raw))
        case Kind.SIZE:
            if isinstance(raw, bool) or not isinstance(raw, int | str):
                raise BadValue(f'{_type_name(raw)} where a size is needed; write bytes, or a string such as "25m"')
            return _bounded(setting, values.parse_size(raw))
        case Kind.LIST:
            return _string_list(raw)
        case Kind.JOIN:
            return values.parse_join(",".join(_string_list(raw)) if isinstance(raw, list) else _text(setting, raw))
        case _:
            return _parse_text(setting, _text(setting, raw))


def _parse_text(setting: Setting, text: str) -> Value:
    match setting.kind:
        case Kind.DURATION:
            return _bounded(setting, values.parse_duration(text))
        case Kind.ADDRESS:
            return values.parse_address(text) if text.strip() else ("" if setting.optional else None)
        case Kind.HOST:
            return values.check_host(text.strip()) if text.strip() else ""
        case Kind.PATH:
            return Path(text) if text else None
        case Kind.CHOICE if text not in setting.choices:
            close = difflib.get_close_matches(text.lower(), setting.choices, 1)
            meant = f'did you mean "{close[0]}"? the choice is' if close else "write one of"
            raise ValueError(f"unknown value; {meant} {', '.join(map(quote, setting.choices))}")
    return text


_EXAMPLES = {
    Kind.DURATION: '"10s"',
    Kind.ADDRESS: '":8088"',
    Kind.PATH: '"/var/lib/dsdb"',
    Kind.HOST: '"dsdb1"',
    Kind.JOIN: '"dsdb1:8091"',
}


def _text(setting: Setting, raw: object) -> str:
    if not isinstance(raw, str):
        example = _EXAMPLES.get(setting.kind, '"text"')
        article = "an" if setting.kind is Kind.ADDRESS else "a"
        raise BadValue(
            f"{_type_name(raw)} where {article} {setting.kind} is needed; write it in quotes, like {example}"
        )
    return _printable(raw)


def _printable(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("a control character in the text; remove it")
    return text


def _string_list(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list | tuple):
        raise BadValue(f'{_type_name(raw)} where a list of strings is needed; write ["one", "two"]')
    for item in raw:
        if not isinstance(item, str):
            raise BadValue(f'{_type_name(item)} in a list of strings; write ["one", "two"]')
    return tuple(_printable(item) for item in raw)


def _bounded(setting: Setting, number: Number) -> Number:
    low, high = setting.minimum, setting.maximum
    if low is not None and number < low:
        raise ValueError(f"too small; the least is {_format_bound(setting, low)}")
    if high is not None and number > high:
        raise ValueError(f"too large; the most is {_format_bound(setting, high)}")
    return number


def _format_bound(setting: Setting, bound: float) -> str:
    if setting.kind is Kind.DURATION:
        return f'"{values.format_duration(bound)}"'
    return f"{bound:g}" if setting.kind is Kind.FLOAT else str(int(bound))


def _type_name(raw: object) -> str:
    names = {bool: "a boolean", int: "a whole number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(raw), "a table" if isinstance(raw, dict) else f"a {type(raw).__name__}")


def text_to_toml(setting: Setting, text: str) -> object:
    """What TOML would hold for a value given as text in an environment variable. Raises ValueError."""
    match setting.kind:
        case Kind.BOOLEAN:
            known = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
            if text.lower() not in known:
                raise ValueError("not true or false; write true or false")
            return known[text.lower()]
        case Kind.INTEGER:
            try:
                return int(text, 10)
            except ValueError:
                raise ValueError("not a whole number; write digits only") from None
        case Kind.FLOAT:
            try:
                return float(text)
            except ValueError:
                raise ValueError("not a number; write it like 0.5") from None
        case Kind.LIST:
            if not text.startswith("["):
                return [text]
            try:
                return tomli.loads(f"list = {text}")["list"]
            except tomli.TOMLDecodeError:
                raise ValueError('not a list; write ["one", "two"]') from None
    return text


def value_to_toml(setting: Setting, value: Value) -> str:
    """The TOML text of a typed value; reading it back gives an equal value."""
    match setting.kind:
        case Kind.BOOLEAN:
            return "true" if value else "false"
        case Kind.DURATION:
            assert isinstance(value, int | float)
            return quote(values.format_duration(value))
        case Kind.JOIN:
            assert isinstance(value, tuple)
            return quote(",".join(value))
        case Kind.LIST:
            assert isinstance(value, tuple)
            return "[" + ", ".join(map(quote, value)) + "]"
        case Kind.FLOAT | Kind.INTEGER | Kind.SIZE:
            return repr(value)
    return quote("" if value is None else str(value))


def quote(text: str) -> str:
    """A TOML basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
