"""How processes with torch in them end that have nothing more to do: at once."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process without taking down what the kernel takes down anyway: that costs seconds.

    Whoever waits for a rank's end waits with an accelerator, a cancelled job or a killed one in hand.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
