"""Ground truth of a batch, padded so that every image can be handled at once.

Shape suffixes: B = images, G = the most boxes in one image of the batch, R = the most crowd regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Targets:
    """Boxes and classes of B images; rows where `valid_BG` is false are padding and hold zeros."""

    boxes_BG4: Tensor
    """xyxy, pixels of the network input, float32."""
    labels_BG: Tensor
    """Class indices, int64."""
    valid_BG: Tensor
    """True where a row is a box, bool."""
    crowds_BR4: Tensor | None = None
    """Regions where objects are not labelled one by one, like boxes; padding is zeros, which cover nothing.
    None when there is none in the whole batch."""

    @classmethod
    def from_lists(
        cls, boxes: Sequence[Tensor], labels: Sequence[Tensor], crowds: Sequence[Tensor] = ()
    ) -> Targets:
        """Pad one [n, 4] box tensor and one [n] label tensor per image to a batch.

        Args:
            crowds: an [n, 4] tensor of regions per image, or nothing at all.
        """
        size = max((len(each) for each in boxes), default=0)
        boxes_BG4 = torch.zeros(len(boxes), size, 4)
        labels_BG = torch.zeros(len(boxes), size, dtype=torch.int64)
        valid_BG = torch.zeros(len(boxes), size, dtype=torch.bool)
        for index, (own_boxes, own_labels) in enumerate(zip(boxes, labels, strict=True)):
            boxes_BG4[index, : len(own_boxes)] = own_boxes
            labels_BG[index, : len(own_boxes)] = own_labels
            valid_BG[index, : len(own_boxes)] = True
        return cls(boxes_BG4, labels_BG, valid_BG, _padded(crowds) if any(map(len, crowds)) else None)

    def with_a_row(self) -> Targets:
        """Return the same boxes; a batch without any gets one row of padding, so that maxima exist."""
        if self.boxes_BG4.shape[1]:
            return self
        size = len(self.boxes_BG4)
        return Targets(
            self.boxes_BG4.new_zeros(size, 1, 4),
            self.labels_BG.new_zeros(size, 1),
            self.valid_BG.new_zeros(size, 1),
            self.crowds_BR4,
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Targets:
        return Targets(
            self.boxes_BG4.to(device, non_blocking=non_blocking),
            self.labels_BG.to(device, non_blocking=non_blocking),
            self.valid_BG.to(device, non_blocking=non_blocking),
            None if self.crowds_BR4 is None else self.crowds_BR4.to(device, non_blocking=non_blocking),
        )

    def scaled(self, factor_x: float, factor_y: float) -> Targets:
        """Return the same boxes in an input resized by the two factors."""
        factors = self.boxes_BG4.new_tensor([factor_x, factor_y, factor_x, factor_y])
        crowds_BR4 = None if self.crowds_BR4 is None else self.crowds_BR4 * factors
        return Targets(self.boxes_BG4 * factors, self.labels_BG, self.valid_BG, crowds_BR4)


def _padded(boxes: Sequence[Tensor]) -> Tensor:
    padded_BG4 = torch.zeros(len(boxes), max(map(len, boxes)), 4)
    for row_G4, own in zip(padded_BG4, boxes, strict=True):
        row_G4[: len(own)] = own
    return padded_BG4
