"""What was asked of the cluster and what it answered, as JSON lines: all that the checkers know."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"
"""Outcomes: it took effect; it certainly did not; it may have, then or later."""


class History:
    """Appends records; any thread may. Times are seconds of the machine's monotonic clock."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1 << 20)
        self._lock = threading.Lock()

    def add(self, kind: str, **fields: Any) -> None:
        """One record; ``t`` is the time at which it was written down."""
        line = json.dumps({"kind": kind, "t": round(time.monotonic(), 4), **fields}, separators=(",", ":"))
        with self._lock:
            self._file.write(line + "\n")

    def flush(self) -> None:
        """Everything is in the file on return."""
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def read(path: Path, start: int = 0) -> Iterator[dict[str, Any]]:
    """The records from byte ``start`` on."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            yield json.loads(line)
