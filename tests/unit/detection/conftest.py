"""One thread for every test of the library, kernels left as others expect them, and where the numbers lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch

torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(autouse=True)
def _kernels_as_before() -> Iterator[None]:
    """A training chooses its kernels for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = False


@pytest.fixture(params=["golden", pytest.param("reference", marks=pytest.mark.reference)])
def numbers(request: pytest.FixtureRequest) -> Path:
    """The numbers of the original projects: first the choice in the repository, then the whole set."""
    folder: Path = request.getfixturevalue(request.param)
    return folder if request.param == "golden" else folder / "golden"
