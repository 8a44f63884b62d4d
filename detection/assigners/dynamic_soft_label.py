"""Dynamic soft label assignment: decide which prior must predict which box, by cost and overlap.

RangiLyu, "NanoDet-Plus", https://github.com/RangiLyu/nanodet; the soft centre prior is that of Lyu et al.,
"RTMDet", https://arxiv.org/abs/2212.07784

A whole batch is matched at once, without a loop and without waiting for the device.

Shape suffixes: B = images, G = ground-truth boxes (padded), P = priors, C = classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from detection.assigners.matching import BACKGROUND, Assignment, dynamic_k, match_dynamic_k, order_pairs
from detection.boxes import pairwise_iou, pairwise_share
from detection.families.nanodet_plus import NanoDetAssignerConfig
from detection.priors import Priors
from detection.targets import Targets

TINY = 1e-7
CENTRE_BASE, CENTRE_OFFSET = 10.0, 3.0
"""A prior three cells from a box's centre costs 1 more, and every further cell ten times as much."""


class DynamicSoftLabel:
    """Matches priors with boxes by the cost of what a network predicts now."""

    def __init__(self, config: NanoDetAssignerConfig) -> None:
        self.config = config

    @torch.no_grad()
    def assign(self, boxes_BP4: Tensor, logits_BPC: Tensor, priors: Priors, targets: Targets) -> Assignment:
        """Match a batch; `targets` needs at least one row, valid or not.

        A prior is a candidate when its corner lies strictly inside any box of the image, its own or not.

        Args:
            boxes_BP4: predicted boxes, xyxy, pixels of the input, not clipped.
            logits_BPC: predicted classes.
        """
        inside_BGP = inside_boxes(priors, targets)
        candidate_BGP = targets.valid_BG.unsqueeze(2) & inside_BGP.any(dim=1, keepdim=True)
        available_BGP = candidate_BGP & inside_BGP if self.config.own_box_only else candidate_BGP
        iou_BGP = pairwise_iou(targets.boxes_BG4, boxes_BP4)
        cost_BGP = self.cost(iou_BGP, logits_BPC, priors, targets)
        rank_BGP = order_pairs(cost_BGP, torch.ones_like(available_BGP), available_BGP)
        k_BG = dynamic_k(iou_BGP * candidate_BGP, self.config.top_candidates)
        gt_index_BP = match_dynamic_k(rank_BGP, k_BG, available_BGP, self.config.top_candidates)
        ignored_BP = self._ignored(boxes_BP4, inside_BGP.any(dim=1), targets)
        if ignored_BP is not None:
            gt_index_BP = gt_index_BP.masked_fill(ignored_BP, BACKGROUND)
        matched_BP = iou_BGP.gather(1, gt_index_BP.clamp(min=0).unsqueeze(1)).squeeze(1)
        return Assignment(gt_index_BP, matched_BP * (gt_index_BP != BACKGROUND), ignored_BP)

    def _ignored(self, boxes_BP4: Tensor, candidate_BP: Tensor, targets: Targets) -> Tensor | None:
        """Return which candidates predict a box that lies in a crowd, or None when none is asked for."""
        if self.config.ignore_overlap is None or targets.crowds_BR4 is None:
            return None
        share_BP = pairwise_share(boxes_BP4, targets.crowds_BR4).amax(dim=2)
        return candidate_BP & (share_BP > self.config.ignore_overlap)

    def cost(self, iou_BGP: Tensor, logits_BPC: Tensor, priors: Priors, targets: Targets) -> Tensor:
        """Return the cost [B, G, P] of each pair; never negative."""
        iou_cost_BGP = (iou_BGP + TINY).log_().mul_(-self.config.iou_cost_weight)
        cost_BGP = iou_cost_BGP.add_(soft_class_cost(logits_BPC, iou_BGP, targets.labels_BG))
        if self.config.soft_centre_prior:
            cost_BGP = cost_BGP + _centre_cost(priors, targets)
        # Rounding may leave a perfect pair a hair below zero; `order_pairs` reads bits and wants no sign.
        return cost_BGP.abs_()


def inside_boxes(priors: Priors, targets: Targets) -> Tensor:
    """Return a mask [B, G, P]: the cell's corner lies strictly inside the box; false for padding."""
    x_P, y_P = priors.corners_P2.unbind(1)
    x1_BG1, y1_BG1, x2_BG1, y2_BG1 = targets.boxes_BG4.unsqueeze(2).unbind(3)
    across_BGP = (x1_BG1 < x_P) & (x_P < x2_BG1)
    down_BGP = (y1_BG1 < y_P) & (y_P < y2_BG1)
    return across_BGP & down_BGP & targets.valid_BG.unsqueeze(2)


def soft_class_cost(logits_BPC: Tensor, iou_BGP: Tensor, labels_BG: Tensor) -> Tensor:
    """Return the focal binary cross entropy [B, G, P] against the pair's IoU at the box's class, 0 elsewhere.

    The sum over classes differs between the boxes of an image only in the box's own class, so it is taken
    once per prior and never for every pair.
    """
    absent_BPC = functional.softplus(logits_BPC) * logits_BPC.sigmoid().square()
    image_B1 = torch.arange(len(labels_BG), device=labels_BG.device).unsqueeze(1)
    own_logit_BGP = logits_BPC.transpose(1, 2)[image_B1, labels_BG]
    own_absent_BGP = absent_BPC.transpose(1, 2)[image_B1, labels_BG]
    entropy_BGP = functional.softplus(own_logit_BGP) - iou_BGP * own_logit_BGP
    present_BGP = entropy_BGP * (iou_BGP - own_logit_BGP.sigmoid()).square()
    return present_BGP + (absent_BPC.sum(dim=2).unsqueeze(1) - own_absent_BGP)


def _centre_cost(priors: Priors, targets: Targets) -> Tensor:
    centres_BG2 = (targets.boxes_BG4[..., :2] + targets.boxes_BG4[..., 2:]) / 2
    offsets_BGP2 = centres_BG2.unsqueeze(2) - priors.corners_P2
    cells_BGP = offsets_BGP2.norm(dim=3) / priors.strides_P1.squeeze(1)
    return CENTRE_BASE ** (cells_BGP - CENTRE_OFFSET)
