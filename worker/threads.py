"""How a job computes: with which share of the cores of the host or container, and how its threads wait."""

from __future__ import annotations

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of computing per period that a container may use, or `max`."""
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads sleep while they wait for each other. Spinning ones take the cores from whatever else runs here:
with four other jobs on two cores a training step took 15 s instead of 2 s."""


def thread_environment(num_jobs: int) -> dict[str, str]:
    """Return the variables that share the cores among `num_jobs` jobs; one set by the user wins."""
    threads = str(max(num_cores() // num_jobs, 1))
    wanted = {**dict.fromkeys(VARIABLES, threads), **WAITING}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


RANK_VARIABLES = {
    # Ranks of one host talk over the loopback interface, whatever its name resolves to.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    # A warning at every start that ranks look for weights without a gradient: they must.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


def rank_environment(num_ranks: int) -> dict[str, str]:
    """Return the variables for the ranks of one job: they share its threads, and meet on this host only."""
    own = os.environ.get(VARIABLES[0], "")
    threads = int(own) if own.isdigit() else num_cores()
    return {**dict.fromkeys(VARIABLES, str(max(threads // num_ranks, 1))), **WAITING, **RANK_VARIABLES}


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
