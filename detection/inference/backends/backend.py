"""What executes a model, as a predictor sees it, and the kinds of backend by name.

Shape suffixes: B = images, H W = input pixels, P = priors, C = classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from detection.inference.serving import Precision
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
        classifier probabilities [B, C]. They are the caller's: no later call changes them.

        Args:
            images_BCHW: float32 on the CPU, as the model's input convention prepares them.
        """


@dataclass(frozen=True, slots=True)
class NeededFile:
    """The file of a model that a backend reads."""

    format: str
    """As the files of a model are listed."""
    name: str
    """That it must have in the folder."""


class BackendKind(Protocol):
    """One way to execute models: what it needs, what it can do here, and how it loads one."""

    @property
    def file(self) -> NeededFile:
        """The file that `load` reads beside the record."""

    @property
    def side_by_side(self) -> bool:
        """Whether several threads may call one loaded model at once, each with threads of its own."""

    def is_available(self) -> bool:
        """Return whether the library behind it is installed here."""

    def precisions(self, device: torch.device) -> tuple[Precision, ...]:
        """Return what it computes with on a device, the exact one first; none when it cannot use it."""

    def load(
        self,
        folder: Path,
        record: ModelRecord,
        *,
        device: torch.device,
        threads: int | None,
        precision: Precision = Precision.FP32,
    ) -> Backend:
        """Load a published model from its folder.

        Args:
            threads: that one call may use; None is the backend's own choice.

        Raises:
            ValueError: the device, or the precision on it, is none of `precisions`.
            MissingPackageError: the library is not installed here.
        """


BACKENDS: Registry[BackendKind] = Registry("backend")


def check_use(kind: str, precisions: tuple[Precision, ...], device: torch.device, precision: str) -> None:
    """Check that a kind, which has these precisions on a device, can compute in one.

    Raises:
        ValueError: it cannot.
    """
    if not precisions:
        raise ValueError(f"the backend {kind} cannot use {device}")
    if precision not in precisions:
        raise ValueError(f"the backend {kind} has no {precision} on {device}; it has {', '.join(precisions)}")
