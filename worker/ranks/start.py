"""`python -m worker.ranks.start PARENT MODULE ...`: a module's `main`, dying with its parent.

The modules load torch, for a second and more. A parent that is killed meanwhile must not leave them behind,
and torchrun gives ranks a session of their own, so that no signal to its group reaches them. Hence this
imports nothing else before the kernel knows.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module

from app.parent_death import die_with_parent


def starting(module: str, parent_pid: int) -> list[str]:
    """Return the arguments that start a module in this way; those of its `main` follow."""
    return [__spec__.name, str(parent_pid), module]


def main(arguments: list[str]) -> None:
    parent_pid, module, *rest = arguments
    die_with_parent(signal.SIGKILL, parent_pid=int(parent_pid))
    import_module(module).main(rest)


if __name__ == "__main__":
    main(sys.argv[1:])
