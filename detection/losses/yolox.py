"""The loss of YOLOX over a batch: box, objectness, class, and an L1 term for the last epochs.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", https://arxiv.org/abs/2107.08430

Background priors are weighted with 0 instead of being cut out, so no step has to wait for the device.

Shape suffixes: B = images, P = priors, K = 4 box offsets + 1 objectness + classes, G = ground-truth boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from detection.assigners.matching import Assignment
from detection.assigners.simota import Predictions, SimOta
from detection.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from detection.families.yolox import YoloxAssignerConfig, YoloxLossConfig
from detection.losses.iou import iou_loss
from detection.losses.loss_terms import LossTerms
from detection.losses.normaliser import global_mean
from detection.priors import Priors, decode_offsets, encode_offsets
from detection.targets import Targets


class YoloxLoss:
    """Assigns priors and compares them with what they should predict. In float32 even under autocast."""

    def __init__(self, assigner: YoloxAssignerConfig, config: YoloxLossConfig) -> None:
        self.assigner = SimOta(assigner)
        self.config = config

    def __call__(self, raw_BPK: Tensor, priors: Priors, targets: Targets, *, tail: bool) -> LossTerms:
        """Return the terms `box`, `objectness`, `class` and `l1`, and the statistic `assigned`.

        `assigned` is the number of foreground priors per ground-truth box. The L1 term is 0 unless the
        configuration wants it at this moment (`tail`).
        """
        with torch.autocast(raw_BPK.device.type, enabled=False):
            return self._float32_loss(raw_BPK.float(), priors, targets.with_a_row(), tail=tail)

    def _float32_loss(self, raw_BPK: Tensor, priors: Priors, targets: Targets, *, tail: bool) -> LossTerms:
        num_classes = raw_BPK.shape[2] - 5
        offsets_BP4, objectness_BP1, classes_BPC = raw_BPK.split((4, 1, num_classes), dim=2)
        objectness_BP = objectness_BP1.squeeze(2)
        predictions = Predictions(
            cxcywh_to_xyxy(decode_offsets(offsets_BP4.detach(), priors)),
            objectness_BP.detach(),
            classes_BPC.detach(),
        )
        assignment = self.assigner.assign(predictions, priors, targets)
        foreground_BP = assignment.foreground_BP.float()
        num_foreground = foreground_BP.sum()
        box, l1 = self._box_terms(offsets_BP4, priors, targets, assignment, tail=tail)
        terms = {
            "box": self.config.box_weight * box,
            "objectness": functional.binary_cross_entropy_with_logits(
                objectness_BP, foreground_BP, reduction="sum"
            ),
            "class": class_loss(classes_BPC, targets, assignment),
            "l1": l1,
        }
        counts = torch.stack((num_foreground, targets.valid_BG.sum().float()))
        normaliser, num_boxes = global_mean(counts).unbind()
        return LossTerms(
            {name: term / normaliser for name, term in terms.items()},
            {"assigned": normaliser / num_boxes},
        )

    def _box_terms(
        self, offsets_BP4: Tensor, priors: Priors, targets: Targets, assignment: Assignment, *, tail: bool
    ) -> tuple[Tensor, Tensor]:
        foreground_BP = assignment.foreground_BP
        # Background offsets may be anything, even overflow: they are cut off before the exponential.
        own_BP4 = torch.where(foreground_BP.unsqueeze(2), offsets_BP4, 0)
        index_BP4 = assignment.gt_index_BP.clamp(min=0).unsqueeze(2).expand(-1, -1, 4)
        target_BP4 = xyxy_to_cxcywh(targets.boxes_BG4).gather(1, index_BP4)
        box_BP = iou_loss(
            decode_offsets(own_BP4, priors), target_BP4, kind=self.config.box, box_format="cxcywh"
        )
        box = (box_BP * foreground_BP).sum()
        if not (self.config.l1 == "always" or (self.config.l1 == "tail" and tail)):
            return box, 0 * box
        l1_BP = (own_BP4 - encode_offsets(target_BP4, priors)).abs().sum(dim=2)
        return box, (l1_BP * foreground_BP).sum()


def class_loss(classes_BPC: Tensor, targets: Targets, assignment: Assignment) -> Tensor:
    """Return the summed binary cross entropy of foreground priors against IoU at the class of their box.

    Written as softplus(z) summed over classes, minus IoU * z of the box's class.
    """
    label_BP = targets.labels_BG.gather(1, assignment.gt_index_BP.clamp(min=0))
    own_logit_BP = classes_BPC.gather(2, label_BP.unsqueeze(2)).squeeze(2)
    loss_BP = functional.softplus(classes_BPC).sum(dim=2) - assignment.iou_BP * own_logit_BP
    return (loss_BP * assignment.foreground_BP).sum()
