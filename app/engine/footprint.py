"""How much memory this process holds where its models lie, and how much is left there."""

from __future__ import annotations

import psutil
import torch


def memory_in_use(device: torch.device) -> int:
    """Return the bytes that the process holds: of the machine's memory, or by torch of an accelerator's.

    ONNX Runtime and TensorRT have an allocator of their own there, which tells nothing.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return int(psutil.Process().memory_info().rss)


def memory_free(device: torch.device) -> int:
    """Return the bytes that the process could still get there, with those that it holds and does not use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def give_back(device: torch.device) -> None:
    """Return the memory of an accelerator that was needed for a while to those who share it."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
