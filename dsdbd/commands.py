"""The daemon's command line: words in, one immutable Invocation out. It starts nothing.

Flags follow Go's rules, because service files and guides of InfluxDB write them so: ``-x v``, ``-x=v`` and ``--x`` are
the same, the last one given counts, and an empty value counts as not given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from dsdbd.config import PACKAGED_BASE, Flags, load_config, render_config
from dsdbd.errors import UsageError
from dsdbd.version import VERSION

HELP = """\
dsdbd is the daemon of DSDB, a clustered time series database.

usage: dsdbd [command] [flags]

commands:
  run         start this node; the command if none is given
  config      print the configuration that would be in force, as a file
  backup      copy a running cluster to a directory; dsdbd backup -h tells more
  restore     write a backup into a running cluster; dsdbd restore -h tells more
  version     print the version
  help        print this text

flags of run and config:
  -config FILE     read the settings from FILE
  -join ADDRESSES  join the cluster of these members: host:8091, separated by commas
  -hostname NAME   name under which other nodes reach this one

flag of run:
  -pidfile FILE    write the process id to FILE

flag of config:
  -packaged        print the configuration of the packages, with directories below /var/lib/dsdb

A flag may have one or two hyphens; its value follows it, or stands behind "=".
Environment variables such as DSDB_META_DIR override the file, flags override both.
"""

_USAGE = "Run 'dsdbd help' for usage"
_BRACKETS = "square brackets only mark optional words in the guide; leave them out"


class Command(StrEnum):
    """What the daemon is asked to do."""

    RUN = "run"
    CONFIG = "config"
    VERSION = "version"
    HELP = "help"


_TEXT_FLAGS: Mapping[Command, tuple[str, ...]] = {
    Command.RUN: ("config", "join", "hostname", "pidfile"),
    Command.CONFIG: ("config", "join", "hostname"),
    Command.VERSION: (),
    Command.HELP: (),
}
_SWITCHES: Mapping[Command, tuple[str, ...]] = {Command.CONFIG: ("packaged",)}


@dataclass(frozen=True, slots=True)
class Invocation:
    """A parsed command line."""

    command: Command
    config_path: Path | None = None
    flags: Flags = field(default_factory=Flags)
    pidfile: Path | None = None
    packaged: bool = False


def parse(argv: Sequence[str]) -> Invocation:
    """The Invocation of the words after the program's name. Raises UsageError."""
    words = list(argv)
    command = Command.RUN
    if words and not words[0].startswith("-"):
        word = words.pop(0)
        if word not in set(Command):
            raise _unexpected(f'unknown command "{word}"', word)
        command = Command(word)
    elif words and words[0] in ("-version", "--version"):
        words.pop(0)
        command = Command.VERSION
    if command is Command.HELP:
        return Invocation(command)
    texts: dict[str, str] = {}
    switches: dict[str, bool] = {}
    while words:
        word = words.pop(0)
        if word == "--" and not words:
            break
        if not word.startswith("-") or word in ("-", "--"):
            extra = words[0] if word == "--" else word
            raise _unexpected(f'{command} takes no argument "{extra}"', extra)
        match = re.fullmatch(r"--?([^-=][^=]*)(?:=(.*))?", word, re.DOTALL)
        if match is None:
            raise UsageError(f"bad flag syntax: {word}\n{_USAGE}")
        name, value = match[1], match[2]
        if name in ("h", "help"):
            return Invocation(Command.HELP)
        if name in _SWITCHES.get(command, ()):
            switches[name] = _switch(name, value)
        elif name in _TEXT_FLAGS[command]:
            if value is None:
                if not words:
                    raise UsageError(f"flag needs an argument: -{name}\n{_USAGE}")
                value = words.pop(0)
            texts[name] = value
        else:
            raise _unexpected(f"{command} has no flag -{name}", name)
    return Invocation(
        command,
        config_path=_path(texts.get("config")),
        flags=Flags(join=texts.get("join", ""), hostname=texts.get("hostname", "")),
        pidfile=_path(texts.get("pidfile")),
        packaged=switches.get("packaged", False),
    )


def _unexpected(message: str, word: str) -> UsageError:
    hint = f"; {_BRACKETS}" if "[" in word or "]" in word else ""
    return UsageError(f"{message}{hint}\n{_USAGE}")


def _switch(name: str, value: str | None) -> bool:
    if value is None or value.lower() in ("true", "t", "1"):
        return True
    if value.lower() in ("false", "f", "0"):
        return False
    raise UsageError(f'invalid boolean value "{value}" for -{name}; write true or false\n{_USAGE}')


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def run_config(invocation: Invocation, environ: Mapping[str, str]) -> str:
    """What ``dsdbd config`` prints: the configuration in force, as a file. Raises ConfigError."""
    base = PACKAGED_BASE if invocation.packaged else None
    return render_config(load_config(invocation.config_path, environ, invocation.flags, base=base))


def version_text(branch: str = "", commit: str = "") -> str:
    """What ``dsdbd version`` prints, with the state of the source if it is known."""
    source = f" (git: {branch} {commit})" if branch and commit else ""
    return f"DSDB v{VERSION}{source}"


def source_state(root: Path) -> tuple[str, str]:
    """Branch and commit of the checkout at ``root``; two empty texts if it is none or cannot be read."""
    try:
        head = (root / ".git" / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return ("detached", head) if re.fullmatch(r"[0-9a-f]{40,64}", head) else ("", "")
        reference = head.removeprefix("ref: ")
        return reference.removeprefix("refs/heads/"), _commit_of(root / ".git", reference)
    except (OSError, ValueError):
        return "", ""


def _commit_of(git: Path, reference: str) -> str:
    loose = git / reference
    if loose.is_file():
        return loose.read_text(encoding="ascii").strip()
    for line in (git / "packed-refs").read_text(encoding="utf-8").splitlines():
        commit, _, name = line.partition(" ")
        if name == reference:
            return commit
    return ""
