"""From a detector's boxes and scores to final detections: threshold, then non-maximum suppression.

Shape suffixes: P = priors, C = classes, N = candidates, in the end detections.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.candidates import candidates_anywhere, candidates_on_cpu
from detection.detections import Detections
from detection.nms import FEW_ON_CPU, HANDFUL, nms, nms_by_class, nms_of_few

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
    on_cpu = scores_PC.device.type == "cpu" and scores_PC.dtype == boxes_P4.dtype == torch.float32
    select = select_on_cpu if on_cpu else select_anywhere
    return select(
        boxes_P4,
        scores_PC,
        score_threshold=score_threshold,
        nms_iou=nms_iou,
        max_detections=max_detections,
        one_label_per_prior=one_label_per_prior,
        class_ids=class_ids,
        class_agnostic=class_agnostic,
    )


def select_anywhere(
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
    """Return what `select_detections` does, on the device of the scores, step by step over all priors."""
    prior_N, label_N, score_N = candidates_anywhere(
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


def select_on_cpu(
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
    """Return what `select_detections` does, to the bit, of float32 tensors on the CPU.

    Few candidates are left of many scores, and for few it matters how long a step takes to begin: of an array
    a tenth of what it takes of a tensor.
    """
    boxes = boxes_P4.detach().numpy()
    prior_N, label_N, score_N = candidates_on_cpu(
        boxes,
        scores_PC.detach().numpy(),
        score_threshold,
        one_label_per_prior=one_label_per_prior,
        class_ids=class_ids,
    )
    box_N4 = boxes[prior_N]
    if class_agnostic or len(box_N4) > FEW_ON_CPU:
        box, score, label = (torch.from_numpy(each) for each in (box_N4, score_N, label_N))
        kept = nms(box, score, nms_iou) if class_agnostic else _nms_by_class(box, score, label, nms_iou)
        kept_N = np.sort(kept.numpy())
    elif len(box_N4) > HANDFUL:
        apart_N4 = torch.from_numpy(_apart(box_N4, label_N))
        kept_N = np.sort(nms(apart_N4, torch.from_numpy(score_N).double(), nms_iou).numpy())
    else:
        kept_N = nms_of_few(_apart(box_N4, label_N), nms_iou)
    kept_N = kept_N[:max_detections]
    found = (box_N4[kept_N], score_N[kept_N], label_N[kept_N])
    return Detections(*map(torch.from_numpy, found))


def _nms_by_class(box_N4: Tensor, score_N: Tensor, label_N: Tensor, nms_iou: float) -> Tensor:
    """Return the rows that no better box of the same class suppresses.

    `nms_by_class` moves the classes apart by the largest coordinate. So coordinates must not be negative, and
    a single immense box must not take the digits of all others: in float64 and within `FARTHEST` it cannot.
    """
    near_N4 = box_N4.double().clamp(-FARTHEST, FARTHEST)
    origin = near_N4.amin() if len(near_N4) else 0.0
    return nms_by_class(near_N4 - origin, score_N.double(), label_N, nms_iou)


def _apart(box_N4: NDArray[np.float32], label_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return boxes where those of different classes never meet: what `_nms_by_class` does to few."""
    near_N4 = box_N4.astype(np.float64).clip(-FARTHEST, FARTHEST)
    if len(near_N4):
        near_N4 -= near_N4.min()
        near_N4 += (label_N * (near_N4.max() + 1.0))[:, None]
    return near_N4
