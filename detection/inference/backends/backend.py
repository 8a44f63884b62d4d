"""What executes a model, as a predictor sees it, and the backends by name.

Shape suffixes: B = images, H W = input pixels, P = priors, C = classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from detection.model_record import ModelRecord
from detection.registry import Registry


class Backend(Protocol):
    """A loaded model."""

    @property
    def device(self) -> torch.device:
        """Where outputs lie."""

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return what the model's task asks for, float32.

        Of a detector boxes [B, P, 4] (xyxy, pixels of the input) and scores [B, P, C] in [0, 1], of a
        classifier probabilities [B, C].

        Args:
            images_BCHW: float32 on the CPU, as the model's input convention prepares them.
        """


class BackendLoader(Protocol):
    """Loads a published model from its folder."""

    def __call__(
        self, folder: Path, record: ModelRecord, *, device: torch.device, threads: int | None
    ) -> Backend: ...


BACKENDS: Registry[BackendLoader] = Registry("backend")
