"""The running average of a model in training, which is what gets evaluated and published."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from detection.models.network import Network
from detection.training.wrappers import copy_attributes, unwrapped

NOT_OF_THE_MODEL = ("process_group", "reducer")
"""What data-parallel wrappers keep beside a model: it belongs to the processes that train."""
OF_THE_MOMENT = ("training", "loss_statistics")
"""The average stays in eval mode, and what a network says of its newest batch is not true of it."""


class ModelEma:
    """Keeps `model` as the running average of a model in training: weights and batch-norm statistics alike.

    The decay ramps up from 0, so that early, poor weights are forgotten quickly:
        decay_at(updates) = decay * (1 - exp(-updates / ramp_updates))

    Differs from the reference: integer entries, such as a batch norm's counter, are copied from the model
    (`integer_buffers="keep"` leaves them as they were).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float,
        ramp_updates: float,
        integer_buffers: Literal["copy", "keep"] = "copy",
    ) -> None:
        average = copy.deepcopy(unwrapped(model)).float().eval().requires_grad_(False)
        self.model = cast(Network, average)
        self.updates = 0
        self.decay = decay
        self.ramp_updates = ramp_updates
        self.integer_buffers = integer_buffers

    def decay_at(self, updates: int) -> float:
        """Return how much of the average stays at the update of this number, counted from 1."""
        return self.decay * (1 - math.exp(-updates / self.ramp_updates))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model` by one update.

        Raises:
            ValueError: the models do not have the same entries.
        """
        average, current = self.model.state_dict(), unwrapped(model).state_dict()
        if average.keys() != current.keys():
            raise ValueError(f"the models differ in {sorted(average.keys() ^ current.keys())}")
        self.updates += 1
        floating = [name for name, value in average.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [average[name] for name in floating],
            [current[name].to(average[name]) for name in floating],
            1 - self.decay_at(self.updates),
        )
        if self.integer_buffers == "copy":
            for name in average.keys() - floating:
                average[name].copy_(current[name])

    def update_attributes(
        self, model: nn.Module, *, include: Collection[str] = (), exclude: Collection[str] = NOT_OF_THE_MODEL
    ) -> tuple[str, ...]:
        """Give the average the plain attributes of `model`, such as strides and classes; return their names.

        The average is a copy from before the first step; what was set on the model since then is not in it.
        See `detection.training.wrappers.copy_attributes`.
        """
        left_out = {*exclude, *OF_THE_MOMENT}
        return copy_attributes(self.model, unwrapped(model), include=include, exclude=left_out)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` restores: the number of updates and the averaged entries."""
        return {"updates": self.updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        weights: Mapping[str, Tensor] = state["model"]
        self.model.load_state_dict(weights)
        self.updates = int(state["updates"])
