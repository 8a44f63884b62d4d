"""Tells an accelerator that this process has lost from one that only refused a call."""

from __future__ import annotations

import re

import torch
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

DEVICE_ERRORS: tuple[type[Exception], ...] = (torch.AcceleratorError, EPFail, Fail, RuntimeException)
"""What can mean it. ONNX Runtime tells the number of an error in its message only."""
LOST = frozenset({214, 220, 700, 702, 710, 714, 715, 716, 717, 718, 719})
"""Of CUDA's errors those after which all further work fails until the process has been started anew. So its
documentation says of kernels that broke off (700 to 719); it says nothing about memory and links whose faults
cannot be corrected (214, 220), which are taken for the same.

https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
"""
_NUMBER = re.compile(r"cuda (?:failure|error) (\d+)", re.IGNORECASE)


def is_device_lost(error: BaseException) -> bool:
    """Return whether after this error an accelerator computes nothing more in this process."""
    if not isinstance(error, DEVICE_ERRORS):
        return False
    number = getattr(error, "error_code", None)
    if number is None:
        found = _NUMBER.search(str(error))
        number = int(found[1]) if found else None
    return number in LOST
