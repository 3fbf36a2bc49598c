"""One line of input as a command of the shell; what is no command goes to the server as a query."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dsdb_cli.statements import first_word

_IDENTIFIER = re.compile(r'"((?:\\.|[^"\\])*)"?|([^\s."]+)')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Simple:
    """A command of one word: exit, help, gopher, history, settings, pretty, chunked."""

    name: str


@dataclass(frozen=True, slots=True)
class Assign:
    """A command with one value, which may be missing: connect, format, precision, consistency, clear, chunk size."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Auth:
    """Credentials; None is asked for."""

    username: str | None
    password: str | None


@dataclass(frozen=True, slots=True)
class Use:
    """``use db`` or ``use db.rp``; ``database`` is None when no name can be read from ``line``."""

    line: str
    database: str | None
    retention_policy: str | None


@dataclass(frozen=True, slots=True)
class Insert:
    """A point; database and retention policy are None where the line names none."""

    database: str | None
    retention_policy: str | None
    point: str


@dataclass(frozen=True, slots=True)
class Query:
    """Text for the server."""

    text: str


Command = Simple | Assign | Auth | Use | Insert | Query

_SIMPLE = {
    "exit": "exit",
    "quit": "exit",
    "help": "help",
    "gopher": "gopher",
    "history": "history",
    "settings": "settings",
    "pretty": "pretty",
    "chunked": "chunked",
}
_ASSIGN = frozenset({"connect", "format", "precision", "consistency", "clear"})


def parse_command(line: str) -> Command:
    """Read one command or query; never fails, since the server is the judge of queries."""
    text = line.strip()
    word = first_word(text)
    argument = text[len(text.split(maxsplit=1)[0]) :].strip() if word else ""
    if word == "insert":
        return _parse_insert(argument)
    argument = argument.rstrip("; \t") if word != "auth" else argument
    if word in _SIMPLE:
        return Simple(_SIMPLE[word])
    if word in _ASSIGN:
        return Assign(word, argument)
    if word == "chunk":
        _, _, size = argument.partition("size")
        return Assign("chunk size", size.strip() or argument)
    if word == "auth":
        username, _, password = argument.partition(" ")
        return Auth(username or None, password.strip() or None)
    if word == "use":
        return _parse_use(text, argument)
    return Query(text)


def parse_identifier(text: str) -> tuple[str, str] | None:
    """A quoted or bare name at the start of ``text``, and what follows it; None when there is none."""
    match = _IDENTIFIER.match(text)
    if match is None:
        return None
    quoted, bare = match.group(1), match.group(2)
    name = _ESCAPE.sub(r"\1", quoted) if quoted is not None else bare
    return (name, text[match.end() :]) if name else None


def _parse_use(line: str, argument: str) -> Use:
    database = parse_identifier(argument)
    if database is None:
        return Use(line, None, None)
    name, rest = database
    if not rest:
        return Use(line, name, None)
    policy = parse_identifier(rest[1:]) if rest[0] == "." else None
    if policy is None or policy[1]:
        return Use(line, None, None)
    return Use(line, name, policy[0])


def _parse_insert(argument: str) -> Insert:
    """``insert into`` names a policy, or a database and a policy, if a name and white space follow the word."""
    if first_word(argument) != "into":
        return Insert(None, None, argument)
    first = parse_identifier(argument[len("into") :].lstrip())
    if first is None:
        return Insert(None, None, argument)
    name, rest = first
    if rest[:1].isspace():
        return Insert(None, name, rest.lstrip())
    second = parse_identifier(rest[1:]) if rest[:1] == "." else None
    if second is None or not second[1][:1].isspace():
        return Insert(None, None, argument)
    return Insert(name, second[0], second[1].lstrip())


def quote_identifier(name: str) -> str:
    """``name`` as a double-quoted identifier of InfluxQL."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
