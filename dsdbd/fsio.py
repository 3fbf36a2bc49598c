"""Crash-safe file idioms, in one place: atomic replacement and directory fsync.

Every function here leaves either the old file or the new one after a crash at any point, never a mixture.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def fsync_dir(path: Path) -> None:
    """Make renames, creations and deletions inside ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o640) -> Iterator[Path]:
    """Give an empty temporary file to write to; it becomes ``path`` at the end of the block, durable on return.

    A crash before the rename leaves the old file and a ``.tmp`` beside it, which the next call overwrites.
    Raises OSError; after any exception the temporary file is removed if that is possible.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode))
        yield temporary
        # A sync through any descriptor takes what was written through others.
        fd = os.open(temporary, os.O_WRONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        # The rename is atomic; the directory fsync after it makes it survive a power cut.
        temporary.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def write_atomic(path: Path, chunks: bytes | Iterable[bytes], *, mode: int = 0o640) -> None:
    """Replace ``path`` by ``chunks``; durable on return.

    A crash before the rename leaves the old file and a ``.tmp`` beside it, which the next call overwrites.
    Raises OSError; the temporary file is then removed if that is possible.
    """
    with replacing(path, mode=mode) as temporary, temporary.open("wb") as file:
        for chunk in (chunks,) if isinstance(chunks, bytes) else chunks:
            file.write(chunk)


def make_dirs(path: Path, *, mode: int = 0o750) -> None:
    """Create ``path`` with its parents; each new directory entry is durable on return."""
    missing: list[Path] = []
    current = path
    while not current.exists():
        missing.append(current)
        current = current.parent
    for directory in reversed(missing):
        directory.mkdir(mode=mode, exist_ok=True)
        fsync_dir(directory.parent)


def remove_tree(path: Path) -> None:
    """Delete a directory tree; the removal of ``path`` itself is durable on return.

    The tree is first renamed to a ``.tmp`` name, so that a crash half-way never leaves a directory that looks whole.
    """
    import shutil

    if not path.exists():
        return
    doomed = path.with_name(path.name + TEMPORARY_SUFFIX)
    if doomed.exists():
        shutil.rmtree(doomed)
    path.rename(doomed)
    fsync_dir(path.parent)
    shutil.rmtree(doomed)
