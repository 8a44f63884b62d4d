"""Tell an accelerator that ran out of memory from other failures."""

from __future__ import annotations

import torch

DRIVER_MESSAGES = (
    "CUDA out of memory",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unable to find an engine",
)
"""What drivers say instead of a plain out-of-memory error; there is no type to ask for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a smaller batch may help against `error`."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(known.lower() in text for known in DRIVER_MESSAGES)
