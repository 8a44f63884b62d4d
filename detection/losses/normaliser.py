"""What a loss is divided by when several processes share a batch."""

from __future__ import annotations

from torch import Tensor, distributed


def global_mean(count: Tensor) -> Tensor:
    """Return the count of all ranks, at least 1, divided by their number: without gradient.

    So the gradient averaged over ranks is the gradient of one process with the whole batch. Several counts in
    one tensor are counted side by side, and cost no more than one.

    Differs from the reference: that normalises every rank by its own count.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return count.detach().clamp(min=1)
    total = count.detach().clone()
    distributed.all_reduce(total)
    return total.clamp(min=1) / distributed.get_world_size()
