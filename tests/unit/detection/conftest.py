"""One thread for every test of the library, and the kernels that others expect left as they were."""

from __future__ import annotations

from collections.abc import Iterator

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
