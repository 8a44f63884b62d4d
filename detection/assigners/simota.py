"""SimOTA label assignment: decide which prior must predict which ground-truth box.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", section 2.1, https://arxiv.org/abs/2107.08430;
a simplification of Ge et al., "OTA", https://arxiv.org/abs/2103.14259.

A whole batch is matched at once, without a loop and without waiting for the device: every step works on
padded tensors of a shape known beforehand.

Shape suffixes: B = images, G = ground-truth boxes (padded), P = priors, C = classes, K = top candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detection.boxes import pairwise_iou
from detection.priors import Priors
from detection.targets import Targets
from detection.training.config import CENTRE_RADIUS, YoloxAssignerConfig

BACKGROUND = -1
TINY = 1e-8
LOWEST_LOG = -100.0
"""Logarithms in the class cost end here, so that a hopeless prediction has a finite cost."""
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

    @property
    def foreground_BP(self) -> Tensor:
        return self.gt_index_BP != BACKGROUND


@dataclass(frozen=True, slots=True)
class Geometry:
    """Which priors lie where a box could be predicted."""

    own_BGP: Tensor
    """True where the prior is a candidate because of this box."""
    good_BGP: Tensor
    """True where the pair goes without the penalty."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the network says at each prior, decoded and without gradient; float32."""

    boxes_BP4: Tensor
    """xyxy, pixels."""
    objectness_BP: Tensor
    """Logits."""
    classes_BPC: Tensor
    """Logits."""


class SimOta:
    """Matches priors with boxes by the cost of what the network predicts now."""

    def __init__(self, config: YoloxAssignerConfig) -> None:
        self.config = config
        self.centre_radius = config.centre_radius or CENTRE_RADIUS[config.rule]

    @torch.no_grad()
    def assign(self, predictions: Predictions, priors: Priors, targets: Targets) -> Assignment:
        """Match a batch; `targets` needs at least one row, valid or not.

        A box without a prior of its own (outside the picture, or too thin between centres) gets nothing.

        Differs from the reference: such boxes are dropped instead of crashing or taking another box's prior;
        penalised pairs keep their order; ties go to the lower prior.
        """
        geometry = self.geometry(priors, targets)
        kept_BG = targets.valid_BG & geometry.own_BGP.any(dim=2)
        candidate_BP = (geometry.own_BGP & kept_BG.unsqueeze(2)).any(dim=1)
        available_BGP = kept_BG.unsqueeze(2) & candidate_BP.unsqueeze(1)
        iou_BGP = pairwise_iou(targets.boxes_BG4, predictions.boxes_BP4)
        cost_BGP = self.cost(predictions, targets, iou_BGP)
        rank_BGP = order_pairs(cost_BGP, geometry.good_BGP, available_BGP)
        k_BG = dynamic_k(iou_BGP * available_BGP, self.config.top_candidates)
        gt_index_BP = match_dynamic_k(rank_BGP, k_BG, available_BGP, self.config.top_candidates)
        matched_BP = iou_BGP.gather(1, gt_index_BP.clamp(min=0).unsqueeze(1)).squeeze(1)
        return Assignment(gt_index_BP, matched_BP * (gt_index_BP != BACKGROUND))

    def geometry(self, priors: Priors, targets: Targets) -> Geometry:
        """Compare each prior's centre with each box and with the surroundings of the box's centre."""
        x_P, y_P = priors.centres_P2.unbind(1)
        x1_BG1, y1_BG1, x2_BG1, y2_BG1 = targets.boxes_BG4.unsqueeze(2).unbind(3)
        x_BGP = (x_P - (x1_BG1 + x2_BG1) / 2).abs_()
        y_BGP = (y_P - (y1_BG1 + y2_BG1) / 2).abs_()
        radius_P = self.centre_radius * priors.strides_P1.squeeze(1)
        in_centre_BGP = (x_BGP < radius_P).logical_and_(y_BGP < radius_P)
        if self.config.rule == "center15":
            return Geometry(own_BGP=in_centre_BGP, good_BGP=in_centre_BGP)
        in_box_BGP = (x_BGP < (x2_BG1 - x1_BG1) / 2).logical_and_(y_BGP < (y2_BG1 - y1_BG1) / 2)
        return Geometry(own_BGP=in_box_BGP | in_centre_BGP, good_BGP=in_box_BGP & in_centre_BGP)

    def cost(self, predictions: Predictions, targets: Targets, iou_BGP: Tensor) -> Tensor:
        """Return the cost [B, G, P] of each pair, without the penalty; never negative."""
        iou_cost_BGP = (iou_BGP + TINY).log_().mul_(-self.config.iou_cost_weight)
        # Rounding may leave a perfect pair a hair below zero; `order_pairs` reads bits and wants no sign.
        return iou_cost_BGP.add_(class_cost(predictions, targets.labels_BG)).abs_()


def class_cost(predictions: Predictions, labels_BG: Tensor) -> Tensor:
    """Return the binary cross entropy [B, G, P] between sqrt(class * objectness) and each box's class.

    The sum over classes differs between the boxes of an image only in the box's own class, so it is taken
    once per prior and never for every pair.
    """
    joint_BPC = (predictions.classes_BPC.sigmoid() * predictions.objectness_BP.sigmoid().unsqueeze(2)).sqrt_()
    absent_BPC = (-joint_BPC).log1p_().clamp_(min=LOWEST_LOG).neg_()
    present_BPC = joint_BPC.log_().clamp_(min=LOWEST_LOG).neg_()
    own_BCP = present_BPC.sub_(absent_BPC).transpose(1, 2)
    image_B1 = torch.arange(len(labels_BG), device=labels_BG.device).unsqueeze(1)
    return own_BCP[image_B1, labels_BG].add_(absent_BPC.sum(dim=2).unsqueeze(1))


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

    IoUs of pairs that are not available must be 0.
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
