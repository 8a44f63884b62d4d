"""What counts as too little memory, and what does not."""

from __future__ import annotations

import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

from detection.inference.out_of_memory import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeException("BFCArena::AllocateRawInternal Failed to allocate memory for buffer"), True),
        (Fail("CUDA failure 2: out of memory"), True),
        (Fail("Node () Op (Conv) invalid shape"), False),
        (RuntimeError("out of memory, says somebody else"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_a_failed_allocation_counts(error: Exception, answer: bool) -> None:
    assert is_out_of_memory(error) is answer
