"""Lines of input grouped into what is run at once: a command of the shell, or a statement of one or more lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

STATEMENT_WORDS = ("ALTER", "CREATE", "DELETE", "DROP", "EXPLAIN", "GRANT", "KILL", "REVOKE", "SELECT", "SET", "SHOW")
COMMAND_WORDS = (
    "auth",
    "chunk",
    "chunked",
    "clear",
    "connect",
    "consistency",
    "exit",
    "format",
    "gopher",
    "help",
    "history",
    "insert",
    "precision",
    "pretty",
    "quit",
    "settings",
    "use",
)
_STARTERS = frozenset(word.lower() for word in (*STATEMENT_WORDS, *COMMAND_WORDS))
_STATEMENT_STARTERS = frozenset(word.lower() for word in STATEMENT_WORDS)

# After these words a statement begins that belongs to the one before.
_OPEN_END = re.compile(r"\b(?:begin|explain|analyze)\s*$", re.IGNORECASE)
# What may hold quotes and brackets that count for nothing: strings, names, comments, regular expressions.
_OPAQUE = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|--[^\n]*|/\*.*?\*/|(?:[=!]~|\bfrom)\s*/(?:\\.|[^/\\\n])+/""",
    re.DOTALL | re.IGNORECASE,
)

MAX_STATEMENT_CHARS = 1 << 20
"""A longer statement is run as it stands, so that input without an end cannot fill the memory."""


def first_word(line: str) -> str:
    """The line's first word in lower case, without a semicolon after it; empty for a blank line."""
    words = line.split(maxsplit=1)
    return words[0].rstrip(";").lower() if words else ""


def group_lines(lines: Iterable[str]) -> Iterator[str]:
    """Commands and statements, in order, each without white space around it.

    A line continues the statement before it when that one is still open (a bracket, a quote, BEGIN without END), or
    when the line's own first word begins neither a statement nor a command. Commands of the shell are one line each,
    and so is a line that begins with no known word. A comment goes with the statement before it, or nowhere.
    """
    pending = ""
    for line in lines:
        text = line.strip()
        if not text:
            continue
        if pending and len(pending) < MAX_STATEMENT_CHARS and _continues(pending, text):
            pending += "\n" + text
            continue
        if pending:
            yield pending
        pending = ""
        if text.startswith("--"):
            continue
        pending = text
        if first_word(text) not in _STATEMENT_STARTERS:
            yield text
            pending = ""
    if pending:
        yield pending


def _continues(pending: str, line: str) -> bool:
    bare = _OPAQUE.sub("", pending).rstrip()
    if "'" in bare or '"' in bare or "/*" in bare or bare.count("(") > bare.count(")") or _OPEN_END.search(bare):
        return True
    return not bare.endswith(";") and first_word(line) not in _STARTERS
