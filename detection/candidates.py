"""Which of a detector's scores may become detections: above the threshold, of a wanted class, the best first.

Two ways to the same answer. On an accelerator every step works on all priors, which costs it nothing. A
processor looks at all scores once, only to find the few above the threshold, and at the rest of those alone.

Shape suffixes: P = priors, C = classes, L = labels that a prior may have (one, or each), N = candidates.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_CANDIDATES = 30_000
"""Boxes that suppression looks at, the best: it takes the square of their number, and a threshold of 0 lets
every prior with every class in. Evaluations do not come near it: a box of YOLOX has one class, and those of
NanoDet-Plus count above a score of 0.05.
"""
CHOOSING_BYTES = 33
"""Memory for each score at most, until those are chosen: its place, a copy, and both again in order."""

Candidates = tuple[Tensor, Tensor, Tensor]
"""Prior, class and score (float32) of each candidate, by decreasing score; equal ones in order of priors."""
CpuCandidates = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""The same as arrays."""


def candidates_anywhere(
    boxes_P4: Tensor,
    scores_PC: Tensor,
    score_threshold: float,
    *,
    one_label_per_prior: bool,
    class_ids: Collection[int] | None,
) -> Candidates:
    """Return the best that reach the threshold, at most `MOST_CANDIDATES`, on the device of the scores.

    Args:
        boxes_P4: xyxy; a prior whose box is not finite is no candidate.
        one_label_per_prior: a prior names its best class only; otherwise every class above the threshold.
        class_ids: only these classes; a prior whose best class is another one stays silent. None is all.
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


def candidates_on_cpu(
    boxes_P4: NDArray[np.float32],
    scores_PC: NDArray[np.float32],
    score_threshold: float,
    *,
    one_label_per_prior: bool,
    class_ids: Collection[int] | None,
) -> CpuCandidates:
    """Return what `candidates_anywhere` does, to the bit, of arrays and much sooner."""
    place_N = np.flatnonzero(scores_PC.ravel() >= score_threshold)  # a NaN reaches no threshold
    num_classes = max(scores_PC.shape[1], 1)
    prior_N, label_N = np.divmod(place_N, num_classes)
    if one_label_per_prior:
        prior_N = prior_N[_is_first(prior_N)]
        rows_NC = scores_PC[prior_N]
        # A NaN is the best of its row, and keeps the row out as it does there.
        label_N = rows_NC.argmax(axis=1)
        score_N = rows_NC[np.arange(len(rows_NC)), label_N]
        wanted_N = _are_finite(boxes_P4, prior_N) & ~np.isnan(score_N)
    else:
        score_N = scores_PC.ravel()[place_N]
        wanted_N = _are_finite(boxes_P4, prior_N)
    if class_ids is not None:
        wanted_N &= np.isin(label_N, np.fromiter(class_ids, np.int64))
    if not wanted_N.all():
        prior_N, label_N, score_N = prior_N[wanted_N], label_N[wanted_N], score_N[wanted_N]
    order_N = np.argsort(-score_N, kind="stable")[:MOST_CANDIDATES]
    return prior_N[order_N], label_N[order_N], score_N[order_N]


def _is_first(prior_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return where each prior of a sorted row stands for the first time."""
    is_first_N = np.ones(len(prior_N), np.bool_)
    np.not_equal(prior_N[1:], prior_N[:-1], out=is_first_N[1:])
    return is_first_N


def _are_finite(boxes_P4: NDArray[np.float32], prior_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    # Never more boxes than there are: a threshold of 0 would copy each often.
    if len(prior_N) < len(boxes_P4):
        return np.logical_and.reduce(np.isfinite(boxes_P4[prior_N]), axis=1)
    return np.logical_and.reduce(np.isfinite(boxes_P4), axis=1)[prior_N]
