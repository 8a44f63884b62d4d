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

from detection.assigners.matching import BACKGROUND, Assignment, dynamic_k, match_dynamic_k, order_pairs
from detection.boxes import pairwise_iou
from detection.families.yolox import CENTRE_RADIUS, YoloxAssignerConfig
from detection.priors import Priors
from detection.targets import Targets

TINY = 1e-8
LOWEST_LOG = -100.0
"""Logarithms in the class cost end here, so that a hopeless prediction has a finite cost."""


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
