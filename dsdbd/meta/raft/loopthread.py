"""The Raft thread with its own event loop, the lock on its directory, and the limit on repeated reports."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from dsdbd import fsio
from dsdbd.errors import IdentityError

_RESOLVER_THREADS: Final = 2
REPEAT_AFTER_S: Final = 60.0
_MAX_REMEMBERED: Final = 256


class LoopThread:
    """An event loop in a thread of its own: a busy loop elsewhere in the process costs it no more than the GIL."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: deque[Callable[[], object]] = deque()
        self._woken = False

    @property
    def running(self) -> bool:
        """The thread was started and not stopped."""
        return self._thread is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The thread's loop."""
        if self._loop is None:
            raise RuntimeError("the Raft thread does not run")
        return self._loop

    async def start(self) -> None:
        """Start the thread and wait until its loop runs."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=self._name, daemon=True)
        self._thread.start()
        await asyncio.wrap_future(ready)

    def _run(self, ready: Future[None]) -> None:
        # Not uvloop: it holds back what is written to a stream until the iteration ends, and with that a leader's
        # appends until its own log is synced, which is what they should overtake.
        loop = asyncio.SelectorEventLoop()
        # Name resolution only; a resolver that hangs must not hold up the end of the loop.
        resolver = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="raft-resolver")
        loop.set_default_executor(resolver)
        asyncio.set_event_loop(loop)
        self._loop = loop
        loop.call_soon(ready.set_result, None)
        try:
            loop.run_forever()
        finally:
            resolver.shutdown(wait=False, cancel_futures=True)
            asyncio.set_event_loop(None)
            loop.close()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Run ``function`` on the thread, if it still runs; calls of one moment share one wake-up."""
        self._calls.append(function)
        if self._woken or self._loop is None or self._loop.is_closed():
            return
        self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._run_calls)
        except RuntimeError:
            # Closed between the two lines: the node stops, and there is nothing left to do there.
            return

    def _run_calls(self) -> None:
        # Lowered first: a call that is added from now on either is taken below or wakes the loop again.
        self._woken = False
        while self._calls:
            self._calls.popleft()()

    async def stop(self) -> None:
        """End the loop and join the thread; idempotent."""
        thread, loop = self._thread, self._loop
        if thread is None or loop is None:
            return

        async def drain() -> None:
            # Two rounds: aborted streams report their end in the first.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            loop.stop()

        asyncio.run_coroutine_threadsafe(drain(), loop)
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
        self._thread = None


class DirectoryLock:
    """Keeps a second process off the directory; a killed process leaves no lock behind."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """Create the directory if need be and lock it; raises IdentityError when another process holds the lock."""
        fsio.make_dirs(self._path.parent)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise IdentityError(
                f"another process uses the metadata directory {self._path.parent}; stop it or choose another directory"
            ) from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RefusalLimiter:
    """Lets the same report through once a minute, and remembers a bounded number of them."""

    def __init__(self) -> None:
        self._told_s: dict[Hashable, float] = {}

    def allow(self, key: Hashable, now_s: float) -> bool:
        """Tell whether ``key`` may be reported at ``now_s``."""
        told_s = self._told_s.get(key)
        if told_s is not None and now_s - told_s < REPEAT_AFTER_S:
            return False
        self._told_s.pop(key, None)
        if len(self._told_s) >= _MAX_REMEMBERED:
            oldest = next(iter(self._told_s))
            if now_s - self._told_s[oldest] < REPEAT_AFTER_S:
                return False
            del self._told_s[oldest]
        self._told_s[key] = now_s
        return True
