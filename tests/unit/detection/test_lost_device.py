"""After which errors a process can compute nothing more on an accelerator."""

from __future__ import annotations

import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail

from detection.inference.lost_device import is_device_lost


def accelerator_error(code: int) -> torch.AcceleratorError:
    """Return an error as torch makes it of one of CUDA."""
    error = torch.AcceleratorError("CUDA error: what it is called")
    error.error_code = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (accelerator_error(700), True),
        (accelerator_error(1), False),
        (torch.AcceleratorError("CUDA error: of which no number is known"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (Fail("CUDA failure 719: unspecified launch failure ; GPU=0 ; expr=cudaStreamSynchronize"), True),
        (EPFail("CUDA error 710: device-side assert triggered"), True),
        (Fail("CUDA failure 2: out of memory"), False),
        (Fail("Node () Op (Conv) invalid shape, 700 instead of 719"), False),
        (ValueError("CUDA failure 700"), False),
    ],
)
def test_only_what_no_call_survives_counts(error: Exception, answer: bool) -> None:
    assert is_device_lost(error) is answer
