"""Prints a configuration as a TOML file with the help of every setting above it. Reading it back gives an equal one."""

from __future__ import annotations

import textwrap
from typing import Any

from dsdbd.config import settings
from dsdbd.config.schema import Config
from dsdbd.config.settings import Kind, Setting
from dsdbd.config.table import SECTIONS, TOP, Section

_WIDTH = 100
_HEADER = """\
# Configuration of the DSDB daemon. The values below are in force; a line that is removed takes its default.
# Durations are written "500ms", "10s", "1m30s", "168h", "7d"; sizes are bytes, or "64k", "25m", "1g".
# An address is "host:port", ":port" for every interface, or "[::1]:port".
# Every setting can also be given as an environment variable, e.g. DSDB_META_DIR for dir in [meta].
"""
_COMING = "This service comes in a later version: its settings are checked, and nothing acts on them yet."


def render_config(config: Config) -> str:
    """The text of a file that gives exactly ``config``."""
    empty = [section for section in SECTIONS.values() if section.is_array and not getattr(config, section.attribute)]
    parts = [_HEADER, _table(SECTIONS[TOP], config)]
    # An array without entries has no header to stand under, and must come before the first section.
    parts += [f"{section.name} = []\n" for section in empty]
    for section in SECTIONS.values():
        if section.is_array:
            parts += [_titled(section, entry) for entry in getattr(config, section.attribute)]
        elif section.name:
            parts.append(_titled(section, getattr(config, section.attribute)))
    return "\n".join(parts)


def _titled(section: Section, values: object) -> str:
    note = f"{section.help} {_COMING}" if section.coming else section.help
    return f"{_comment(note)}{section.title}\n{_table(section, values)}"


def _table(section: Section, values: Any) -> str:
    lines = []
    for key, setting in section.settings.items():
        value = getattr(values, setting.attribute)
        lines.append(f"{_comment(help_line(setting))}{key} = {settings.value_to_toml(setting, value)}\n")
    return "".join(lines)


def help_line(setting: Setting) -> str:
    """The help of a setting with what its type does not say: unit and choices."""
    text = setting.help
    if setting.kind is Kind.SIZE:
        text += f" In {setting.unit}."
    if setting.choices:
        text += f" One of {', '.join(setting.choices)}."
    return text


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH))
