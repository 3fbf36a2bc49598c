"""Which program a command line of `dsdb` means, and where the daemon's program is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NoReturn

from dsdb_cli.errors import ShellError
from dsdb_cli.flags import Kind, flag_name

DAEMON = "dsdbd"
DAEMON_COMMANDS = frozenset({"config", "run", "version", "backup", "restore", "help"})
DAEMON_FLAGS = frozenset({"config", "join", "hostname", "pidfile", "cpuprofile", "memprofile"})


class Program(Enum):
    """What a command line asks for."""

    SHELL = "shell"
    DAEMON = "daemon"
    STATUS = "status"
    DEMO = "demo"
    NODE = "node"


def choose_program(words: Sequence[str], shell_flags: Mapping[str, Kind]) -> Program:
    """The program for the words after ``dsdb``: by the first word, or by a flag only the daemon has.

    The value of a shell's flag is not taken for a flag, so ``-execute -config`` stays with the shell.
    """
    first = words[0] if words else ""
    if first in DAEMON_COMMANDS:
        return Program.DAEMON
    if first in (Program.STATUS.value, Program.DEMO.value, Program.NODE.value):
        return Program(first)
    index = 0
    while index < len(words):
        name = flag_name(words[index])
        if name in DAEMON_FLAGS:
            return Program.DAEMON
        kind = shell_flags.get(name) if name is not None else None
        if kind is None:
            break
        takes_next = kind is not Kind.SWITCH and "=" not in words[index]
        index += 2 if takes_next else 1
    return Program.SHELL


def daemon_candidates(program: str, executable: str, on_path: str | None) -> list[Path]:
    """Where the daemon's program may be, best first: beside this one, behind its link, beside the interpreter, PATH."""
    candidates = []
    if os.sep in program:
        candidates += [Path(program).absolute().with_name(DAEMON), Path(program).resolve().with_name(DAEMON)]
    candidates.append(Path(executable).with_name(DAEMON))
    if on_path is not None:
        candidates.append(Path(on_path))
    return candidates


def find_daemon(usable: Callable[[Path], bool] = lambda path: os.access(path, os.X_OK)) -> Path:
    """The daemon's program. Raises ShellError when there is none."""
    import shutil  # which only this path needs; a shell is to start fast

    for candidate in daemon_candidates(sys.argv[0], sys.executable, shutil.which(DAEMON)):
        if usable(candidate):
            return candidate
    raise ShellError(
        f"The daemon's program {DAEMON} is neither beside {Path(sys.argv[0]).name} nor in PATH: "
        "install the daemon, or set PATH to where it is."
    )


def become_daemon(words: Sequence[str]) -> NoReturn:
    """Replace this process by the daemon with the same words. Raises ShellError when that cannot be done."""
    program = find_daemon()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(program, [DAEMON, *words])  # noqa: S606 - the user asked for that program
    except OSError as error:
        raise ShellError(f"Cannot start {program}: {error.strerror}") from error
