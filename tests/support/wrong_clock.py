"""A wall clock that is wrong, for one process and its children: by a preloaded library, or without a compiler by a
``sitecustomize`` that changes ``time.time`` of Python. Monotonic clocks stay right."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

_LIBRARY = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile double *wrong;

static time_t seconds(void) {
    if (!wrong) {
        const char *path = getenv("WRONG_CLOCK");
        int file = path ? open(path, O_RDONLY) : -1;
        if (file < 0) return 0;
        void *found = mmap(0, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if (found == MAP_FAILED) return 0;
        wrong = found;
    }
    return (time_t)*wrong;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += seconds();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
"""

_PATCH = """
import mmap, os, struct, time
with open(os.environ["WRONG_CLOCK"], "rb") as file:
    wrong = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
right = time.time
time.time = lambda: right() + struct.unpack("d", wrong)[0]
"""


class WrongClock:
    """Start processes with ``environment``; ``set`` is seen by those that run, at once.

    Args:
        folder: a directory for its files.
        seconds: by which the clock is ahead at first.
    """

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        folder.mkdir()
        self._file = folder / "seconds"
        self._file.write_bytes(struct.pack("d", seconds))
        self.environment = {"WRONG_CLOCK": str(self._file)}
        compiler = shutil.which("cc")
        if compiler is not None:
            source, library = folder / "wrong_clock.c", folder / "wrong_clock.so"
            source.write_text(_LIBRARY)
            subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
            self.environment["LD_PRELOAD"] = str(library)
        else:
            (folder / "sitecustomize.py").write_text(_PATCH)
            self.environment["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])

    def set(self, seconds: float) -> None:
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", seconds))
