"""Many small writes as one: what arrives while the log is busy is parsed, logged and made visible together.

Each request keeps an outcome of its own. Only bodies of the plainest shape are put together, which can be told apart
without parsing; as soon as anything about a group is out of the ordinary its bodies are stored one by one.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from dsdbd.cluster.acks import late
from dsdbd.errors import DSDBError, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.writes import Stored, WritePath
    from dsdbd.http.write import Target, WriteHandler

    Done = Callable[[BaseException | None], None]

_SPECIAL = b'"\\#\t\r\x0b\x0c\x00'
_PLAIN = re.compile(rb"(?:[^ \n]++ [^ \n]++ -?+[0-9]++(?:\n|\Z))++")
"""Lines whose end is the end of the line whatever is around them, each with a time of its own: points without one would
all get that of the group, and those of the same series would be one point."""
_GROUP_BYTES = 32 << 10
"""Bodies that are parsed in one go on the event loop, in about two milliseconds."""


class _Body(NamedTuple):
    body: bytes
    done: Done


class _Waiting:
    """The bodies of one target that are in no group yet; bounded by the budget for bodies that their requests hold."""

    __slots__ = ("bodies", "busy")

    def __init__(self) -> None:
        self.bodies: deque[_Body] = deque()
        self.busy = False
        """A group is about to be made, or on its way. One at a time: two would share the bodies and cost two syncs."""


def is_plain(body: bytes) -> bool:
    """Whether a body may be joined with others by newlines and mean the same."""
    if len(body.translate(None, _SPECIAL)) != len(body) or body.startswith(b"{"):
        return False
    line = body.removesuffix(b"\n")
    if b"\n" in line:
        return _PLAIN.fullmatch(body) is not None
    # One line is the usual case.
    parts = line.split(b" ")
    return len(parts) == 3 and bool(parts[0] and parts[1]) and parts[2].removeprefix(b"-").isdigit()


class SmallWrites:
    """Groups small writes by target; use it on the event loop."""

    def __init__(self, node: Node, writes: WritePath, handler: WriteHandler) -> None:
        self._node = node
        self._writes = writes
        self._handler = handler
        self._targets: dict[Target, _Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def takes(self, body: bytes) -> bool:
        """Whether ``add`` may be called: a plain body on a node that owns every shard."""
        return len(self._node.metadata.state.data_nodes) == 1 and is_plain(body)

    def add(self, target: Target, body: bytes, done: Done) -> None:
        """Store a plain body; ``done`` is called with None when it is stored, else with the error, never at once."""
        waiting = self._targets.get(target)
        if waiting is None:
            waiting = self._targets[target] = _Waiting()
        waiting.bodies.append(_Body(body, done))
        if not waiting.busy:
            self._schedule(target, waiting)

    def _schedule(self, target: Target, waiting: _Waiting) -> None:
        """Make the next group, behind everything that this turn of the loop still reads."""
        waiting.busy = bool(waiting.bodies)
        if waiting.busy:
            asyncio.get_running_loop().call_soon(self._next_group, target, waiting)
        else:
            # Names of targets come from clients.
            self._targets.pop(target, None)

    def _next_group(self, target: Target, waiting: _Waiting) -> None:
        group = [waiting.bodies.popleft()]
        size_bytes = len(group[0].body)
        while waiting.bodies and size_bytes + len(waiting.bodies[0].body) <= _GROUP_BYTES:
            group.append(waiting.bodies.popleft())
            size_bytes += len(group[-1].body)
        try:
            stored, rows = self._store(target, group)
        except DSDBError:
            stored, rows = None, 0
        if stored is not None:
            self._await(target, waiting, group, stored, rows)
        else:
            self._store_singly(target, waiting, group)

    def _store(self, target: Target, group: list[_Body]) -> tuple[Stored | None, int]:
        """Hand the group to the log as one write; None, and nothing is stored, when a body needs a look of its own."""
        now_ns = self._node.clock.now_ns()
        joined = b"\n".join([one.body.removesuffix(b"\n") for one in group])
        parsed = self._handler.parse(joined, target, now_ns)
        if parsed.error_count or parsed.conflict_count or not parsed.rows:
            return None, 0
        return self._handler.store_here(parsed, target, self._writes.version(), now_ns, in_thread=False), parsed.rows

    def _await(self, target: Target, waiting: _Waiting, group: list[_Body], stored: Stored, rows: int) -> None:
        """Tell every request when all batches of its group are durable and visible, or the time for it is over."""
        loop = asyncio.get_running_loop()
        timeout_s = self._node.config.cluster.write_timeout_s
        left = len(stored)
        told = False

        def end(error: BaseException | None) -> None:
            nonlocal told
            if told:
                return
            told = True
            timer.cancel()
            self._writes.count_stored(len(group), rows, error)
            for one in group:
                one.done(error)
            self._schedule(target, waiting)

        def one_is_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                end(self._writes.failure_of(stored))

        def on_log_thread(_: object) -> None:
            # The loop may have ended while the daemon stops.
            if not loop.is_closed():
                loop.call_soon_threadsafe(one_is_done)

        timer = loop.call_later(timeout_s, lambda: end(OutcomeUnknown(late(stored[0][0], timeout_s))))
        for _, future in stored:
            future.add_done_callback(on_log_thread)

    def _store_singly(self, target: Target, waiting: _Waiting, group: list[_Body]) -> None:
        async def store() -> None:
            try:
                await asyncio.gather(*(self._store_one(target, one) for one in group))
            finally:
                self._schedule(target, waiting)

        task = asyncio.get_running_loop().create_task(store())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store_one(self, target: Target, one: _Body) -> None:
        error: BaseException | None = None
        try:
            await self._handler.store(one.body, target)
        except Exception as raised:  # whatever it is, the request waits for it
            error = raised
        one.done(error)
