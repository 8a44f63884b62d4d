"""What the assigners share: every box takes its k cheapest priors, where k grows with overlap.

Ge et al., "OTA: Optimal Transport Assignment for Object Detection", https://arxiv.org/abs/2103.14259

A whole batch is matched at once, without a loop and without waiting for the device: every step works on
padded tensors of a shape known beforehand.

Shape suffixes: B = images, G = ground-truth boxes (padded), P = priors, K = top candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND = -1
UNAVAILABLE = 2**62
"""A rank behind every real one."""
PENALTY_BIT = 31
"""A float32 that is not negative has 31 bits; this one, above them, marks pairs of poor geometry."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What each prior must predict."""

    gt_index_BP: Tensor
    """Row of the image's ground-truth box, or BACKGROUND; int64."""
    iou_BP: Tensor
    """IoU of the prior's prediction with that box, 0 on background; float32."""
    ignored_BP: Tensor | None = None
    """True where a prior is neither right nor wrong, though it counts as background; None is nowhere."""

    @property
    def foreground_BP(self) -> Tensor:
        return self.gt_index_BP != BACKGROUND


def order_pairs(cost_BGP: Tensor, good_BGP: Tensor, available_BGP: Tensor) -> Tensor:
    """Return ranks [B, G, P], int64, in the order of (not available, penalised, cost).

    Costs are not negative, so their bits, read as an integer, order like the numbers. Adding a large penalty
    instead would round most of the cost away.
    """
    rank_BGP = cost_BGP.view(torch.int32).to(torch.int64)
    rank_BGP += (~good_BGP).to(torch.int64) << PENALTY_BIT
    return rank_BGP.masked_fill_(~available_BGP, UNAVAILABLE)


def dynamic_k(iou_BGP: Tensor, top_candidates: int) -> Tensor:
    """Return how many priors each box may take [B, G], int64: its largest IoUs summed, floored, at least 1.

    IoUs of priors that are no candidates must be 0.
    """
    num_candidates = min(top_candidates, iou_BGP.shape[2])
    largest_BGK = iou_BGP.topk(num_candidates, dim=2).values
    return largest_BGK.sum(dim=2).to(torch.int64).clamp_(1, num_candidates)


def match_dynamic_k(rank_BGP: Tensor, k_BG: Tensor, available_BGP: Tensor, top_candidates: int) -> Tensor:
    """Give every box its k first priors; return the box of each prior [B, P], or BACKGROUND.

    A prior wanted by several boxes goes to the box of the image that ranks first for it, be it one of them
    or not. Ties go to the lower prior, then to the lower box. A box may lose everything.
    """
    num_boxes, num_priors = rank_BGP.shape[1:]
    taken_BGP = _first_priors(rank_BGP, k_BG, min(top_candidates, num_priors)) & available_BGP
    contested_BP = taken_BGP.sum(dim=1) > 1
    contender_BGP = taken_BGP | (contested_BP.unsqueeze(1) & available_BGP)
    box_G1 = torch.arange(num_boxes, device=rank_BGP.device).unsqueeze(1)
    best_BP = (rank_BGP * num_boxes + box_G1).masked_fill_(~contender_BGP, UNAVAILABLE).amin(dim=1)
    return torch.where(taken_BGP.any(dim=1), best_BP % num_boxes, BACKGROUND)


def _first_priors(rank_BGP: Tensor, k_BG: Tensor, num_candidates: int) -> Tensor:
    """Return a mask [B, G, P] of each box's k lowest ranks, k being at most `num_candidates`."""
    num_priors = rank_BGP.shape[2]
    prior_P = torch.arange(num_priors, device=rank_BGP.device)
    # Unavailable ranks would overflow; they need no order among themselves.
    unique_BGP = (rank_BGP * num_priors + prior_P).masked_fill_(rank_BGP == UNAVAILABLE, UNAVAILABLE)
    first_BGK = unique_BGP.topk(num_candidates, dim=2, largest=False).indices
    within_BGK = torch.arange(num_candidates, device=rank_BGP.device) < k_BG.unsqueeze(2)
    return torch.zeros_like(rank_BGP, dtype=torch.bool).scatter_(2, first_BGK, within_BGK)
