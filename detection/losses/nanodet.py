"""The loss of NanoDet-Plus over a batch: quality focal, generalised IoU and distribution focal.

RangiLyu, "NanoDet-Plus", https://github.com/RangiLyu/nanodet

Background priors are weighted with 0 instead of being cut out, so no step has to wait for the device.

Shape suffixes: B = images, P = priors, K = classes + 4 sides x bins, G = ground-truth boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detection.assigners.dynamic_soft_label import DynamicSoftLabel
from detection.assigners.matching import Assignment
from detection.distances import decode_distances, encode_distances, expected_distances
from detection.families.nanodet_plus import NanoDetAssignerConfig, NanoDetLossConfig
from detection.losses.focal import distribution_focal_loss, quality_focal_loss
from detection.losses.iou import iou_loss
from detection.losses.loss_terms import LossTerms
from detection.losses.normaliser import global_mean
from detection.priors import Priors
from detection.targets import Targets

SMALLEST_AREA = 1e-6
"""Square pixels."""
BELOW_LAST_BIN = 0.1
"""Distances end this far below the last bin, so that there is a bin above each."""
AUXILIARY = "aux_"


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """What one head says at each prior; float32."""

    logits_BPC: Tensor
    bins_BP4R: Tensor
    """Logits of the distribution over distances, per side."""
    boxes_BP4: Tensor
    """xyxy, pixels, not clipped."""

    @classmethod
    def of(cls, raw_BPK: Tensor, num_classes: int, priors: Priors) -> HeadOutput:
        """Split and decode the raw predictions of a head."""
        logits_BPC, bins = raw_BPK.float().split((num_classes, raw_BPK.shape[2] - num_classes), dim=2)
        bins_BP4R = bins.unflatten(2, (4, -1))
        return cls(logits_BPC, bins_BP4R, decode_distances(expected_distances(bins_BP4R), priors))


class NanoDetLoss:
    """Assigns priors and compares them with what they should predict. In float32 even under autocast."""

    def __init__(
        self, assigner: NanoDetAssignerConfig, config: NanoDetLossConfig, *, num_classes: int
    ) -> None:
        self.assigner = DynamicSoftLabel(assigner)
        self.config = config
        self.num_classes = num_classes

    def __call__(self, raw_by_head: tuple[Tensor, ...], priors: Priors, targets: Targets) -> LossTerms:
        """Return the terms `qfl`, `giou` and `dfl` of the main head, `aux_…` of the auxiliary one if it ran.

        Args:
            raw_by_head: raw predictions [B, P, K] of the main head, and of the auxiliary head, which then
                assigns for both.
        """
        with torch.autocast(priors.corners_P2.device.type, enabled=False):
            heads = [HeadOutput.of(raw_BPK, self.num_classes, priors) for raw_BPK in raw_by_head]
            targets = targets.with_a_row()
            guide = heads[-1]
            assignment = self.assigner.assign(
                guide.boxes_BP4.detach(), guide.logits_BPC.detach(), priors, targets
            )
            counts = torch.stack((assignment.foreground_BP.float().sum(), targets.valid_BG.sum().float()))
            foreground, num_boxes = global_mean(counts).unbind()
            terms = {
                prefix + name: term
                for prefix, head in zip(("", AUXILIARY), heads, strict=False)
                for name, term in self._terms(head, priors, targets, assignment, foreground).items()
            }
        return LossTerms(terms, {"assigned": foreground / num_boxes})

    def _terms(
        self,
        head: HeadOutput,
        priors: Priors,
        targets: Targets,
        assignment: Assignment,
        foreground: Tensor,
    ) -> dict[str, Tensor]:
        certainty_BP = head.logits_BPC.detach().amax(dim=2).sigmoid() * assignment.foreground_BP
        certainty = global_mean(certainty_BP.sum())
        giou, dfl = self._box_losses(head, priors, targets, assignment)
        qfl = quality_focal_loss(head.logits_BPC, quality_targets(head.logits_BPC, targets, assignment))
        if assignment.ignored_BP is not None:
            qfl = qfl * ~assignment.ignored_BP.unsqueeze(2)
        return {
            "qfl": self.config.qfl_weight * qfl.sum() / foreground,
            "giou": self.config.giou_weight * (giou * certainty_BP).sum() / certainty,
            "dfl": self.config.dfl_weight * (dfl * certainty_BP.unsqueeze(2)).sum() / (4 * certainty),
        }

    def _box_losses(
        self, head: HeadOutput, priors: Priors, targets: Targets, assignment: Assignment
    ) -> tuple[Tensor, Tensor]:
        """Return the losses [B, P] of the boxes and [B, P, 4] of their sides; of no meaning on background."""
        index_BP4 = assignment.gt_index_BP.clamp(min=0).unsqueeze(2).expand(-1, -1, 4)
        target_BP4 = targets.boxes_BG4.gather(1, index_BP4)
        giou_BP = iou_loss(head.boxes_BP4, target_BP4, kind="giou", smallest_area=SMALLEST_AREA)
        last_bin = head.bins_BP4R.shape[3] - 1
        distances_BP4 = encode_distances(target_BP4, priors).clamp(0, last_bin - BELOW_LAST_BIN)
        return giou_BP, distribution_focal_loss(head.bins_BP4R, distances_BP4)


def quality_targets(logits_BPC: Tensor, targets: Targets, assignment: Assignment) -> Tensor:
    """Return the targets [B, P, C]: the overlap at the class of a foreground prior's box, 0 elsewhere."""
    label_BP1 = targets.labels_BG.gather(1, assignment.gt_index_BP.clamp(min=0)).unsqueeze(2)
    return torch.zeros_like(logits_BPC).scatter_(2, label_BP1, assignment.iou_BP.unsqueeze(2))
