"""What a server's processes use: processor time, memory, disk. Linux only."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of a process and its children: processor time, resident memory now and at its highest."""

    cpu_s: float
    rss_bytes: int
    peak_rss_bytes: int


def _family(pid: int) -> list[int]:
    """The process and its children, theirs too."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it ended meanwhile
    return found


def usage(pid: int) -> Usage:
    """Read it; raises OSError when the process is gone."""
    cpu_ticks = rss_kb = peak_kb = 0
    for one in _family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:
            if one == pid:
                raise
            continue
        cpu_ticks += sum(int(fields[place]) for place in (11, 12, 13, 14))
        values = dict(line.split(":", 1) for line in status.splitlines())
        rss_kb += int(values["VmRSS"].split()[0])
        peak_kb += int(values["VmHWM"].split()[0])
    return Usage(cpu_ticks / _TICKS_PER_S, rss_kb * 1024, peak_kb * 1024)


def _stats(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # it was deleted meanwhile
                path = Path(place) / name
                yield str(path), path.stat()


def files(directory: Path) -> dict[str, int]:
    """Every file below a directory and its length in bytes."""
    return {name: stat.st_size for name, stat in _stats(directory)}


def disk_bytes(directory: Path) -> int:
    """What all files occupy: less than their lengths where a program reserved space that it has not used."""
    return sum(stat.st_blocks * 512 for _, stat in _stats(directory))
