"""What training, inference and export may ask of any detector, whatever its family.

Shape suffixes: B = images, H W = input pixels, P = priors (all points of all levels), C = classes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from detection.models.network import NOTHING, Network, TrainingMoment, input_size_hw

__all__ = ["NOTHING", "Detector", "TrainingMoment", "input_size_hw"]


class Detector(Network):
    """A network that boxes objects. Subclasses register themselves with `detection.models.MODELS`.

    Its parts are `backbone`, `neck` and `head`.
    """

    strides: ClassVar[tuple[int, ...]]
    """Pixels of the input per cell, fine to coarse; inputs are multiples of `input_multiple`."""
    output_names: ClassVar[tuple[str, ...]] = ("boxes", "scores")
    fixed_outputs: ClassVar[tuple[str, ...]] = ()
    """Parts whose outputs keep their channels, because what exists for training only reads them, too."""

    @abstractmethod
    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the raw, undecoded predictions [B, P, K], levels fine to coarse, row-major in a level."""

    @abstractmethod
    def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes [B, P, 4] (xyxy, pixels of the input) and scores [B, P, C] in [0, 1].

        This is what an exported graph computes.
        """

    def follow_widths(self) -> None:
        """Give what exists for training only the widths of what it is a copy of, in place.

        Called after layers were made narrower.
        """
