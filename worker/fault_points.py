"""Places where a test can have a job process die, to see that no half of anything is ever visible."""

from __future__ import annotations

import os
import signal

VARIABLE = "HARRIER_FAULT_POINT"
"""`NAME:FENCE`: the process of that attempt dies when it comes to the place of that name."""


def fault_point(name: str, fence: int) -> None:
    """Die here, as if by `kill -9`, when the environment says so; otherwise nothing happens."""
    if os.environ.get(VARIABLE) == f"{name}:{fence}":
        os.kill(os.getpid(), signal.SIGKILL)
