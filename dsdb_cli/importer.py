"""`dsdb -import`: sends an import file to the server, one batch at a time, in bounded memory."""

from __future__ import annotations

import gzip
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from dsdb_cli.client import Client
from dsdb_cli.errors import ConnectionFailed, ShellError, WriteRefused
from dsdb_cli.importing import (
    MAX_LINE_BYTES,
    Batch,
    ImportReader,
    Statement,
    go_duration,
    pause_s,
    retry_wait_s,
)

PROGRESS_LINES = 100_000


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Flags of an import; ``precision`` is the unit of the file's times."""

    path: str
    compressed: bool = False
    database: str = ""
    precision: str = "ns"
    consistency: str = "any"
    points_per_second: int = 0


class Importer:
    """One import; the counts are of lines, and a batch counts as failed or inserted as a whole."""

    def __init__(self, client: Client, options: ImportOptions) -> None:
        self._client = client
        self._options = options
        self._started_ns = time.monotonic_ns()
        self._progress_at = PROGRESS_LINES
        self.commands = 0
        self.inserts = 0
        self.failed = 0

    def run(self) -> int:
        """Send the file; exit status 1 when a line was not stored. Raises ShellError for a file that cannot be read."""
        options = self._options
        if not options.path:
            raise ShellError("file argument required")
        if options.precision == "rfc3339":
            raise ShellError("The times of an import file are numbers: -precision takes h, m, s, ms, u or ns here.")
        reader = ImportReader(database=options.database)
        try:
            for line in _lines(Path(options.path), options.compressed):
                self._send(reader.feed(line))
            self._send(reader.finish())
        except ConnectionFailed as error:
            raise ShellError(f"{error.message}\nStopped at line {reader.line_number} of {options.path}.") from error
        finally:
            self._summary()
        if self.failed:
            _log(f"{self.failed} point{'s were' if self.failed > 1 else ' was'} not inserted")
        return 1 if self.failed else 0

    def _send(self, item: Statement | Batch | None) -> None:
        if isinstance(item, Statement):
            self._execute(item.text)
        elif isinstance(item, Batch):
            self._insert(item)

    def _execute(self, text: str) -> None:
        error = self._client.query(text).first_error()
        if error is not None:
            _log(f"error: {error}")
        self.commands += 1

    def _insert(self, batch: Batch) -> None:
        options = self._options
        elapsed_s = (time.monotonic_ns() - self._started_ns) / 1e9
        time.sleep(pause_s(self.inserts + self.failed, elapsed_s, options.points_per_second))
        try:
            self._write(batch)
            self.inserts += len(batch.lines)
        except WriteRefused as refused:
            _log(f"error writing batch: {refused.body.strip() or f'HTTP status {refused.status}'}")
            sys.stdout.buffer.writelines(line + b"\n" for line in batch.lines)
            sys.stdout.flush()
            self.failed += len(batch.lines)
        if self.inserts + self.failed >= self._progress_at:
            self._progress()

    def _write(self, batch: Batch) -> None:
        """Write a batch, again and again while the server is overloaded or away: repeating a write is harmless."""
        options = self._options
        tries = 0
        while True:
            tries += 1
            try:
                self._client.write(
                    b"\n".join(batch.lines) + b"\n",
                    database=batch.database,
                    retention_policy=batch.retention_policy,
                    precision="n" if options.precision == "ns" else options.precision,
                    consistency=options.consistency,
                )
                return
            except ConnectionFailed:
                wait_s = retry_wait_s(tries, None)
                if wait_s is None:
                    raise
            except WriteRefused as refused:
                wait_s = retry_wait_s(tries, refused.retry_after_s) if refused.status in (503, 504) else None
                if wait_s is None:
                    raise
            time.sleep(wait_s)

    def _progress(self) -> None:
        lines = self.inserts + self.failed
        elapsed_ns = time.monotonic_ns() - self._started_ns
        rate = lines * 1_000_000_000 // max(1, elapsed_ns)
        _log(
            f"Processed {lines} lines.  Time elapsed: {go_duration(elapsed_ns)}.  Points per second (PPS): {rate}",
        )
        self._progress_at = (lines // PROGRESS_LINES + 1) * PROGRESS_LINES

    def _summary(self) -> None:
        if self.inserts + self.failed == 0:
            return
        _log(f"Processed {self.commands} commands")
        _log(f"Processed {self.inserts} inserts")
        _log(f"Failed {self.failed} inserts")


def _log(text: str) -> None:
    print(time.strftime("%Y/%m/%d %H:%M:%S"), text, file=sys.stderr, flush=True)


def _lines(path: Path, compressed: bool) -> Iterator[bytes]:
    try:
        with _open(path, compressed) as file:
            # One byte more than allowed, so that a line that is too long is seen and never read whole.
            while line := file.readline(MAX_LINE_BYTES + 2):
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ShellError(
            f"Cannot read {path} as gzip: {error}. Without -compressed it is read as plain text."
        ) from error
    except OSError as error:
        raise ShellError(f"Cannot read {path}: {error.strerror or error}") from error


def _open(path: Path, compressed: bool) -> BufferedIOBase:
    return gzip.open(path, "rb") if compressed else path.open("rb")
