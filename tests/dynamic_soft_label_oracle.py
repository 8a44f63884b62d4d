"""Dynamic soft label assignment as it is specified: one pair at a time, in Python's own numbers."""

from __future__ import annotations

import math

from torch import Tensor

from detection.assigners.matching import BACKGROUND
from detection.families.nanodet_plus import NanoDetAssignerConfig
from detection.priors import Priors
from detection.targets import Targets
from tests.simota_oracle import overlap


class SlowDynamicSoftLabel:
    """The assignment of one image of a batch."""

    def __init__(
        self,
        boxes_BP4: Tensor,
        logits_BPC: Tensor,
        priors: Priors,
        targets: Targets,
        config: NanoDetAssignerConfig,
        image: int,
    ) -> None:
        self.config = config
        self.corners = priors.corners_P2.double().tolist()
        self.strides = priors.strides_P1[:, 0].double().tolist()
        self.predicted = boxes_BP4[image].double().tolist()
        self.logits = logits_BPC[image].double().tolist()
        self.boxes = targets.boxes_BG4[image].double().tolist()
        self.labels = targets.labels_BG[image].tolist()
        self.valid = [box for box, is_box in enumerate(targets.valid_BG[image].tolist()) if is_box]
        everywhere = range(len(self.corners))
        self.candidates = [
            prior for prior in everywhere if any(self.inside(box, prior) for box in self.valid)
        ]

    def inside(self, box: int, prior: int) -> bool:
        x1, y1, x2, y2 = self.boxes[box]
        x, y = self.corners[prior]
        return x1 < x < x2 and y1 < y < y2

    def of(self, box: int) -> list[int]:
        """Return the priors that the box may take."""
        if self.config.own_box_only:
            return [prior for prior in self.candidates if self.inside(box, prior)]
        return self.candidates

    def iou(self, box: int, prior: int) -> float:
        return overlap(self.boxes[box], self.predicted[prior])

    def cost(self, box: int, prior: int) -> float:
        iou, of_classes = self.iou(box, prior), 0.0
        for label, logit in enumerate(self.logits[prior]):
            target = iou if label == self.labels[box] else 0.0
            score = 1 / (1 + math.exp(-logit))
            entropy = -target * math.log(score) - (1 - target) * math.log(1 - score)
            of_classes += entropy * (target - score) ** 2
        return of_classes - self.config.iou_cost_weight * math.log(iou + 1e-7) + self.centre_cost(box, prior)

    def centre_cost(self, box: int, prior: int) -> float:
        if not self.config.soft_centre_prior:
            return 0.0
        x1, y1, x2, y2 = self.boxes[box]
        x, y = self.corners[prior]
        return 10 ** (math.hypot(x - (x1 + x2) / 2, y - (y1 + y2) / 2) / self.strides[prior] - 3)

    def taken_by(self, box: int) -> list[int]:
        """Return the priors that the box wants."""
        largest = sorted((self.iou(box, prior) for prior in self.candidates), reverse=True)
        k = max(1, math.floor(sum(largest[: self.config.top_candidates])))
        return sorted(self.of(box), key=lambda prior: (self.cost(box, prior), prior))[:k]

    def assign(self) -> tuple[list[int], list[float]]:
        """Return the box of every prior, or BACKGROUND, and the IoU with it, or 0."""
        wanted: dict[int, list[int]] = {}
        for box in self.valid:
            for prior in self.taken_by(box):
                wanted.setdefault(prior, []).append(box)
        boxes, ious = [BACKGROUND] * len(self.corners), [0.0] * len(self.corners)
        for prior, wanting in wanted.items():
            contenders = [box for box in self.valid if prior in self.of(box)] if len(wanting) > 1 else wanting
            boxes[prior] = min(contenders, key=lambda box, at=prior: (self.cost(box, at), box))
            ious[prior] = self.iou(boxes[prior], prior)
        return boxes, ious
