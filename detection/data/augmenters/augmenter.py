"""What makes training samples out of a dataset's pictures, found by the type of its configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Protocol

from numpy.random import Generator

from detection.data.transforms import BoxArray, LabelArray, Sample
from detection.images import DecodedImage
from detection.input_convention import InputConvention
from detection.training.config import AugmentationConfig


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture of the dataset as it was decoded; boxes in pixels of the full picture."""

    image: DecodedImage
    boxes: BoxArray
    labels: LabelArray
    crowds: BoxArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSource:
    """The pictures that samples are made of, and what they are made for."""

    load: Callable[[int], LabelledPicture]
    """Returns a picture by its index."""
    num_images: int
    input_size_hw: tuple[int, int]
    convention: InputConvention
    """How a picture is scaled and padded in serving."""

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.input_size_hw[1], self.input_size_hw[0]


class Augmenter(Protocol):
    """Makes samples of the input's size; every draw comes from the caller."""

    def sample(self, index: int, rng: Generator, *, tail: bool) -> Sample:
        """Return a picture augmented.

        Args:
            tail: True in the last epochs, where only what does not move the picture is left.
        """


@singledispatch
def build_augmenter(config: AugmentationConfig, source: PictureSource) -> Augmenter:
    """Return the augmenter of a resolved configuration; each family registers its own.

    Raises:
        TypeError: no family has such a configuration.
    """
    raise TypeError(f"there is no augmenter for a {type(config).__name__}")
