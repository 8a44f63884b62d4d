"""From a detector's boxes and scores to final detections: threshold, then non-maximum suppression.

Shape suffixes: P = priors, C = classes, N = candidates, in the end detections.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from detection.candidates import find_candidates
from detection.detections import Detections
from detection.nms import nms, nms_by_class

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
    prior_N, label_N, score_N = find_candidates(
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


def _nms_by_class(box_N4: Tensor, score_N: Tensor, label_N: Tensor, nms_iou: float) -> Tensor:
    """Return the rows that no better box of the same class suppresses.

    `nms_by_class` moves the classes apart by the largest coordinate. So coordinates must not be negative, and
    a single immense box must not take the digits of all others: in float64 and within `FARTHEST` it cannot.
    """
    near_N4 = box_N4.double().clamp(-FARTHEST, FARTHEST)
    origin = near_N4.amin() if len(near_N4) else 0.0
    return nms_by_class(near_N4 - origin, score_N.double(), label_N, nms_iou)
