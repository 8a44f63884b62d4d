"""What training, inference and export may ask of any detector, whatever its family.

Shape suffixes: B = images, H W = input pixels, P = priors (all points of all levels), C = classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from detection.targets import Targets


@dataclass(frozen=True, slots=True)
class TrainingMoment:
    """Where in a training a loss is computed; some terms exist only early or only late."""

    epoch: int
    """Counted from 0."""
    tail: bool
    """True in the last epochs, those without mosaic and mixup."""


class Detector(nn.Module, ABC):
    """A network that boxes objects. Subclasses register themselves with `detection.models.MODELS`."""

    strides: ClassVar[tuple[int, ...]]
    """Pixels of the input per cell, fine to coarse; inputs are multiples of `input_multiple`."""
    input_multiple: ClassVar[int] = 32

    num_classes: int
    loss_statistics: dict[str, Tensor]
    """Facts about the newest loss that are no part of it: scalars by name, still on the device."""

    @abstractmethod
    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the raw, undecoded predictions [B, P, K], levels fine to coarse, row-major in a level."""

    @abstractmethod
    def loss(self, images_BCHW: Tensor, targets: Targets, moment: TrainingMoment) -> dict[str, Tensor]:
        """Return the weighted, normalised loss terms by name; their sum is the loss.

        Every term is a scalar connected to the graph, so that every parameter receives a gradient even
        when a batch holds no box.
        """

    @abstractmethod
    def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes [B, P, 4] (xyxy, pixels of the input) and scores [B, P, C] in [0, 1].

        This is what an exported graph computes.
        """

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """Return the modules that can be frozen or profiled alone: `backbone`, `neck`, `head`."""

    @abstractmethod
    def fuse(self) -> None:
        """Fold every batch norm into its convolution, in place. Eval mode only; outputs do not change."""
