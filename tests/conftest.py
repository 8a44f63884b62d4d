"""What all tests share: where the reference numbers, pictures and weights lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import structlog
from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: tests share the cores with each other
# As the programs log; the default draws frames with all local variables, for seconds.
structlog.configure(
    processors=[structlog.processors.format_exc_info, structlog.dev.ConsoleRenderer(colors=False)]
)
ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


class WholeFiles(LoadFileScheduling):
    """Gives whole files to the processes of a run, and all of e2e to one: its server is started once."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/e2e" if nodeid.startswith("tests/e2e/") else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFiles | None:
    return WholeFiles(config, log) if config.getoption("dist") == "loadfile" else None


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
