"""What the text before the first space of a line means: remembered for texts seen before, read in bulk for new ones."""

from __future__ import annotations

import re
import threading
from typing import NamedTuple, TypeAlias

from dsdbd import limits
from dsdbd.model.line_protocol_patterns import PatternCache, compile_lines, pattern_bytes, split_accepted
from dsdbd.model.line_protocol_scan import LineProblem, scan_point

KnownKey: TypeAlias = tuple[str, bytes]
"""Measurement, and canonical key of the series."""

MAX_REMEMBERED_BYTES = 32_000
"""Longer keys are read anew each time: the limit on keys with their fields' names is then out of reach as well."""
_FORGOTTEN_AT_ONCE = 10_000
_ENTRY_BYTES = 256
"""What a remembered key takes beside the bytes of its two texts."""
_MEASUREMENT = re.compile(rb"[^\x00-\x20\x7f#\\,=][^\x00-\x1f\x7f\\,= ]*")
_TAG_NAME = re.compile(rb"[^\x00-\x1f\x7f\\,= ]+")
_TAG_VALUE = rb"[^\x00-\x1f\x7f\\,= ]+"
_KEY_END = re.compile(rb"(?<!\\) ")
_WORTH_ROWS = 100
_MAX_ROUNDS = 4


def split_key(line: bytes) -> tuple[bytes, bytes]:
    """A line's key, and what follows the first space that is not escaped."""
    space = _KEY_END.search(line)
    return (line, b"") if space is None else (line[: space.start()], line[space.end() :])


class KnownKeys:
    """A bounded memory of keys, for all threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._entries: dict[bytes, KnownKey] = {}
        self._forgotten: dict[bytes, KnownKey] = {}
        self._lock = threading.Lock()

    def lookup(self, keys: list[bytes]) -> list[KnownKey | None]:
        """What is known of each key."""
        return list(map(self._entries.get, keys))

    def remember(self, entries: dict[bytes, KnownKey]) -> None:
        """Keep what keys mean; when half of the memory is full all older ones are forgotten.

        They leave little by little, meanwhile the newer ones fill the other half.
        """
        size = sum(map(len, entries)) * 2 + len(entries) * _ENTRY_BYTES
        with self._lock:
            if self._held_bytes + size > self._max_bytes // 2:
                # A thread that looks up meanwhile keeps the old dictionary, and reads a key again at worst.
                self._forgotten = self._entries
                self._entries = {}
                self._held_bytes = 0
            # All at once would hold the interpreter for long.
            for _ in range(min(len(self._forgotten), _FORGOTTEN_AT_ONCE)):
                self._forgotten.popitem()
            if size <= self._max_bytes // 2:
                self._entries.update(entries)
                self._held_bytes += size


class TemplateKey(NamedTuple):
    """Measurement and names of tags in the order in which a client writes them."""

    measurement: bytes
    names: tuple[bytes, ...]


class Template:
    """The pattern of keys that differ in the values of tags only; raises UnicodeDecodeError for bad names."""

    def __init__(self, key: TemplateKey) -> None:
        self.measurement = key.measurement.decode()
        for name in key.names:
            name.decode()
        parts = [re.escape(key.measurement), *(re.escape(name) + b"=" + _TAG_VALUE for name in key.names)]
        self.pattern = compile_lines(b",".join(parts), len(key.names) + 1)
        order = sorted(range(len(key.names)), key=lambda position: key.names[position])
        self._order = None if order == list(range(len(order))) else [0, *(position + 1 for position in order)]

    def canonical(self, key: bytes) -> bytes:
        """The canonical form of a key that the pattern accepted."""
        if self._order is None:
            return key
        parts = key.split(b",")
        return b",".join([parts[position] for position in self._order])


def template_key(key: bytes) -> TemplateKey | None:
    """The template that a key seems to follow; None for one that only the scanner should read."""
    measurement, *pairs = key.split(b",")
    names = tuple(pair.partition(b"=")[0] for pair in pairs)
    if (
        _MEASUREMENT.fullmatch(measurement) is None
        or not all(map(_TAG_NAME.fullmatch, names))
        or b"time" in names
        or len(set(names)) < len(names)
        or len(names) > limits.MAX_PARSER_PATTERN_FIELDS
        or len(key) > limits.MAX_PARSER_FORM_BYTES
    ):
        return None
    return TemplateKey(measurement, names)


def read_keys(keys: list[bytes]) -> dict[bytes, KnownKey]:
    """What new keys mean, as far as they are plain; the others are left to the scanner."""
    groups: dict[bytes, list[bytes]] = {}
    for key in dict.fromkeys(keys):
        groups.setdefault(key.partition(b",")[0], []).append(key)
    known: dict[bytes, KnownKey] = {}
    for group in groups.values():
        pending = [key for key in group if len(key) <= MAX_REMEMBERED_BYTES]
        for _ in range(_MAX_ROUNDS):
            if not pending:
                break
            pending = _read_group(pending, known)
    return known


def _read_group(keys: list[bytes], known: dict[bytes, KnownKey]) -> list[bytes]:
    """Read the keys that follow the template of the first; returns the others, without the first."""
    described = template_key(keys[0])
    if described is None:
        return keys[1:]
    template = TEMPLATES.get(described, len(keys))
    if template is None:
        for key in keys:
            meaning = _scan(key)
            if meaning is not None:
                known[key] = meaning
        return []
    accepted = split_accepted(template.pattern, keys)
    try:
        if not accepted.text.isascii():
            accepted.text.decode()
    except UnicodeDecodeError:
        return []
    rows = range(len(keys)) if accepted.rows is None else accepted.rows
    for row in rows:
        key = keys[row]
        known[key] = (template.measurement, template.canonical(key))
    return [keys[row] for row in accepted.refused]


def _scan(key: bytes) -> KnownKey | None:
    """What the scanner says of a key; None for one that it refuses or ends elsewhere."""
    try:
        text = key.decode()
        point = scan_point(text + " v=0")
    except (UnicodeDecodeError, LineProblem):
        return None
    if point.key != text or "time" in dict(point.series.tags):
        return None
    return point.series.measurement, point.series.key()


def _make_template(key: TemplateKey) -> Template | None:
    try:
        return Template(key)
    except UnicodeDecodeError:
        return None


TEMPLATES = PatternCache(
    _make_template, lambda key: pattern_bytes(len(key.names)), limits.MAX_PARSER_PATTERN_BYTES, _WORTH_ROWS
)
KNOWN_KEYS = KnownKeys(limits.MAX_PARSER_KEY_BYTES)
