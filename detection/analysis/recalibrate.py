"""Measure the statistics of batch norms again, after what comes before them has changed.

Shape suffixes: B = images, H W = input pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

LEAST_VARIANCE = 0.25
"""Of what it was: a channel that has lost nearly all it varied by is not blown up to its old strength, for
what is left of it would be rounding."""


@torch.no_grad()
def recalibrate_norms(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Give every batch norm the mean and variance that it sees in `batches`, in place; return the pictures.

    Channels that were pruned no longer add what they added on average, so that all layers after them are
    off until their norms know. A variance shrinks to a quarter at most. No weight learns. Without a batch
    everything stays as it is.

    Args:
        batches: images [B, 3, H, W] as the input convention prepares them, on the model's device.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.training, norm.get_buffer("running_var").clone()) for norm in norms]
    pictures = 0
    for images_BCHW in batches:
        if not pictures:
            _forget(norms)
        model(images_BCHW)
        pictures += len(images_BCHW)
    for norm, (momentum, training, variance_C) in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.train(training)
        variance = norm.get_buffer("running_var")
        variance.copy_(torch.maximum(variance, LEAST_VARIANCE * variance_C))
    logger.info("%d batch norms measured again on %d pictures", len(norms), pictures)
    return pictures


def _forget(norms: Iterable[nn.BatchNorm2d]) -> None:
    """Let norms average all batches to come alike."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
