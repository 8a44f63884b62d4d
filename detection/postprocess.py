"""From a detector's boxes and scores to final detections: threshold, then non-maximum suppression.

Shape suffixes: P = priors, C = classes, N = candidates, in the end detections.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from detection.detections import Detections
from detection.nms import nms, nms_by_class

MOST_CANDIDATES = 30_000
"""Boxes that suppression looks at, the best: it takes the square of their number, and a threshold of 0 lets
every prior with every class in. Evaluations do not come near it: a box of YOLOX has one class, and those of
NanoDet-Plus count above a score of 0.05.
"""
CHOOSING_BYTES = 33
"""Memory for each score at most, until those are chosen: its place, a copy, and both again in order."""
FARTHEST = 1e6
"""Pixels; boxes that reach farther overlap others as if they ended here."""


def select_detections(
    boxes_P4: Tensor,
    scores_PC: Tensor,
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int | None,
    one_label_per_prior: bool,
    class_ids: Collection[int] | None = None,
    class_agnostic: bool = False,
) -> Detections:
    """Return the detections of one image by decreasing score, in the frame of its boxes (xyxy).

    A score equal to the threshold is kept; an overlap equal to `nms_iou` is kept. Equal scores keep the order
    of the priors. Boxes that are not finite are never detections. Of very many candidates only the best
    `MOST_CANDIDATES` are looked at.

    Args:
        one_label_per_prior: a prior names its best class only; otherwise every class above the threshold.
        class_ids: only these classes; a prior whose best class is another one stays silent. None is all.
        class_agnostic: boxes suppress each other whatever their classes.
    """
    prior_N, label_N, score_N = _candidates(
        boxes_P4,
        scores_PC,
        score_threshold,
        one_label_per_prior=one_label_per_prior,
        class_ids=class_ids,
    )
    box_N4 = boxes_P4[prior_N].float()
    if class_agnostic:
        kept_N = nms(box_N4, score_N, nms_iou)
    else:
        kept_N = _nms_by_class(box_N4, score_N, label_N, nms_iou)
    # Candidates are sorted, so their row numbers are their ranks.
    kept_N = kept_N.sort().values[:max_detections]
    return Detections(box_N4[kept_N], score_N[kept_N], label_N[kept_N])


def _candidates(
    boxes_P4: Tensor,
    scores_PC: Tensor,
    score_threshold: float,
    *,
    one_label_per_prior: bool,
    class_ids: Collection[int] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return prior, class and score of the best that reach the threshold, by decreasing score.

    L = labels that a prior may have: one, or each class.
    """
    if one_label_per_prior:
        score_PL, label_PL = scores_PC.max(dim=1, keepdim=True)
    else:
        score_PL, label_PL = scores_PC, torch.arange(scores_PC.shape[1], device=scores_PC.device)[None]
    wanted_PL = (score_PL >= score_threshold) & boxes_P4.isfinite().all(dim=1, keepdim=True)
    if class_ids is not None:
        wanted_PL &= torch.isin(label_PL, label_PL.new_tensor(list(class_ids)))
    (place_N,) = wanted_PL.flatten().nonzero(as_tuple=True)
    score_N, order_N = score_PL.flatten()[place_N].float().sort(descending=True, stable=True)
    place_N, score_N = place_N[order_N[:MOST_CANDIDATES]], score_N[:MOST_CANDIDATES]
    num_labels = max(score_PL.shape[1], 1)
    prior_N = place_N // num_labels
    return prior_N, label_PL.expand_as(score_PL)[prior_N, place_N % num_labels], score_N


def _nms_by_class(box_N4: Tensor, score_N: Tensor, label_N: Tensor, nms_iou: float) -> Tensor:
    """Return the rows that no better box of the same class suppresses.

    `nms_by_class` moves the classes apart by the largest coordinate. So coordinates must not be negative, and
    a single immense box must not take the digits of all others: in float64 and within `FARTHEST` it cannot.
    """
    near_N4 = box_N4.double().clamp(-FARTHEST, FARTHEST)
    origin = near_N4.amin() if len(near_N4) else 0.0
    return nms_by_class(near_N4 - origin, score_N.double(), label_N, nms_iou)
