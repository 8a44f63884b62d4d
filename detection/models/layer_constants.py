"""The constants of a network's layers that its makers did not leave to the framework."""

from __future__ import annotations

import logging

from torch import nn

from detection.layers.conv import BN_EPS, BN_MOMENTUM

logger = logging.getLogger(__name__)

IN_PLACE = (nn.Hardswish, nn.LeakyReLU, nn.ReLU, nn.ReLU6)
"""Activations that may overwrite their input: what comes before them does not need it for its gradient."""


def initialise_layers(model: nn.Module) -> None:
    """Give batch norms the constants that YOLOX was trained with, and let activations work in place.

    Convolutions stay as they are; how their weights start is `detection.models.weight_init`.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.eps, norm.momentum = BN_EPS, BN_MOMENTUM
    in_place = work_in_place(model)
    logger.info(
        "layers initialised: %d batch norms with eps %g and momentum %g, %d activations in place",
        len(norms),
        BN_EPS,
        BN_MOMENTUM,
        in_place,
    )


def work_in_place(model: nn.Module) -> int:
    """Let the activations that can do so write over their input, which saves memory; return their number."""
    activations = [module for module in model.modules() if isinstance(module, IN_PLACE)]
    for activation in activations:
        activation.inplace = True
    return len(activations)
