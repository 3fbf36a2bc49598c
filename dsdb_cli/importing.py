"""Import files as a pure machine: lines in, statements and batches of points out.

::

    # DDL
    CREATE DATABASE metrics
    # DML
    # CONTEXT-DATABASE: metrics
    # CONTEXT-RETENTION-POLICY: autogen
    cpu,host=a value=1 1439856000

Before ``# DML`` every line is a statement; after it every line is a point. Other lines that begin with ``#`` and blank
lines are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dsdb_cli.errors import ShellError

BATCH_LINES = 5000
BATCH_BYTES = 16 << 20
"""A batch of long lines ends here, below the 25 MB a server takes in one request."""
MAX_LINE_BYTES = 1 << 20
"""The longest line a server takes; a longer one means the file is no import file."""

DML_MARK = b"# DML"
DATABASE_MARK = b"# CONTEXT-DATABASE:"
POLICY_MARK = b"# CONTEXT-RETENTION-POLICY:"


@dataclass(frozen=True, slots=True)
class Statement:
    """A line of the DDL section."""

    text: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Points for one request; ``lines`` have no line ends."""

    database: str
    retention_policy: str
    lines: tuple[bytes, ...]


@dataclass(slots=True)
class ImportReader:
    """Reads an import file line by line; holds at most one batch.

    ``database`` and ``retention_policy`` are where points go until the file names others.
    """

    database: str = ""
    retention_policy: str = ""
    line_number: int = 0
    _in_points: bool = False
    _lines: list[bytes] = field(default_factory=list)
    _size_bytes: int = 0

    def feed(self, line: bytes) -> Statement | Batch | None:
        """Take the next line; returns what is now to be sent.

        Raises ShellError for a line that is too long, and for a point when no database is known.
        """
        self.line_number += 1
        text = line.rstrip(b"\r\n")
        if len(text) > MAX_LINE_BYTES:
            raise ShellError(
                f"Line {self.line_number} is longer than {MAX_LINE_BYTES} bytes, more than a server takes: "
                "this is not an import file, or it needs -compressed."
            )
        if text.startswith(b"#"):
            return self._mark(text)
        if not text.strip():
            return None
        if not self._in_points:
            return Statement(text.decode("utf-8", errors="replace").strip())
        if not self.database:
            raise ShellError(
                f"Line {self.line_number} is a point, and no database is known to write it to: "
                'add a line "# CONTEXT-DATABASE: <name>" before it, or give -database.'
            )
        self._lines.append(text)
        self._size_bytes += len(text) + 1
        full = len(self._lines) >= BATCH_LINES or self._size_bytes >= BATCH_BYTES
        return self.finish() if full else None

    def finish(self) -> Batch | None:
        """What is still to be sent."""
        if not self._lines:
            return None
        batch = Batch(self.database, self.retention_policy, tuple(self._lines))
        self._lines, self._size_bytes = [], 0
        return batch

    def _mark(self, text: bytes) -> Batch | None:
        if not self._in_points:
            self._in_points = text.startswith(DML_MARK)
            return None
        batch: Batch | None = None
        if text.startswith(DATABASE_MARK):
            batch = self.finish()
            self.database = text.removeprefix(DATABASE_MARK).decode("utf-8", errors="replace").strip()
        elif text.startswith(POLICY_MARK):
            batch = self.finish()
            self.retention_policy = text.removeprefix(POLICY_MARK).decode("utf-8", errors="replace").strip()
        return batch


def pause_s(lines_sent: int, elapsed_s: float, points_per_second: int) -> float:
    """How long to wait so that ``lines_sent`` points in all keep to the rate; 0 for no limit."""
    if points_per_second <= 0:
        return 0.0
    return max(0.0, lines_sent / points_per_second - elapsed_s)


MAX_TRIES = 10
MAX_WAIT_S = 30.0


def retry_wait_s(tries: int, asked_s: float | None) -> float | None:
    """Wait before trying again after ``tries`` tries that met an overloaded or unreachable server; None to give up.

    The server's own wish is followed up to MAX_WAIT_S; without one the wait doubles from a quarter of a second.
    """
    if tries >= MAX_TRIES:
        return None
    return min(MAX_WAIT_S, asked_s if asked_s is not None else 0.25 * 2 ** (tries - 1))


def go_duration(duration_ns: int) -> str:
    """A duration as Go prints it: ``1h2m3.5s``, ``56.740578415s``, ``1.5ms``, ``0s``."""
    if duration_ns < 1_000_000_000:
        for unit_ns, unit in ((1_000_000, "ms"), (1_000, "µs"), (1, "ns")):
            if duration_ns >= unit_ns:
                return _decimal(duration_ns, unit_ns) + unit
        return "0s"
    minutes, rest_ns = divmod(duration_ns, 60 * 1_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    if hours or minutes:
        text += f"{minutes}m"
    return text + _decimal(rest_ns, 1_000_000_000) + "s"


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{fraction:0{digits}d}".rstrip("0").rstrip(".") if fraction else str(whole)
