"""Copies of accepted writes that wait for a destination: a bounded queue that drops its oldest when it is full."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsdbd import limits
from dsdbd.model.line_protocol_text import format_lines, joined

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from dsdbd.model.columns import Points

_SERIES_BYTES = 64
"""What the key of a series takes, roughly."""


class AcceptedWrite:
    """Points that were stored; several queues may hold it."""

    def __init__(self, points: Sequence[Points]) -> None:
        self.points = points
        self.rows = sum(map(len, points))
        self.size_bytes = sum(map(_size_bytes, points))

    def lines(self) -> list[Any]:
        """Arrow arrays of lines, each of at most ENCODE_ROWS rows and the work of a few milliseconds; for a thread."""
        return [
            format_lines(part, start, min(start + limits.ENCODE_ROWS, len(part)))
            for part in self.points
            for start in range(0, len(part), limits.ENCODE_ROWS)
        ]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Writes and points that were left out because a queue was full."""

    writes: int
    points: int


class Lane:
    """A queue of writes; those that are being sent count for its bytes, until they are ``done``."""

    def __init__(self, most_writes: int, most_bytes: int) -> None:
        self._most_writes = most_writes
        self._most_bytes = most_bytes
        self._waiting: deque[AcceptedWrite] = deque()
        self.held_bytes = 0
        """Of the writes that wait or are being sent."""

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, write: AcceptedWrite) -> Dropped:
        """Add a write; the oldest ones, or at last the write itself, go where it does not fit."""
        self._waiting.append(write)
        self.held_bytes += write.size_bytes
        writes = points = 0
        while self._waiting and (len(self._waiting) > self._most_writes or self.held_bytes > self._most_bytes):
            oldest = self._waiting.popleft()
            self.held_bytes -= oldest.size_bytes
            writes += 1
            points += oldest.rows
        return Dropped(writes, points)

    def take(self, most_bytes: int) -> list[AcceptedWrite]:
        """The oldest writes, as many as stay within ``most_bytes`` together, one at least; none from an empty queue."""
        taken: list[AcceptedWrite] = []
        size_bytes = 0
        while self._waiting and (not taken or size_bytes + self._waiting[0].size_bytes <= most_bytes):
            taken.append(self._waiting.popleft())
            size_bytes += taken[-1].size_bytes
        return taken

    def done(self, taken: Sequence[AcceptedWrite]) -> None:
        """Forget writes that were taken: they were sent, or could not be."""
        self.held_bytes -= sum(write.size_bytes for write in taken)


def request_bodies(writes: Sequence[AcceptedWrite]) -> bytes:
    """All points of some writes as one body of line protocol."""
    body = b"".join(joined(lines) for write in writes for lines in write.lines())
    # A body that begins like JSON is refused by InfluxDB 1.x; a measurement may begin so.
    return b"#\n" + body if body.startswith(b"{") else body


def datagrams(writes: Sequence[AcceptedWrite], most_bytes: int) -> list[bytes]:
    """The points of some writes as datagrams of whole lines, each within ``most_bytes`` unless it is one long line."""
    found: list[bytes] = []
    lines: list[bytes] = []
    size_bytes = 0
    for write in writes:
        for texts in write.lines():
            for text in texts.to_pylist():
                line = text.encode()
                if lines and size_bytes + len(line) > most_bytes:
                    found.append(b"".join(lines))
                    lines, size_bytes = [], 0
                lines.append(line)
                size_bytes += len(line)
    if lines:
        found.append(b"".join(lines))
    return found


def _size_bytes(points: Points) -> int:
    values = sum(int(column.values.nbytes) for column in points.fields.values())
    return values + 12 * len(points) + _SERIES_BYTES * min(len(points.series), len(points))
