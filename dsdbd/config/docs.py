"""Writes docs/reference/config.md and etc/dsdb.conf.example from the table: ``python -m dsdbd.config.docs --write``.

Without ``--write`` it names the files that are not up to date and ends with status 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dsdbd.config import settings, table
from dsdbd.config.load import PACKAGED_BASE, load_config
from dsdbd.config.render import help_line, render_config
from dsdbd.config.settings import Kind, Setting
from dsdbd.config.table import SECTIONS, TOP, Section
from dsdbd.config.values import format_duration

_INTRODUCTION = """\
# Configuration reference

This page is written by `python -m dsdbd.config.docs --write` from the table in `dsdbd/config/schema.py`.

## Where settings come from

Each place overrides the ones before it:

1. the built-in defaults,
2. the file named by `-config`, else by the variable `DSDB_CONFIG_PATH` or `INFLUXDB_CONFIG_PATH`,
3. environment variables `INFLUXDB_<SECTION>_<KEY>`, then `DSDB_<SECTION>_<KEY>`,
4. the flags `-join` and `-hostname`.

`dsdbd config` prints what would be in force, as a file; `dsdbd config -config FILE` prints the union of defaults and
file; `dsdbd config -packaged` prints it with the directories of the packages (below `/var/lib/dsdb`), which is how
`etc/dsdb.conf.example` was made. Without a file the directories are below `~/.dsdb`.

The daemon reads the configuration once, at its start. It reports all mistakes together, one a line, with file, line,
section, key, value, the reason and what to write instead, and ends with status 2. A key or a section it does not know
is a mistake.

## How values are written

| kind | in the file | in a variable |
| --- | --- | --- |
| boolean | `true`, `false` | `true`, `false`, `1`, `0` |
| integer, float | `3`, `0.5` | the same |
| string, path, host name, choice | `"text"` | `text` |
| duration | `"500ms"`, `"1m30s"`, `"168h"`, `"7d"`; units ns, µs (us), ms, s, m, h, d, w | without quotes |
| size | bytes: `25000000`, or `"64k"`, `"25m"`, `"1g"`, `"1t"` (powers of 1024) | without quotes |
| address | `"host:port"`, `":port"`, `"[::1]:port"` | without quotes |
| list of strings | `["one", "two"]` | the same, or one text |
| list of addresses | `"a:8091,b:8091"` or `["a:8091", "b:8091"]`; the port is 8091 if it is missing | without quotes |

The name of a variable is prefix, section and key in upper case, joined by `_`, with `_` for `-`; settings above the
sections have no section in the name. An empty variable counts as not set. `[[graphite]]` and `[[udp]]` are lists:
their entries are counted from 0 (`DSDB_GRAPHITE_0_ENABLED`), and a variable changes an entry that exists, it makes
none. Without `[[graphite]]` in the file there is one entry, switched off; entries in the file take its place. A
variable with one of the prefixes that names no setting is ignored with a warning.

A path may begin with `~/`. An empty address counts as not set, except where the table says that it switches the
listener off. An empty directory is a mistake if its service is enabled.
"""
_COMING = "The service comes in a later version: these settings are read and checked, and nothing acts on them yet."
_SHARED = """\
`bind-address` above the sections and `[meta] bind-address` are one setting: if both are given, the one from the
stronger place counts; in the same place the one that is not the default, and if neither is, the one of `[meta]`.
Listeners with the same address share it.
"""


def render_reference() -> str:
    """The text of docs/reference/config.md."""
    parts = [_INTRODUCTION]
    for section in SECTIONS.values():
        parts.append(_section(section))
        if section.name == TOP:
            parts.append(_SHARED)
    return "\n".join(parts)


def render_example() -> str:
    """The text of etc/dsdb.conf.example: the defaults with the directories of the packages."""
    return render_config(load_config(None, {}, base=PACKAGED_BASE))


def _section(section: Section) -> str:
    lines = [f"## `{section.title}`" if section.name else "## Above every section", ""]
    lines += [section.help if section.name else "These lines stand before the first `[section]`.", ""]
    if section.coming:
        lines += [_COMING, ""]
    lines += ["| key | default | kind | bounds | what it does |", "| --- | --- | --- | --- | --- |"]
    for key, setting in section.settings.items():
        cells = (f"`{key}`", f"`{_default(setting)}`", str(setting.kind), _bounds(setting), help_line(setting))
        lines.append(_row(cells))
    first = next(iter(section.settings))
    name = table.environment_suffix(section.name, first, 0 if section.is_array else None)
    lines += ["", f"Environment: `DSDB_{name}` for `{first}`, and so on."]
    if section.without_effect:
        lines += ["", "Accepted from older files, without effect:", "", "| key | kind | why |", "| --- | --- | --- |"]
        lines += [_row((f"`{key}`", str(old.kind), old.help)) for key, old in section.without_effect.items()]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(setting: Setting) -> str:
    if isinstance(setting.default, str) and "{base}" in setting.default:
        return settings.quote(setting.default.format(base="~/.dsdb"))
    return settings.value_to_toml(setting, settings.parse_value(setting, setting.default))


def _bounds(setting: Setting) -> str:
    if setting.minimum is None or setting.maximum is None:
        return ""
    if setting.kind is Kind.DURATION:
        return f"{format_duration(setting.minimum)} to {format_duration(setting.maximum)}"
    return f"{setting.minimum:.15g} to {setting.maximum:.16g}"


def main(arguments: list[str], root: Path) -> int:
    """Write the two files below ``root``, or say which differ; the exit status."""
    files = {
        root / "docs" / "reference" / "config.md": render_reference(),
        root / "etc" / "dsdb.conf.example": render_example(),
    }
    if arguments == ["--write"]:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return 0
    old = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in old:
        sys.stderr.write(f"{path} is not up to date; run: python -m dsdbd.config.docs --write\n")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parents[2]))
