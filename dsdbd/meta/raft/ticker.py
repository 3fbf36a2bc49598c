"""Drives a core: a tick when something happened, one when something is due, and a watch on how late the timer is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import Any, Final

from dsdbd.meta.raft.faults import RaftStopped
from dsdbd.meta.raft.library import monotonic_s

log = logging.getLogger(__name__)

LAG_WINDOW_S: Final = 10.0


class Ticker:
    """Runs on the Raft thread's loop; ``after_tick`` follows every tick, ``on_fatal`` the last one."""

    def __init__(self, core: Any, after_tick: Callable[[], None], on_fatal: Callable[[], None]) -> None:
        self._core = core
        self._after_tick = after_tick
        self._on_fatal = on_fatal
        self._kicked = False
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._lag_s = self._previous_lag_s = 0.0
        self._window_end_s = 0.0
        self._last_error: str | None = None

    @property
    def lag_max_s(self) -> float:
        """Longest delay of the periodic tick in the last one to two windows."""
        return max(self._lag_s, self._previous_lag_s)

    def start(self) -> None:
        """Begin ticking."""
        self._due_s = self._window_end_s = monotonic_s()
        self._periodic()

    def stop(self) -> None:
        """Tick no more; idempotent."""
        self._stopped = True
        for timer in (self._timer, self._telling):
            if timer is not None:
                timer.cancel()

    def kick(self) -> None:
        """Tick as soon as the loop is free, once for all kicks until then."""
        if not self._kicked and not self._stopped:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _periodic(self) -> None:
        now_s = monotonic_s()
        if now_s >= self._window_end_s:
            self._previous_lag_s, self._lag_s = self._lag_s, 0.0
            self._window_end_s = now_s + LAG_WINDOW_S
        self._lag_s = max(self._lag_s, now_s - self._due_s)
        self._tick()
        if not self._stopped:
            delay_s = self._core.tick_delay_s()
            self._due_s = monotonic_s() + delay_s
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._periodic)

    def _tick(self) -> None:
        self._kicked = False
        if self._stopped:
            return
        core = self._core
        try:
            core.doTick(0)
            self._last_error = None
        except OSError as error:
            core.storage_failed(error)
        except RaftStopped:
            pass
        except Exception as error:
            # A fault of one tick must not end the heartbeats; told once, not twenty times a second.
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.exception("a Raft tick failed; the next one tries again")
        if core.fatal is not None:
            self.stop()
            self._on_fatal()
            return
        if core.has_work():
            self.kick()
        self._watch_commit()
        self._after_tick()

    def _watch_commit(self) -> None:
        """Tick when the followers are due to hear of a commit, unless a tick before that told them."""
        due_s = self._core.tell_commit_at_s
        if self._telling is None and due_s < inf:
            self._telling = asyncio.get_running_loop().call_later(max(0.0, due_s - monotonic_s()), self._tell_commit)

    def _tell_commit(self) -> None:
        self._telling = None
        if self._core.tell_commit_at_s < inf:
            self.kick()
