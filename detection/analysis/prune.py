"""Unstructured pruning: the smallest weights of the convolutions become zero, and nothing changes its shape.

A network that is pruned so computes as many multiplications as before: it is a study of what the weights are
worth, and compresses well. What makes a network smaller and faster is `detection.analysis.channel_pruning`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import prune as torch_prune

from detection.analysis.modules import find_modules
from detection.analysis.sparsity import sparsity, zero_fraction

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning achieved."""

    sparsity: float
    """Zeros among all parameters of the network, a fraction."""
    layers: Mapping[str, float]
    """Zeros in the weight of each convolution, a fraction, by its name."""


def prune_layers(model: nn.Module, amount: float = 0.3) -> Pruned:
    """Set the round(amount x size) smallest absolute weights of each 2-d convolution to zero, in place.

    Biases and all other layers stay. `amount` is that of a layer; the sparsity of the network is lower.

    Raises:
        ValueError: the amount is not between 0 and 1.
    """
    _check(amount)
    for found in find_modules(model):
        torch_prune.l1_unstructured(found.module, "weight", amount=amount)
        torch_prune.remove(found.module, "weight")
    return _achieved(model, amount, "each convolution")


def prune_globally(model: nn.Module, amount: float = 0.3) -> Pruned:
    """Set the smallest absolute weights of all 2-d convolutions together to zero, in place: one threshold.

    Layers with small weights lose more than others. Biases and all other layers stay.

    Raises:
        ValueError: the amount is not between 0 and 1.
    """
    _check(amount)
    weights = [(found.module, "weight") for found in find_modules(model)]
    if weights:
        torch_prune.global_unstructured(weights, torch_prune.L1Unstructured, amount=amount)
    for module, name in weights:
        torch_prune.remove(module, name)
    return _achieved(model, amount, "all convolutions together")


def _check(amount: float) -> None:
    if not 0 <= amount < 1:
        raise ValueError(f"an amount of {amount} is no fraction of the weights: 0 to below 1 is")


def _achieved(model: nn.Module, amount: float, of_what: str) -> Pruned:
    layers = {
        found.name: zero_fraction([found.module.get_parameter("weight")]) for found in find_modules(model)
    }
    pruned = Pruned(sparsity(model), layers)
    logger.info("pruned %g of %s: %.4f of all parameters are zero", amount, of_what, pruned.sparsity)
    return pruned
