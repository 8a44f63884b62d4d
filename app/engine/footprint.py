"""How much memory this process holds where its models lie."""

from __future__ import annotations

import psutil
import torch


def memory_in_use(device: torch.device) -> int:
    """Return the bytes that the process holds: of an accelerator's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return int(psutil.Process().memory_info().rss)
