"""What a crash leaves of a directory: all of it after a kill, only what was synced after a power cut.

A power cut is taken at its worst: of a file the bytes of its last fsync are left, of a directory the names of its last
fsync, whatever the kernel might have written out by itself.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_CALLS: dict[str, Any] = {"fsync": os, "fdatasync": os, "pwrite": os, "rename": Path, "unlink": Path, "mkdir": Path}


class CrashDisk:
    """Follows the file operations of this process below ``home``; ``crashed`` is called with the name of each.

    Nothing is really synced meanwhile: what a sync would have saved is remembered. ``hold_back``: it is forgotten.
    """

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.crashed: Callable[[str], None] = lambda label: None
        self.calls: set[str] = set()
        self._lock = threading.RLock()
        self._inside = False
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        # An open descriptor keeps the number of a file from being given to another one.
        self._held: dict[int, int] = {}
        self.hold_back = False
        for name, owner in _CALLS.items():
            patch.setattr(owner, name, self._watched(name, getattr(owner, name)))
        self._fsync_dir(home)

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            is_sync = name in ("fsync", "fdatasync")
            result = None if is_sync else original(*arguments, **options)
            with self._lock:
                if self._inside:
                    return result
                self._inside = True
                try:
                    if is_sync and not self.hold_back:
                        self._sync(arguments[0])
                    self.calls.add(name)
                    self.crashed(name)
                finally:
                    self._inside = False
            return result

        return call

    def _sync(self, descriptor: int) -> None:
        about = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
        if not path.resolve().is_relative_to(self.home):
            return
        if stat.S_ISDIR(about.st_mode):
            self._fsync_dir(path.resolve())
        else:
            self._hold(path)
            self._bytes[about.st_ino] = path.read_bytes()

    def _fsync_dir(self, path: Path) -> None:
        self._hold(path)
        self._names[path.stat().st_ino] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        for entry in path.iterdir():
            self._hold(entry)

    def _hold(self, path: Path) -> None:
        number = path.stat().st_ino
        if number not in self._held:
            self._held[number] = os.open(path, os.O_RDONLY)

    def after_kill(self, target: Path) -> None:
        """Write what a killed process leaves to ``target``."""
        shutil.copytree(self.home, target)

    def after_power_cut(self, target: Path) -> None:
        """Write what a power cut leaves to ``target``."""
        self._restore(self.home.stat().st_ino, target)

    def _restore(self, number: int, target: Path) -> None:
        if stat.S_ISDIR(os.fstat(self._held[number]).st_mode):
            target.mkdir()
            for name, child in self._names.get(number, {}).items():
                self._restore(child, target / name)
        else:
            target.write_bytes(self._bytes.get(number, b""))
