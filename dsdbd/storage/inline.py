"""Reading within a thread that must not wait: what is in memory already and little, or nothing at all.

A small question costs less than handing it to another thread and back, so the event loop answers it itself where it
can. Within ``inline`` whatever would read a file, wait for a lock or take long raises NotAtOnce instead; who asked then
goes the usual way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class NotAtOnce(Exception):
    """It cannot be answered at once. No user sees it."""


class NotNow(NotAtOnce):
    """It has to be read from a file, or another thread is at it; the next time it may be answered at once."""


class _State(threading.local):
    values_left: int | None = None


_state = _State()


@contextlib.contextmanager
def inline(values: int) -> Iterator[None]:
    """Within the block this thread reads at most about so many values, only from memory, and waits for nothing."""
    _state.values_left = values
    try:
        yield
    finally:
        _state.values_left = None


def spend(values: int) -> None:
    """Say how many values are about to be read. Raises NotAtOnce when they are more than this thread may read."""
    if _state.values_left is not None:
        _state.values_left -= values
        if _state.values_left < 0:
            raise NotAtOnce


def must_wait() -> None:
    """Say that something takes long. Raises NotAtOnce where that must not be."""
    if _state.values_left is not None:
        raise NotAtOnce


def must_read() -> None:
    """Say that a file is to be read. Raises NotNow where that must not be."""
    if _state.values_left is not None:
        raise NotNow


@contextlib.contextmanager
def locked(lock: threading.RLock) -> Iterator[None]:
    """Hold a lock; raises NotNow where this thread must not wait for it."""
    if not lock.acquire(blocking=_state.values_left is None):
        raise NotNow
    try:
        yield
    finally:
        lock.release()
