"""How many processes of one training a CPU has room for."""

from __future__ import annotations

from detection.data.wording import counted
from detection.errors import ConfigError, Fault

LEAST_BYTES = 1024**3
"""A process takes so much at least: torch alone half of it, then a network, its gradients and pictures."""


def check_room(num_ranks: int, *, cores: int, memory_bytes: int) -> None:
    """Raise ConfigError when so many processes have not a core and `LEAST_BYTES` each."""
    most = max(min(cores, memory_bytes // LEAST_BYTES), 1)
    if num_ranks <= most:
        return
    here = f"{counted(cores, 'core')} and {memory_bytes / LEAST_BYTES:.1f} GiB of memory"
    problem = (
        f"{num_ranks} processes on a CPU with {here}: each needs a core and 1 GiB, so {most} at most fit"
    )
    raise ConfigError([Fault("/processes", problem)])
