"""Final boxes of one picture, with scores and classes.

Shape suffix: N = detections.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found in one picture, by decreasing score."""

    boxes_N4: Tensor
    """xyxy, pixels, float32, in the frame that the producing function names."""
    scores_N: Tensor
    """In [0, 1], float32."""
    labels_N: Tensor
    """Class indices, int64."""

    def __len__(self) -> int:
        return len(self.scores_N)
