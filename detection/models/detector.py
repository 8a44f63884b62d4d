"""What training, inference and export may ask of any detector, whatever its family.

Shape suffixes: B = images, H W = input pixels, P = priors (all points of all levels), C = classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from detection.targets import Targets

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TrainingMoment:
    """Where in a training a loss is computed; some terms exist only early or only late."""

    epoch: int
    """Counted from 0."""
    tail: bool
    """True in the last epochs, in which pictures are only coloured and mirrored."""


class Detector(nn.Module, ABC):
    """A network that boxes objects. Subclasses register themselves with `detection.models.MODELS`."""

    strides: ClassVar[tuple[int, ...]]
    """Pixels of the input per cell, fine to coarse; inputs are multiples of `input_multiple`."""
    input_multiple: ClassVar[int] = 32

    fixed_outputs: ClassVar[tuple[str, ...]] = ()
    """Parts whose outputs keep their channels, because what exists for training only reads them, too."""

    num_classes: int
    loss_statistics: dict[str, Tensor]
    """Facts about the newest loss that are no part of it: scalars by name, still on the device."""

    @abstractmethod
    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the raw, undecoded predictions [B, P, K], levels fine to coarse, row-major in a level."""

    def loss(self, images_BCHW: Tensor, targets: Targets, moment: TrainingMoment) -> dict[str, Tensor]:
        """Return the weighted, normalised loss terms of a batch by name; their sum is the loss."""
        outputs = self.training_outputs(images_BCHW, moment)
        return self.loss_of_outputs(outputs, targets, moment, size_hw=input_size_hw(images_BCHW))

    def training_outputs(self, images_BCHW: Tensor, moment: TrainingMoment) -> tuple[Tensor, ...]:
        """Return all that the loss depends on, one tensor per head, images first.

        Outputs of an image depend on that image alone, batch norm aside, so a batch may be computed in parts.
        """
        return (self(images_BCHW),)

    @abstractmethod
    def loss_of_outputs(
        self,
        outputs: tuple[Tensor, ...],
        targets: Targets,
        moment: TrainingMoment,
        *,
        size_hw: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Return the loss terms by name of the `training_outputs` of a whole batch of this input size.

        Terms are weighted, and normalised over the batch and over all ranks. Each is a scalar; together they
        are connected to every output, so that every parameter that made one receives a gradient even when a
        batch holds no box.
        """

    @abstractmethod
    def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes [B, P, 4] (xyxy, pixels of the input) and scores [B, P, C] in [0, 1].

        This is what an exported graph computes.
        """

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """Return the modules that can be frozen or profiled alone: `backbone`, `neck`, `head`.

        Together they are all that `forward` needs; what exists for training only is in none of them.
        """

    @abstractmethod
    def fuse(self) -> None:
        """Fold every batch norm into its convolution, in place. Eval mode only; outputs do not change.

        What exists for training only is dropped: a fused network does not learn.
        """

    def drop_training_parts(self) -> None:
        """Remove what exists for training only, in place; outputs do not change.

        Weights that are published, counted or served never hold it.
        """

    def follow_widths(self) -> None:
        """Give what exists for training only the widths of what it is a copy of, in place.

        Called after layers were made narrower.
        """

    def begin_from(
        self, missing: Collection[str], mismatched: Mapping[str, Tensor] = NOTHING
    ) -> Mapping[str, tuple[str, ...]]:
        """Give entries that start without weights of their own a better start than chance, in place.

        Called once, before the first step of a training.

        Args:
            missing: names of the entries of the state that no file held; all of them for a random start.
            mismatched: what a file held by the names of entries that have another shape here.

        Returns:
            What was done, in words, with the names of the entries that it was done to.
        """
        return {}


def input_size_hw(images_BCHW: Tensor) -> tuple[int, int]:
    """Return height and width of a batch of images."""
    height, width = images_BCHW.shape[-2:]
    return height, width
