"""Clocks that can be set: a small library loaded before all others shifts CLOCK_REALTIME of one process, live."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from tests.fault.sandbox import program

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *shift_ns;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("FAULT_CLOCK_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (file < 0) return;
    void *seen = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (seen != MAP_FAILED) shift_ns = seen;
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    if (!real_gettime) real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_gettime(clock, t);
    if (result == 0 && shift_ns && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long long now = t->tv_sec * 1000000000LL + t->tv_nsec + *shift_ns;
        t->tv_sec = now / 1000000000LL;
        t->tv_nsec = now % 1000000000LL;
    }
    return result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""


def build(directory: Path) -> Path | None:
    """Compile the library into ``directory``; None where there is no compiler, and clocks are not stepped then."""
    compiler = program("gcc") or program("cc")
    if compiler is None:
        return None
    source, library = directory / "clock.c", directory / "clock.so"
    source.write_text(_SOURCE)
    done = subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], capture_output=True, check=False
    )
    return library if done.returncode == 0 else None


class Clock:
    """The clock of one node; the shift outlives its restarts."""

    def __init__(self, file: Path, library: Path | None) -> None:
        self._file = file
        self._library = library
        file.write_bytes(struct.pack("=q", 0))

    @property
    def environ(self) -> dict[str, str]:
        """What the node's environment needs for it."""
        if self._library is None:
            return {}
        return {"LD_PRELOAD": str(self._library), "FAULT_CLOCK_FILE": str(self._file)}

    def shift(self, seconds: float) -> None:
        """Set the clock this far from the machine's."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", int(seconds * 1e9)))
