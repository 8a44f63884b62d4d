"""Keep the pruned weights of a network at zero while the others learn."""

from __future__ import annotations

import torch
from torch import Tensor

from detection.models.network import Network
from detection.training.trainer import Callback, StepResult, Trainer


class KeepZeros(Callback):
    """Sets the weights of convolutions that were zero at the start back to zero after every step.

    In the average as well, which has then averaged nothing but zeros there. A training that goes on finds the
    same zeros in its checkpoint.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer) -> None:
        self._kept = {name: weight != 0 for name, weight in _weights(trainer.optimisation.detector).items()}
        zeros = sum(int((~kept).sum()) for kept in self._kept.values())
        trainer.log(f"{zeros:,} weights stay zero")

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        average = trainer.optimisation.average
        self._clear(trainer.optimisation.detector)
        if average is not None:
            self._clear(average.model)

    @torch.no_grad()
    def _clear(self, network: Network) -> None:
        for name, weight in _weights(network).items():
            weight.mul_(self._kept[name])


def _weights(network: Network) -> dict[str, Tensor]:
    """Return the weights of all convolutions that are served, by part and name."""
    return {
        f"{part}.{name}": found
        for part, module in network.parts().items()
        for name, found in module.named_parameters()
        if found.ndim == 4
    }
