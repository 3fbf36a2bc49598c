"""Reading the configuration: defaults < file < environment < flags, every problem reported at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsdbd.config import rules, settings
from dsdbd.config.layers import (
    RANK_FILE,
    Given,
    Layer,
    Problem,
    named_key,
    read_environment,
    read_flags,
    read_toml,
    show,
)
from dsdbd.config.locate import Place
from dsdbd.config.schema import Config
from dsdbd.config.settings import Kind, Setting, Value
from dsdbd.config.table import SECTIONS, TOP, Section
from dsdbd.errors import ConfigError

MAX_FILE_BYTES = 1 << 20
"""A configuration is a few kilobytes; a larger file is not one."""
PACKAGED_BASE = "/var/lib/dsdb"
PATH_VARIABLES = ("DSDB_CONFIG_PATH", "INFLUXDB_CONFIG_PATH")

_BIND_PLACES: tuple[Place, Place] = (("meta", None, "bind-address"), (TOP, None, "bind-address"))


@dataclass(frozen=True, slots=True)
class Flags:
    """Settings of the command line; an empty text is a flag that was not given."""

    join: str = ""
    hostname: str = ""


def config_path(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: the one of ``-config``, else of DSDB_CONFIG_PATH or INFLUXDB_CONFIG_PATH, else none."""
    if path is not None:
        return path
    return next((Path(environ[name]) for name in PATH_VARIABLES if environ.get(name)), None)


def load_config(
    path: Path | None, environ: Mapping[str, str], overrides: Flags | None = None, *, base: str | None = None
) -> Config:
    """The configuration of ``path`` (or of the environment's path), ``environ`` and ``overrides``.

    ``base`` is the directory under which directories default; without it that is ``~/.dsdb``.
    Reads the file and nothing else. Raises ConfigError whose message has one line per problem.
    """
    overrides = overrides or Flags()
    path = config_path(path, environ)
    file = read_toml(_read_text(path), str(path)) if path is not None else Layer()
    entries = {name: file.entries.get(name, 1) for name, section in SECTIONS.items() if section.is_array}
    environment = read_environment(environ, entries)
    builder = _Builder(file, environment, read_flags(overrides.join, overrides.hostname), environ, base)
    config = builder.build(entries)
    return replace(config, source=path)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, so not a configuration; name another file")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file; make one with 'dsdbd config > {path}', or start without -config"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a directory, not a file; name the configuration file in it") from None
    except PermissionError:
        raise ConfigError(f"{path}: not readable by this user; allow it or start as another user") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {reason}; name another file") from None


class _Builder:
    """Merges the layers, fills in defaults, applies the rules."""

    def __init__(
        self, file: Layer, environment: Layer, flags: Layer, environ: Mapping[str, str], base: str | None
    ) -> None:
        layers = (file, environment, flags)
        self._given: dict[Place, Given] = {}
        for layer in layers:
            self._given |= layer.given
        self._problems = list(itertools.chain.from_iterable(layer.problems for layer in layers))
        self._warnings = list(itertools.chain.from_iterable(layer.warnings for layer in layers))
        self._failed = set().union(*(layer.failed for layer in layers))
        self._home = environ.get("HOME", "")
        self._base = base if base is not None else f"{self._home}/.dsdb" if self._home else ""
        self._without_base: list[str] = []

    def build(self, entries: Mapping[str, int]) -> Config:
        self._share_bind_address()
        sections: dict[str, Any] = {}
        for section in SECTIONS.values():
            if section.is_array:
                count = range(entries[section.name])
                sections[section.attribute] = tuple(section.cls(**self._values(section, index)) for index in count)
            elif section.name:
                sections[section.attribute] = section.cls(**self._values(section, None))
        config = Config(
            **self._values(SECTIONS[TOP], None),
            **sections,
            origins={_origin_name(place): given.origin for place, given in self._given.items()},
            warnings=tuple(self._warnings),
        )
        if self._without_base:
            text = (
                f"failed to determine current user for storage of {', '.join(self._without_base)}: HOME is not set; "
                "set HOME, or set these directories in a file given with -config"
            )
            self._problems.append(Problem(RANK_FILE, 0, text))
        self._apply_rules(config)
        if self._problems:
            ordered = sorted(self._problems, key=lambda problem: (problem.rank, problem.line))
            raise ConfigError("\n".join(dict.fromkeys(problem.text for problem in ordered)))
        return config

    def _share_bind_address(self) -> None:
        """The bind-address of the top level and the one of [meta] are one setting; the stronger place gives it.

        In the same place the one that is not the default counts, because a printed configuration holds both lines
        and people change one of them; if both differ from it, the one of [meta].
        """
        meta, top = (self._given.get(place) for place in _BIND_PLACES)
        if meta is None or top is None:
            winner = meta or top
        elif meta.rank != top.rank:
            winner = max(meta, top, key=lambda given: given.rank)
        else:
            default = SECTIONS[TOP].settings["bind-address"].default
            winner = top if meta.value == default else meta
            if meta.value != top.value and top.value != default and winner is meta:
                self._warnings.append(
                    f"{meta.origin}: [meta] bind-address {show(meta.value)} wins over the top level bind-address "
                    f"{show(top.value)} ({top.origin}); remove one of the two"
                )
        if winner is not None:
            for place in _BIND_PLACES:
                self._given[place] = winner

    def _values(self, section: Section, index: int | None) -> dict[str, Any]:
        values: dict[str, Any] = {
            setting.attribute: self._value((section.name, index, key), setting)
            for key, setting in section.settings.items()
        }
        # A service that is off needs no directory; one that is on must not fall back to another place silently.
        needs_directories = section.name == "meta" or bool(values.get("enabled"))
        for key, setting in section.settings.items():
            if setting.kind is Kind.PATH and not setting.optional and values[setting.attribute] is None:
                place = (section.name, index, key)
                if needs_directories:
                    self._directory_missing(place)
                values[setting.attribute] = self._default(place, setting)
        return values

    def _value(self, place: Place, setting: Setting) -> Value:
        given = self._given.get(place)
        if given is None:
            return self._default(place, setting)
        if isinstance(given.value, Path) and given.value.parts[:1] == ("~",):
            if not self._home:
                self._report(place, 'HOME is not set, so "~" has no meaning; write the whole path')
                return given.value
            return Path(self._home, *given.value.parts[1:])
        return given.value

    def _default(self, place: Place, setting: Setting) -> Value:
        raw = setting.default
        if isinstance(raw, str) and "{base}" in raw:
            if not self._base:
                self._without_base.append(named_key(place))
            raw = raw.format(base=self._base)
        return settings.parse_value(setting, raw)

    def _directory_missing(self, place: Place) -> None:
        section, _, key = place
        name = {"meta": "Meta", "data": "Data", "hinted-handoff": "HintedHandoff"}[section]
        key_name = {"dir": "Dir", "wal-dir": "WALDir"}[key]
        self._report(place, f"{name}.{key_name} must be specified; give the path of a directory")

    def _apply_rules(self, config: Config) -> None:
        for broken in rules.broken_rules(config):
            # A value that could not be read was replaced by its default, which says nothing about the rule.
            if not self._failed.intersection(broken.places) and not self._without_base:
                given = [place for place in broken.places if place in self._given]
                self._report(given[0] if given else broken.places[0], broken.sentence, shown=broken.places[0])

    def _written(self, place: Place) -> str:
        setting = SECTIONS[place[0]].settings[place[2]]
        given = self._given.get(place)
        if given is not None:
            return settings.value_to_toml(setting, given.value)
        return f"{settings.value_to_toml(setting, self._default(place, setting))} (default)"

    def _report(self, place: Place, sentence: str, *, shown: Place | None = None) -> None:
        given = self._given.get(place)
        shown = shown or place
        origin = given.origin if given else "built-in default"
        _, _, line = origin.rpartition(":")
        named = f"{named_key(shown)} = {self._written(shown)}"
        rank = given.rank if given else RANK_FILE
        self._problems.append(Problem(rank, int(line) if line.isdigit() else 0, f"{origin}: {named}: {sentence}"))


def _origin_name(place: Place) -> str:
    section, index, key = place
    return ".".join(part for part in (section, "" if index is None else str(index), key) if part)
