"""What waits for the log of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future

    from dsdbd.model.columns import Batch
    from dsdbd.storage.wal_format import Record


@dataclass(slots=True)
class Waiting:
    """One record on its way into the log; ``batch`` is that of a WRITE, ``deleted`` the measurements of a DELETE."""

    record: Record
    batch: Batch | None
    done: Future[None]
    deleted: frozenset[str] = frozenset()
