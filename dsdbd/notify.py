"""What a service manager sees of the daemon: readiness messages (sd_notify) and the pid file.

The protocol of the messages is the one of sd_notify(3): one datagram of ``KEY=value`` lines to the Unix socket that
``$NOTIFY_SOCKET`` names. systemd listens there, and so does ``start-stop-daemon --notify-await`` of the init script.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from dsdbd.errors import StartError
from dsdbd.fsio import make_dirs

READY = "READY=1"
STOPPING = "STOPPING=1"

# A status command holds a shared lock for the instant in which it looks; waiting this long tells it from a daemon.
_LOCK_ATTEMPTS = 10
_LOCK_RETRY_S = 0.05


def status(text: str) -> str:
    """Return the message that shows ``text`` as the one-line state of the service; line breaks become spaces."""
    return "STATUS=" + " ".join(text.split())


def notify(state: str, environ: Mapping[str, str]) -> bool:
    """Send ``state`` (lines of ``KEY=value``) to the service manager; True when it was handed over.

    False, and nothing else, when no manager listens or it went away: a daemon never fails because nobody watches it.
    ``NOTIFY_SOCKET`` is a path or, with a leading ``@``, a name in the abstract namespace; anything else is ignored.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@") or len(address) < 2:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        # Non-blocking: a manager that stopped reading must not stop the daemon.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as channel:
            channel.sendto(state.encode(), address)
    except (OSError, ValueError):
        return False
    return True


class PidFile:
    """A file that holds the daemon's process id, and a lock on it, for as long as the daemon lives.

    The lock (flock) decides, not the number: the kernel drops it whenever the process ends, so a file left by a crash
    is taken over even when its number belongs to another process by now, and a live daemon is never started twice.
    The file appears whole or not at all. A crash leaves the file without a lock, which the next start replaces.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def __enter__(self) -> Self:
        """Take the file; parent directories are created.

        Raises StartError when a live process holds it or it cannot be written.
        """
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            make_dirs(self._path.parent, mode=0o755)
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(fd, f"{os.getpid()}\n".encode())
                self._publish(temporary)
            except BaseException:
                os.close(fd)
                raise
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise StartError(
                f"cannot write the pid file {self._path}: {error.strerror}; give -pidfile a path this user may write"
            ) from error
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the file, unless somebody replaced it, and drop the lock."""
        if self._fd is None:
            return
        if _same_file(self._fd, self._path):
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = None

    def _publish(self, temporary: Path) -> None:
        """Give the locked file its name, replacing a file that no live process holds."""
        while True:
            try:
                os.link(temporary, self._path)
            except FileExistsError:
                if self._replace_stale(temporary):
                    return
            else:
                return

    def _replace_stale(self, temporary: Path) -> bool:
        """Rename ``temporary`` over the present file if that is stale; False when it went away meanwhile."""
        try:
            # Opened for reading: that is enough for a lock, and the file may be another user's.
            old_fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if not _lock_soon(old_fd):
                holder = os.pread(old_fd, 32, 0).decode(errors="replace").strip() or "unknown"
                raise StartError(
                    f"a running daemon with process id {holder} holds the pid file {self._path}; "
                    "stop it first, or give this one another -pidfile"
                )
            if not _same_file(old_fd, self._path):
                return False
            # Two starts cannot both be here: each needs the lock on the old file, and looks again after getting it.
            temporary.rename(self._path)
            return True
        finally:
            os.close(old_fd)


def _lock_soon(fd: int) -> bool:
    for attempt in range(_LOCK_ATTEMPTS):
        if attempt:
            time.sleep(_LOCK_RETRY_S)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _same_file(fd: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), named)
