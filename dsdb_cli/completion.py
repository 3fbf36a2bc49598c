"""What TAB offers: a function of the text before the cursor and of the names the server knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dsdb_cli.commands import quote_identifier
from dsdb_cli.render import FORMATS
from dsdb_cli.session import CONSISTENCIES, PRECISIONS
from dsdb_cli.statements import COMMAND_WORDS, STATEMENT_WORDS

_KEYWORD_TEXT = """
    ALL ALTER ANALYZE AND ANY AS ASC BEGIN BY CARDINALITY CONTINUOUS CREATE DATABASE DATABASES DEFAULT DELETE DESC
    DESTINATIONS DIAGNOSTICS DISTINCT DROP DURATION END EVERY EXACT EXPLAIN FIELD FILL FOR FROM GRANT GRANTS GROUP
    GROUPS IN INF INSERT INTO KEY KEYS KILL LIMIT MEASUREMENT MEASUREMENTS NAME NOT OFFSET ON OR ORDER PASSWORD
    POLICIES POLICY PRIVILEGES QUERIES QUERY READ REPLICATION RESAMPLE RETENTION REVOKE SELECT SERIES SERVER SERVERS
    SET SHARD SHARDS SHOW SLIMIT SOFFSET STATS SUBSCRIPTION SUBSCRIPTIONS TAG TO USER USERS VALUES WHERE WITH WRITE
"""
KEYWORDS = tuple(_KEYWORD_TEXT.split())
MAX_NAMES = 1000
"""Names of one kind offered, and asked of the server: more cannot be chosen from on a screen."""

_LAST_WORD = re.compile(r'(?:"(?:\\.|[^"\\])*|[^\s,()=;"]*)$')
_BARE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_AFTER = re.compile(r"(\w+)[\s]+\Z")


@dataclass(frozen=True, slots=True)
class Names:
    """Names the server knows, at most MAX_NAMES of each kind."""

    databases: Sequence[str] = ()
    measurements: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Completions:
    """Candidates for the last ``replaces`` characters before the cursor."""

    candidates: tuple[str, ...]
    replaces: int


def complete(text: str, names: Names) -> Completions:
    """Candidates for the word at the end of ``text``, in the case of what was typed so far where case is free."""
    match = _LAST_WORD.search(text)
    word = match.group() if match else ""
    before = text[: len(text) - len(word)]
    return Completions(tuple(_candidates(before, word, names)), len(word))


def _candidates(before: str, word: str, names: Names) -> list[str]:
    if not before.strip():
        # Commands first: they are what a help text would have to be read for; "insert" is in both lists.
        commands = _matching(COMMAND_WORDS, word)
        return commands + [keyword for keyword in _keywords(STATEMENT_WORDS, word) if keyword not in commands]
    match = _AFTER.search(before)
    previous = match.group(1).lower() if match else ""
    first = before.split(maxsplit=1)[0].lower()
    fixed = {
        "format": FORMATS,
        "precision": PRECISIONS,
        "consistency": CONSISTENCIES,
        "clear": ("database", "retention policy"),
        "chunk": ("size",),
    }.get(first)
    if fixed is not None:
        return _matching(fixed, word) if previous == first else []
    if first == "use" or previous in ("on", "database"):
        return _names(names.databases, word)
    if previous in ("from", "measurement"):
        return _names(names.measurements, word)
    if first == "insert":
        candidates = _matching(("into",), word) if previous == "insert" and word else []
        return candidates + _names(names.measurements, word) if previous == "insert" else []
    return _keywords(KEYWORDS, word)


def _matching(choices: Sequence[str], word: str) -> list[str]:
    return [choice for choice in choices if choice.startswith(word.lower())]


def _keywords(keywords: Sequence[str], word: str) -> list[str]:
    if word.startswith('"'):
        return []
    found = [keyword for keyword in keywords if keyword.startswith(word.upper())]
    return [keyword.lower() for keyword in found] if word and word == word.lower() else found


def _names(names: Sequence[str], word: str) -> list[str]:
    start = word.removeprefix('"')
    found = [name for name in names if name.startswith(start)][:MAX_NAMES]
    return [
        name if _BARE_NAME.match(name) and name.upper() not in KEYWORDS and word[:1] != '"' else quote_identifier(name)
        for name in found
    ]
