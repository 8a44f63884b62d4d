"""What the CPU of this machine is called. Plain Python."""

from __future__ import annotations

import platform
from pathlib import Path

PROCESSORS = Path("/proc/cpuinfo")


def processor_name(processors: Path = PROCESSORS) -> str:
    """Return the name of the CPU, or its kind where the system does not tell more."""
    try:
        lines = processors.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()
