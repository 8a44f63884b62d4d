"""Whether a backend finds what the reference finds: box by box, on the same pictures.

Shape suffixes: R = boxes of the reference, F = boxes that are compared with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detection.boxes import pairwise_iou
from detection.detections import Detections
from detection.inference.predictor import DetectOptions
from detection.inference.serving import Precision

CONFIDENT = DetectOptions().score_threshold
"""A box with this score or more is one that is answered when nothing else is asked for."""
FEWEST_BOXES = 20
"""Fewer, of both together, say too little."""
MOST_COMPARED = 300
"""Of the boxes of one picture, the surest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What still is the same answer."""

    iou: float
    """Two boxes of one class are the same when they overlap by this much or more,"""
    score: float
    """and their scores differ by this much or less."""
    share: float
    """Of all confident boxes, how many must be the same, at the least."""


EXACT = Tolerance(iou=0.98, score=0.02, share=1.0)
"""For what computes in float32: no more than rounding, which moves a box by fractions of a pixel."""
HALF = Tolerance(iou=0.8, score=0.1, share=0.95)
"""For what computes in half precision: numbers of 8 bits, and now and then another of two equal boxes."""
TOLERANCES = {Precision.FP32: EXACT, Precision.BF16: HALF, Precision.FP16: HALF}


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How much of what two backends see is the same."""

    pictures: int = 0
    boxes: int = 0
    """Confident ones of either."""
    same: int = 0
    """How many of these the other has too."""
    score_difference: float = 0.0
    """The largest of boxes that are the same."""

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            pictures=self.pictures + other.pictures,
            boxes=self.boxes + other.boxes,
            same=self.same + other.same,
            score_difference=max(self.score_difference, other.score_difference),
        )

    @property
    def share(self) -> float:
        """Of the boxes that are the same; 1 when there is none."""
        return self.same / self.boxes if self.boxes else 1.0

    @property
    def says_enough(self) -> bool:
        """Whether there were so many boxes that the share means something."""
        return self.boxes >= FEWEST_BOXES

    def is_within(self, tolerance: Tolerance) -> bool:
        """Return whether both see the same, as far as enough was seen to say so."""
        return self.says_enough and self.share >= tolerance.share


def agreement_in_all(
    reference: Sequence[Detections], found: Sequence[Detections], tolerance: Tolerance
) -> Agreement:
    """Compare what two backends found in the same pictures, as an evaluation asks for it.

    A model that is rarely sure is judged by the surest boxes that there are.

    Args:
        reference: detections in every picture, by decreasing score, after NMS, in pixels of the picture.
        found: the same of the other.
        tolerance: what still is the same.
    """
    confident = _confident(reference)
    agreements = (
        compare_detections(own, other, tolerance, confident=confident)
        for own, other in zip(reference, found, strict=True)
    )
    return sum(agreements, Agreement())


def compare_detections(
    reference: Detections, found: Detections, tolerance: Tolerance, *, confident: float = CONFIDENT
) -> Agreement:
    """Compare what two backends found in one picture.

    Args:
        reference: by decreasing score, after NMS, in pixels of the picture; also those that score less than
            `confident` by the tolerance, because what is sure for one may be just below for the other.
        found: the same of the other.
        tolerance: what still is the same.
        confident: the score from which on a box counts.
    """
    reference, found = _surest(reference), _surest(found)
    alike_RF, differences_RF = _alike(reference, found, tolerance)
    sure_R, sure_F = reference.scores_N >= confident, found.scores_N >= confident
    same = int((alike_RF.any(dim=1) & sure_R).sum()) + int((alike_RF.any(dim=0) & sure_F).sum())
    counted_RF = alike_RF & (sure_R[:, None] | sure_F[None])
    return Agreement(
        pictures=1,
        boxes=int(sure_R.sum()) + int(sure_F.sum()),
        same=same,
        score_difference=float(differences_RF[counted_RF].max()) if bool(counted_RF.any()) else 0.0,
    )


def _confident(reference: Sequence[Detections]) -> float:
    """Return the score from which on boxes count, so that enough of them do."""
    scores = torch.cat([each.scores_N for each in reference]) if reference else torch.zeros(0)
    if len(scores) <= FEWEST_BOXES:
        return CONFIDENT
    return min(CONFIDENT, float(scores.topk(FEWEST_BOXES).values[-1]))


def _surest(detections: Detections) -> Detections:
    most = slice(MOST_COMPARED)
    return Detections(detections.boxes_N4[most], detections.scores_N[most], detections.labels_N[most])


def _alike(reference: Detections, found: Detections, tolerance: Tolerance) -> tuple[Tensor, Tensor]:
    """Return which boxes are the same, and by how much scores differ. NMS leaves at most one for each."""
    iou_RF = pairwise_iou(reference.boxes_N4, found.boxes_N4)
    differences_RF = (reference.scores_N[:, None] - found.scores_N[None]).abs()
    same_class_RF = reference.labels_N[:, None] == found.labels_N[None]
    alike_RF = same_class_RF & (iou_RF >= tolerance.iou) & (differences_RF <= tolerance.score)
    return alike_RF, differences_RF
