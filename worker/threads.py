"""How many threads a job may compute with: the cores of the host or container, shared by its jobs."""

from __future__ import annotations

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of computing per period that a container may use, or `max`."""
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def thread_environment(num_jobs: int) -> dict[str, str]:
    """Return the variables that share the cores among `num_jobs` jobs; one set by the user wins."""
    threads = str(max(num_cores() // num_jobs, 1))
    return {name: os.environ.get(name, threads) for name in VARIABLES}


def num_cores(quota: Path = QUOTA) -> int:
    """Return the cores that this process may use."""
    allowed = len(os.sched_getaffinity(0))
    try:
        share, period = quota.read_text().split()
    except (OSError, ValueError):
        return allowed
    if share == "max":
        return allowed
    return max(min(allowed, int(share) // int(period)), 1)
