"""Tells an accelerator that has no memory left from anything else that goes wrong."""

from __future__ import annotations

import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

ALLOCATION_ERRORS: tuple[type[Exception], ...] = (torch.OutOfMemoryError, MemoryError, Fail, RuntimeException)
"""What can mean it. ONNX Runtime has no error of its own for it: there the message decides."""
_ALLOCATION_FAILURES = ("failed to allocate memory", "out of memory", "bad allocation")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether less at a time might still fit."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, ALLOCATION_ERRORS) and any(each in message for each in _ALLOCATION_FAILURES)
