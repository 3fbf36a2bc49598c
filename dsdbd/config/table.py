"""The classes of ``schema.py`` as a table: sections in order, each with its settings and environment names."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any

from dsdbd.config import former, schema
from dsdbd.config.settings import Setting

ENVIRONMENT_PREFIXES = ("INFLUXDB_", "DSDB_")
"""Prefixes of overriding variables, weakest first."""
TOP = ""
"""Name of the part of the file above every section."""

_HYPHENATED = ("shard-precreation", "hinted-handoff", "anti-entropy")
_COMING = (
    "monitor",
    "graphite",
    "collectd",
    "opentsdb",
    "udp",
)


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the file."""

    name: str
    attribute: str
    cls: type[Any]
    is_array: bool
    settings: dict[str, Setting]
    without_effect: dict[str, Setting]
    coming: bool
    """The service comes later: the settings are read and checked, nothing acts on them yet."""

    @property
    def title(self) -> str:
        """The header as it stands in the file; empty for the top level."""
        return f"[[{self.name}]]" if self.is_array else f"[{self.name}]" if self.name else ""

    @property
    def known(self) -> dict[str, Setting]:
        """Every key the section accepts."""
        return self.settings | self.without_effect

    @property
    def help(self) -> str:
        """What the section is about, as one sentence."""
        text = (self.cls.__doc__ or "").splitlines()[0].partition(": ")[2]
        return text[:1].upper() + text[1:]


def _section(name: str, attribute: str, cls: type[Any], *, is_array: bool) -> Section:
    settings = {}
    for hint in typing.get_type_hints(cls, include_extras=True).values():
        for extra in getattr(hint, "__metadata__", ()):
            assert isinstance(extra, Setting)
            settings[extra.key] = extra
    dropped = {setting.key: setting for setting in former.WITHOUT_EFFECT.get(name, ())}
    assert not settings.keys() & dropped.keys()
    return Section(name, attribute, cls, is_array, settings, dropped, name in _COMING)


def _sections() -> dict[str, Section]:
    found = {TOP: _section(TOP, "", schema.Config, is_array=False)}
    for attribute, hint in typing.get_type_hints(schema.Config).items():
        arguments = typing.get_args(hint)
        cls = arguments[0] if arguments else hint
        if isinstance(cls, type) and dataclasses.is_dataclass(cls):
            hyphenated = attribute.replace("_", "-")
            name = hyphenated if hyphenated in _HYPHENATED else attribute
            found[name] = _section(name, attribute, cls, is_array=bool(arguments))
    return found


SECTIONS: dict[str, Section] = _sections()
"""Every section by name, in the order of the printed configuration; the top level is ``""``."""


def environment_suffix(section: str, key: str, index: int | None = None) -> str:
    """The part of a variable's name after its prefix, e.g. ``META_HTTP_BIND_ADDRESS`` or ``GRAPHITE_0_ENABLED``."""
    parts = [section] if section else []
    parts += [] if index is None else [str(index)]
    return "_".join([*parts, key]).replace("-", "_").replace(".", "_").upper()
