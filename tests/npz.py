"""Read a file of golden numbers whole, so that no test leaves it open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def read_npz(path: Path) -> dict[str, Any]:
    """Return the arrays of an `.npz` file by name."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}
