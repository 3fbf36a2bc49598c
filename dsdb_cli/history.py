"""The lines entered, kept in a file between sessions; lines with passwords are kept nowhere."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

FILE_NAME = ".dsdb_history"
MAX_ENTRIES = 1000
MAX_ENTRY_CHARS = 10_000
"""A longer line, a pasted batch of points say, is not worth keeping and would make a thousand of them a big file."""

_SECRET = re.compile(r"\bpassword\b|^\s*auth\b", re.IGNORECASE)


def holds_secret(line: str) -> bool:
    """Whether the line may carry a password: a statement that names one, or the command auth."""
    return _SECRET.search(line) is not None


def as_entry(line: str) -> str | None:
    """The line as it is kept, on one line; None when it is not kept."""
    entry = " ".join(line.split("\n")).strip()
    if not entry or len(entry) > MAX_ENTRY_CHARS or holds_secret(line):
        return None
    return entry


def default_path() -> Path | None:
    """The history file in the home directory; None where there is no home."""
    try:
        return Path.home() / FILE_NAME
    except RuntimeError:
        return None


class HistoryFile:
    """Entries, oldest first, in memory and in a file of mode 0600.

    A file that cannot be read or written costs the history of other sessions and nothing else: every method is silent
    about it. Two shells may append at the same time; each entry is one write.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._appended = 0
        self.entries: list[str] = self._load()

    def add(self, line: str) -> str | None:
        """Keep a line; returns the entry made of it, None when nothing was kept."""
        entry = as_entry(line)
        if entry is None or (self.entries and self.entries[-1] == entry):
            return None
        self.entries.append(entry)
        del self.entries[:-MAX_ENTRIES]
        if self._path is not None:
            self._appended += 1
            if self._appended % MAX_ENTRIES == 0:
                self._load()
            with contextlib.suppress(OSError):
                fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                with os.fdopen(fd, "wb") as file:
                    file.write(_encode([entry]))
        return entry

    def _load(self) -> list[str]:
        if self._path is None:
            return []
        try:
            # A session trims the file each time it has added as many entries as may stay.
            lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return []
        entries = [line for line in lines if line and not holds_secret(line)]
        if len(entries) > MAX_ENTRIES or len(entries) != len(lines) - 1:
            self._replace(entries[-MAX_ENTRIES:])
        else:
            with contextlib.suppress(OSError):
                self._path.chmod(0o600)
        return entries[-MAX_ENTRIES:]

    def _replace(self, entries: Iterable[str]) -> None:
        assert self._path is not None
        # A crash before the rename leaves the old file and a temporary one that the next shell overwrites.
        temporary = self._path.with_name(self._path.name + ".tmp")
        with contextlib.suppress(OSError):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, 0o600)
                file.write(_encode(entries))
            temporary.rename(self._path)


def _encode(entries: Iterable[str]) -> bytes:
    return "".join(entry + "\n" for entry in entries).encode("utf-8", errors="replace")
