"""Focal losses for soft targets: quality focal for classes, distribution focal for box sides.

Li et al., "Generalized Focal Loss", https://arxiv.org/abs/2006.04388

Shape suffixes: N = predictions, C = classes, R = bins of a distance; leading dimensions may be added.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def quality_focal_loss(logits_NC: Tensor, targets_NC: Tensor, *, beta: float = 2.0) -> Tensor:
    """Return the loss [..., N, C] of class logits against qualities in [0, 1], most of which are 0.

    Binary cross entropy, weighted with |target - score| ** beta; the gradient flows through the weight too.
    """
    distance_NC = (targets_NC - logits_NC.sigmoid()).abs()
    entropy_NC = functional.binary_cross_entropy_with_logits(logits_NC, targets_NC, reduction="none")
    return entropy_NC * distance_NC.pow(beta)


def distribution_focal_loss(logits_NR: Tensor, targets_N: Tensor) -> Tensor:
    """Return the loss [..., N] of a distribution over the bins 0..R-1 against a distance in [0, R-1).

    The cross entropy of the two bins around the distance, weighted by how near each is.
    """
    lower_N = targets_N.to(torch.int64)
    share_N = targets_N - lower_N
    log_probability_NR = logits_NR.log_softmax(dim=-1)
    at_lower_N = log_probability_NR.gather(-1, lower_N.unsqueeze(-1)).squeeze(-1)
    at_upper_N = log_probability_NR.gather(-1, lower_N.unsqueeze(-1) + 1).squeeze(-1)
    return -((1 - share_N) * at_lower_N + share_N * at_upper_N)
