"""What a training optimises, and how: stored in checkpoints, or following from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from detection.models.network import Network
from detection.training.ema import ModelEma
from detection.training.replicas import Replicas


class LearningRates(Protocol):
    """A schedule, whatever its shape."""

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""


@dataclass(kw_only=True)
class Optimisation:
    """A network that learns, with everything that changes its weights."""

    detector: Network
    """The network that learns, whatever its task."""
    replicas: Replicas
    """The same network as all ranks compute it."""
    average: ModelEma | None
    """The running average of the weights; None when the configuration wants none."""
    optimizer: torch.optim.Optimizer
    schedule: LearningRates
    scaler: torch.amp.GradScaler
    device: torch.device
    autocast_dtype: torch.dtype | None = None
    """Of the forward pass in mixed precision; None is float32."""
    clip_norm: float | None = None

    def forward_context(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        )
