"""What repair is doing and has done lately, for those who ask."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsdbd.meta.views import ShardPlace

_MOST_ENDED = 100

RUNNING, DONE, FAILED = "running", "done", "failed"
Row = tuple[int, str, str, str, int | None, int | None, str, int, int, int, str]
"""Shard, database, policy, kind, from, to, state, rows, bytes, begin in nanoseconds of Unix time, error."""


@dataclass(slots=True)
class RepairProgress:
    """One pull of what another owner had; ``rows``, ``bytes`` and ``tombstones`` that arrived."""

    shard_id: int
    database: str
    policy: str
    from_node: int
    to_node: int
    started_ns: int
    state: str = RUNNING
    rows: int = 0
    bytes: int = 0
    tombstones: int = 0
    error: str = ""

    @classmethod
    def begin(cls, place: ShardPlace, from_node: int, to_node: int, now_ns: int) -> RepairProgress:
        """A pull that begins now."""
        return cls(place.shard.id, place.database.name, place.policy.name, from_node, to_node, now_ns)

    @property
    def brought_anything(self) -> bool:
        """Whether the other side had something that was lacking here, or was asked for rows."""
        return bool(self.rows or self.bytes or self.tombstones)

    def row(self) -> Row:
        """The same as plain values."""
        return (
            self.shard_id,
            self.database,
            self.policy,
            "repair",
            self.from_node,
            self.to_node,
            self.state,
            self.rows,
            self.bytes,
            self.started_ns,
            self.error,
        )


class RecentRepairs:
    """Pulls that are under way, and the last ones that ended and had something to do."""

    def __init__(self) -> None:
        self._running: list[RepairProgress] = []
        self._ended: deque[RepairProgress] = deque(maxlen=_MOST_ENDED)

    def begin(self, one: RepairProgress) -> None:
        """Take note of a pull."""
        self._running.append(one)

    def end(self, one: RepairProgress, error: str = "") -> None:
        """It has ended; one that found nothing to do is not worth remembering."""
        self._running.remove(one)
        one.state, one.error = (FAILED, error) if error else (DONE, "")
        if one.brought_anything or error:
            self._ended.append(one)

    def rows(self) -> list[Row]:
        """All of them, those that began first first; of those under way that have found something."""
        running = [one for one in self._running if one.brought_anything]
        return [one.row() for one in sorted([*self._ended, *running], key=lambda one: one.started_ns)]
