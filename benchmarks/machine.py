"""On what a run was measured, and how busy that was: another machine, or a busy one, has other figures."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def description() -> dict[str, Any]:
    """What of this machine the figures depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def load() -> float:
    """Mean number of processes that ran or waited for a core, over the last minute: those of the run itself, too."""
    return os.getloadavg()[0]


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "unknown")  # some architectures have no such line
