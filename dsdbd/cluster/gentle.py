"""Threads for work that has time: the scheduler lets everything else of the machine go first."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

_NICENESS = 5
"""More than that of the daemon. Beside one that is busy a thread gets a quarter of a processor then: copies go on."""


def gentle_threads(count: int, name: str) -> ThreadPoolExecutor:
    """An executor of ``count`` such threads. What runs there should hold no lock that a client's request waits for."""
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=_be_gentle)


def _be_gentle() -> None:
    """On Linux each thread has a niceness of its own; elsewhere it would be that of the process."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + _NICENESS)
