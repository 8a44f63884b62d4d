"""How the weights of a detector start when they start at random."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import init

from detection.errors import UnknownNameError
from detection.training.config import WEIGHT_INIT_GAIN, WeightInitConfig, WeightInitKind

logger = logging.getLogger(__name__)


def initialise(model: nn.Module, config: WeightInitConfig) -> None:
    """Draw the weights of all convolutions and batch norms anew, in place, from torch's generator.

    `default` leaves what the framework and the model's own constructor chose. The other kinds draw every
    convolution's weight; batch norms get weights around 1 (deviation 0.02) and no bias. Biases of
    convolutions, and with them the prior probability of the head, stay as built.

    Raises:
        UnknownNameError: the kind is not known.
    """
    draw = _drawer(config)
    if draw is not None:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                draw(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                init.normal_(module.weight, 1.0, 0.02)
                init.zeros_(module.bias)
    logger.info("weights initialised: %s", config.kind)


def _drawer(config: WeightInitConfig) -> Callable[[Tensor], Tensor] | None:
    gain = WEIGHT_INIT_GAIN if config.gain is None else config.gain
    match config.kind:
        case WeightInitKind.DEFAULT:
            return None
        case WeightInitKind.NORMAL:
            return partial(init.normal_, mean=0.0, std=gain)
        case WeightInitKind.XAVIER:
            return partial(init.xavier_normal_, gain=gain)
        case WeightInitKind.KAIMING:
            return partial(init.kaiming_normal_, a=0, mode="fan_in")
        case WeightInitKind.ORTHOGONAL:
            return partial(init.orthogonal_, gain=gain)
        case _:
            raise UnknownNameError("weight initialisation", config.kind, list(WeightInitKind))
