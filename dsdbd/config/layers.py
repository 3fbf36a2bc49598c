"""The three places a setting can come from (file, environment, flags), each read into the same flat form. Pure.

Every value is checked where it is found, so a file's mistake is reported although a variable overrides it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import tomli

from dsdbd.config import settings, table
from dsdbd.config.locate import Place, locate_keys
from dsdbd.config.settings import Kind, Setting, Value
from dsdbd.config.table import SECTIONS, TOP, Section

RANK_FILE, RANK_FLAGS = 0, 3
MAX_ARRAY_ENTRIES = 100
"""Listeners of one kind; each is a port, so more than this is a mistake."""
_MAX_SHOWN_CHARACTERS = 80

OTHER_VARIABLES = frozenset({"CONFIG_PATH", "LOG_LEVEL", "LOG_FORMAT", "OPTS", "USERNAME", "PASSWORD", "DEFAULTS"})
"""Variables with our prefixes that are no settings: read elsewhere in DSDB or by clients."""
_ELSEWHERE = {
    "coordinator": "this section of InfluxDB is called [cluster] here",
    "logging": "set DSDB_LOG_LEVEL and DSDB_LOG_FORMAT in the environment instead",
    "tls": "set https-enabled and https-certificate in [http], [meta] or [admin] instead",
    "hinted_handoff": "write [hinted-handoff]",
    "shard_precreation": "write [shard-precreation]",
}


@dataclass(frozen=True, slots=True)
class Given:
    """One checked value, and where it was given."""

    value: Value
    origin: str
    rank: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of a ConfigError."""

    rank: int
    line: int
    text: str


@dataclass(slots=True)
class Layer:
    """What one place gives."""

    given: dict[Place, Given] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)
    """Entries of each array of tables the place lists."""
    problems: list[Problem] = field(default_factory=list)
    failed: set[Place] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def put(self, place: Place, setting: Setting, raw: object, *, origin: str, line: int, rank: int) -> None:
        """Check ``raw`` and keep it, or keep the problem."""
        try:
            if rank != RANK_FILE and isinstance(raw, str):
                raw = settings.text_to_toml(setting, raw)
            value = settings.parse_value(setting, raw)
        except ValueError as error:
            self.failed.add(place)
            named = f"{named_key(place)} = {show(raw)}"
            self.problems.append(Problem(rank, line, f"{origin}: {named}: {error}"))
            return
        # An empty address without a meaning of its own is "not set"; an empty directory is judged by the rules.
        if value is not None or setting.kind is not Kind.ADDRESS:
            self.given[place] = Given(value, origin, rank)


def named_key(place: Place) -> str:
    """How messages name a setting: ``[meta] dir``, ``[[udp]] 1 database``, ``join``."""
    section, index, key = place
    number = "" if index is None else f" entry {index + 1}"
    return f"{SECTIONS[section].title}{number} {key}".strip()


def show(raw: object) -> str:
    """A given value in a message, cut to a readable length."""
    text = json.dumps(raw, ensure_ascii=True, default=str)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[: _MAX_SHOWN_CHARACTERS - 1] + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word a misspelt one most likely stands for, or nothing."""
    folded = {name.lower().replace("_", "-"): name for name in known if name}
    close = difflib.get_close_matches(word.lower().replace("_", "-"), folded, 1, 0.6)
    return folded[close[0]] if close else ""


def read_toml(text: str, name: str) -> Layer:
    """The settings of a configuration file's text; ``name`` is how messages call the file."""
    layer = Layer()
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        where = f"{name}:{error.lineno}"
        layer.problems.append(Problem(RANK_FILE, error.lineno, f"{where}: not valid TOML: {_syntax(error)}"))
        return layer
    except (ValueError, RecursionError):
        layer.problems.append(
            Problem(
                RANK_FILE, 0, f"{name}: not valid TOML: a number is too long or lists are nested too deeply; correct it"
            )
        )
        return layer
    reader = _FileReader(layer, name, locate_keys(text))
    reader.read_document(document)
    return layer


def _syntax(error: tomli.TOMLDecodeError) -> str:
    """What a TOML error means and what to do, with its column."""
    message = error.msg[:1].lower() + error.msg[1:]
    where = f"(column {error.colno})"
    if twice := re.match(r"cannot declare (\(.*\)) twice", message):
        section = ".".join(re.findall(r"'([^']*)'", twice[1]))
        return f"[{section}] stands twice {where}; put all its keys under one header"
    if "overwrite" in message:
        return f"a key stands twice {where}; remove one of the two lines"
    if message.startswith(r"illegal character '\n'"):
        return f"the quote is not closed {where}; close it on the same line"
    if message.startswith(("invalid value", "expected newline")):
        return f'{message} {where}; text, paths, addresses and durations stand in quotes: key = "value"'
    return f"{message} {where}; a line is [section] or key = value"


class _FileReader:
    def __init__(self, layer: Layer, name: str, lines: Mapping[Place, int]) -> None:
        self._layer = layer
        self._name = name
        self._lines = lines
        self._dropped: list[str] = []

    def read_document(self, document: Mapping[str, object]) -> None:
        for name, content in document.items():
            section = SECTIONS.get(name) if name else None
            if section is not None:
                self._read_section(section, content)
            elif isinstance(content, dict) or (isinstance(content, list) and content and isinstance(content[0], dict)):
                self._unknown_section(name, is_array=isinstance(content, list))
            else:
                self._read_key(SECTIONS[TOP], None, name, content)
        if self._dropped:
            self._layer.warnings.append(
                f"{self._name}: accepted without effect: {', '.join(self._dropped)}; these lines can be removed"
            )

    def _read_section(self, section: Section, content: object) -> None:
        place: Place = (section.name, 0 if section.is_array else None, "")
        if section.is_array:
            if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
                self._problem(place, f"{section.name}: not a list of tables; write {section.title} above its keys")
                return
            if len(content) > MAX_ARRAY_ENTRIES:
                self._problem(place, f"{section.title}: more than {MAX_ARRAY_ENTRIES} entries; remove some")
                return
            self._layer.entries[section.name] = len(content)
            for index, entry in enumerate(content):
                for key, raw in entry.items():
                    self._read_key(section, index, key, raw)
        elif isinstance(content, dict):
            for key, raw in content.items():
                self._read_key(section, None, key, raw)
        else:
            self._problem(place, f"{section.name}: not a table; write {section.title} once, above its keys")

    def _read_key(self, section: Section, index: int | None, key: str, raw: object) -> None:
        place: Place = (section.name, index, key)
        if place == ("admin", None, "port"):
            self._read_admin_port(place, raw)
            return
        setting = section.known.get(key)
        if setting is None:
            self._problem(place, _unknown_key(section, place, raw))
            return
        if key in section.without_effect:
            self._dropped.append(named_key(place))
        line = self._line(place)
        self._layer.put(place, setting, raw, origin=self._origin(line), line=line, rank=RANK_FILE)

    def _read_admin_port(self, place: Place, raw: object) -> None:
        setting = SECTIONS["admin"].settings["bind-address"]
        target: Place = ("admin", None, "bind-address")
        line = self._line(place)
        written = f":{raw}" if isinstance(raw, int) and not isinstance(raw, bool) else raw
        if isinstance(raw, str) and raw.isdigit():
            written = f":{raw}"
        if target not in self._layer.given:
            self._layer.put(target, setting, written, origin=self._origin(line), line=line, rank=RANK_FILE)

    def _unknown_section(self, name: str, *, is_array: bool) -> None:
        meant = _ELSEWHERE.get(name) or ""
        if not meant:
            close = nearest(name, SECTIONS)
            meant = f"did you mean {SECTIONS[close].title}?" if close else "run 'dsdbd config' to see every section"
        title = f"[[{name}]]" if is_array else f"[{name}]"
        self._problem((name, 0 if is_array else None, ""), f"unknown section {title}; {meant}")

    def _line(self, place: Place) -> int:
        section = place[0]
        other = 0 if place[1] is None else None
        candidates: tuple[Place, ...] = (place, (*place[:2], ""), (section, other, ""), (TOP, None, section))
        return next((self._lines[candidate] for candidate in candidates if candidate in self._lines), 0)

    def _origin(self, line: int) -> str:
        return f"{self._name}:{line}" if line else self._name

    def _problem(self, place: Place, text: str) -> None:
        line = self._line(place)
        self._layer.problems.append(Problem(RANK_FILE, line, f"{self._origin(line)}: {text}"))


def _unknown_key(section: Section, place: Place, raw: object) -> str:
    key = place[2]
    where = section.title or "top level"
    named = f"{where} {key} = {show(raw)}: unknown key"
    if section.name == "hinted-handoff" and key == "retry-max":
        return f"{named}; did you mean retry-max-interval?"
    if key in SECTIONS[TOP].settings:
        return f"{named}; it stands at the top of the file, above every section"
    homes = [other.title for other in SECTIONS.values() if other.name and key in other.known and key != "enabled"]
    if homes:
        return f"{named}; it belongs to {' or '.join(homes[:3])}"
    known = [*section.known, "port"] if section.name == "admin" else section.known
    if close := nearest(key, known):
        return f"{named}; did you mean {close}?"
    return f"{named}; run 'dsdbd config' to see every key"


def read_environment(environ: Mapping[str, str], entries: Mapping[str, int]) -> Layer:
    """The settings in variables ``INFLUXDB_*`` and ``DSDB_*``; the latter win. An empty variable counts as not set.

    ``entries`` says how many entries each array of tables has; variables change entries and create none.
    """
    layer = Layer()
    known = _environment_names(entries)
    for rank, prefix in enumerate(table.ENVIRONMENT_PREFIXES, RANK_FILE + 1):
        for name in sorted(environ):
            suffix, text = name.removeprefix(prefix), environ[name]
            if suffix == name or not text:
                continue
            if suffix not in known:
                if suffix not in OTHER_VARIABLES:
                    layer.warnings.append(_unknown_variable(name, prefix, suffix, known))
                continue
            place, setting = known[suffix]
            origin = f"environment variable {name}"
            if suffix == "ADMIN_PORT":
                if f"{prefix}ADMIN_BIND_ADDRESS" in environ:
                    continue
                text = f":{text}"
            layer.failed.discard(place)
            layer.put(place, setting, text, origin=origin, line=0, rank=rank)
    return layer


def _environment_names(entries: Mapping[str, int]) -> dict[str, tuple[Place, Setting]]:
    names: dict[str, tuple[Place, Setting]] = {}
    for section in SECTIONS.values():
        indexes: Iterable[int | None] = range(entries.get(section.name, 0)) if section.is_array else (None,)
        for index in indexes:
            for key, setting in section.known.items():
                suffix = table.environment_suffix(section.name, key, index)
                names[suffix] = ((section.name, index, key), setting)
    bind_address = SECTIONS["admin"].settings["bind-address"]
    names["ADMIN_PORT"] = (("admin", None, "bind-address"), bind_address)
    return names


def _unknown_variable(name: str, prefix: str, suffix: str, known: Iterable[str]) -> str:
    close = nearest(suffix, known)
    meant = f"the nearest is {prefix}{close}" if close else "docs/reference/config.md lists every name"
    return f"environment variable {name} names no setting and is ignored; {meant}"


def read_flags(join: str, hostname: str) -> Layer:
    """The settings given as ``-join`` and ``-hostname``; an empty flag counts as not given."""
    layer = Layer()
    for key, text in (("join", join), ("hostname", hostname)):
        if text:
            setting = SECTIONS[TOP].settings[key]
            layer.put((TOP, None, key), setting, text, origin=f"flag -{key}", line=0, rank=RANK_FLAGS)
    return layer
