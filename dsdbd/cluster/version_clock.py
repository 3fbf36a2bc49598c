"""The clock of a node that coordinates writes: versions from a hybrid clock whose ceiling is kept in a small file.

The file is written ahead of the versions, so that a start after any end finds a number above all that were given. It is
twice as long as its content: two places are written in turn, each with a checksum, and a torn one leaves the other.
"""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from typing import TYPE_CHECKING

import structlog

from dsdbd import fsio
from dsdbd.cluster.hybrid_clock import BEHIND_NS, FAR_NS, UNGIVEN, Floor, HybridClock, is_wild
from dsdbd.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from dsdbd.cluster.node import Node

log = structlog.get_logger("write")
_FILE = "versions"
_PLACE = struct.Struct("<QI")
_PLACE_BYTES = 512
"""One sector each: what is being written cannot tear the other."""
_WAIT_S = 1.0
"""How long a write waits for the file. A disk that takes longer, or fails, delays no write twice: the clock goes on
without it, which only matters when the machine's clock is set back while the daemon is down."""
_WILD = (
    "this machine's clock is more than a day ahead of those of all other nodes that answer: nothing is stored, because "
    "every later write would have to follow it; set it right, and write through another node until then"
)


class CeilingFile:
    """The number on disk; one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = 0

    def load(self) -> int:
        """The greater of the numbers that pass their check; 0 where there is none. Raises OSError."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return 0
        found = [0]
        for place in (0, 1):
            raw = data[place * _PLACE_BYTES :][: _PLACE.size]
            if len(raw) == _PLACE.size:
                value, check = _PLACE.unpack(raw)
                if check == zlib.crc32(raw[:8]):
                    found.append(value)
                    if value == max(found):
                        self._turn = 1 - place
        return max(found)

    def store(self, ceiling: int) -> None:
        """Put a number on stable storage. A crash leaves it or the one before. Raises OSError."""
        raw = ceiling.to_bytes(8, "little")
        record = raw + zlib.crc32(raw).to_bytes(4, "little")
        if not self._path.exists():
            fsio.write_atomic(self._path, record.ljust(_PLACE_BYTES, b"\0") * 2)
            return
        fd = os.open(self._path, os.O_WRONLY)
        try:
            # In place, so that it needs no room on a disk that is full.
            os.pwrite(fd, record, self._turn * _PLACE_BYTES)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self._turn = 1 - self._turn


class VersionClock:
    """Gives the versions of one node; use it on the event loop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._file = CeilingFile(node.config.meta.dir / _FILE)
        try:
            ceiling = self._file.load()
        except OSError as error:
            log.warning("the newest version given before cannot be read", reason=error.strerror)
            ceiling = 0
        self._clock, self._floor = HybridClock(ceiling), Floor(ceiling)
        self._storing: asyncio.Task[None] | None = None
        self._offset_s = self._wall_offset_s(node.clock.now_ns())
        self._jumped_s = float("-inf")

    @property
    def last(self) -> int:
        """The newest version given or seen."""
        return self._clock.last

    def floor(self) -> int:
        """The lowest version that a write may have which another coordinator begins now."""
        return self._floor.look(self._node.clock.monotonic_s())

    def next(self) -> int:
        """A version for a write that begins now; it may go out when ``is_reserved``.

        UNGIVEN where this machine's clock is far ahead of all others: that is never reserved.
        """
        now_ns = self._node.clock.now_ns()
        if now_ns - self._clock.last > FAR_NS and self._is_wild(now_ns):
            return UNGIVEN
        version = self._clock.next(now_ns, self._number())
        self._floor.note(self._node.clock.monotonic_s(), version)
        if self._clock.wanted_ceiling() is not None:
            _ = self._begin_storing()
        return version

    async def next_reserved(self) -> int:
        """A version that may go out: a start after a crash knows that it was given. Raises Unavailable."""
        version = self.next()
        if version == UNGIVEN:
            raise Unavailable(_WILD)
        if not self._clock.is_reserved(version):
            waiting = self._begin_storing()
            done, _ = await asyncio.wait({waiting}, timeout=_WAIT_S)
            if not done:
                log.warning("the disk does not take the newest version; it is used all the same", waited_s=_WAIT_S)
            self._clock.reserve(version)
        return version

    def is_reserved(self, version: int) -> bool:
        """Whether a version may go out at once."""
        return self._clock.is_reserved(version)

    def observe(self, version: int) -> None:
        """Take note of a version another coordinator gave."""
        if version > self._clock.last:
            self._clock.observe(version, self._node.clock.now_ns())
            self._floor.note(self._node.clock.monotonic_s(), version)

    async def keep(self, version: int) -> None:
        """See that a start after a crash knows of about this version, which another coordinator gave.

        So that this node, as an owner, goes on refusing what is far older. It waits for the file only where the clock
        of this machine, and with it that of whoever writes next, does not tell as well.
        """
        if self._clock.wanted_ceiling() is None:
            return
        waiting = self._begin_storing()
        if version - self._node.clock.now_ns() > BEHIND_NS and not self._clock.is_reserved(version):
            await asyncio.wait({waiting}, timeout=_WAIT_S)

    def problems(self) -> list[str]:
        """Sentences for /health: versions that are ahead of the wall clock, or a clock that may give none."""
        now_ns = self._node.clock.now_ns()
        if now_ns - self._clock.last > FAR_NS and self._is_wild(now_ns):
            return [_WILD]
        problem = self._clock.problem(now_ns)
        return [problem] if problem else []

    def _is_wild(self, now_ns: int) -> bool:
        offset_s = self._wall_offset_s(now_ns)
        if abs(offset_s - self._offset_s) * 1e9 > FAR_NS / 2:
            self._offset_s, self._jumped_s = offset_s, self._node.clock.monotonic_s()
        detector = self._node.detector
        return detector is not None and is_wild(detector.clock_looks(), self._jumped_s)

    def _wall_offset_s(self, now_ns: int) -> float:
        return now_ns / 1e9 - self._node.clock.monotonic_s()

    def _number(self) -> int:
        identity = self._node.identity
        if identity is None:
            return 0
        return identity.data_id if identity.data_id is not None else identity.meta_id or 0

    def _begin_storing(self) -> asyncio.Task[None]:
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store())
        return self._storing

    async def _store(self) -> None:
        """Store the ceiling; what fails leaves it where it was, and the next version tries again."""
        while (ceiling := self._clock.wanted_ceiling()) is not None:
            try:
                await asyncio.to_thread(self._file.store, ceiling)
            except OSError as error:
                log.warning("the newest version cannot be stored", reason=error.strerror)
                return
            self._clock.reserve(ceiling)

    async def close(self) -> None:
        """Store the newest version itself, so that the next start goes on there and not some seconds later."""
        if self._storing is None:
            return
        await asyncio.wait({self._storing})
        try:
            await asyncio.to_thread(self._file.store, self._clock.last)
        except OSError as error:
            log.warning("the newest version cannot be stored", reason=error.strerror)
