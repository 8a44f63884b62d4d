"""How much of a network is zero."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


def sparsity(model: nn.Module) -> float:
    """Return the zeros among all parameters as a fraction of their number; 0 for a network without any.

    Biases and batch norms count too, so that pruning a fraction of every convolution gives a little less.
    """
    fraction = zero_fraction(model.parameters())
    logger.info("sparsity: %.4f", fraction)
    return fraction


def zero_fraction(tensors: Iterable[Tensor]) -> float:
    """Return the zeros among all elements of some tensors as a fraction; 0 when there are no elements."""
    elements = zeros = 0
    for tensor in tensors:
        elements += tensor.numel()
        zeros += tensor.numel() - int(torch.count_nonzero(tensor))
    return zeros / elements if elements else 0.0
