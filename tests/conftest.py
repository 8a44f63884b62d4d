"""What all tests share: where the reference numbers, pictures and weights lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: tests share the cores with each other
# As the programs log; the default draws frames with all local variables, for seconds.
structlog.configure(
    processors=[structlog.processors.format_exc_info, structlog.dev.ConsoleRenderer(colors=False)]
)
ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder with a compact choice of the original projects' numbers; part of the repository."""
    return GOLDEN


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder with real archives, pictures, weights and all golden numbers; not part of the repository."""
    folder = Path(os.environ.get("HARRIER_REFERENCE", ROOT.parent / "shared"))
    if not (folder / "weights").is_dir():
        pytest.skip(f"the reference pictures and weights are not at {folder} (set HARRIER_REFERENCE)")
    return folder
