"""SimOTA as the specification tells it: one pair at a time, in Python's own numbers. Slow and obvious."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detection.assigners.matching import BACKGROUND
from detection.assigners.simota import Predictions
from detection.families.yolox import YoloxAssignerConfig
from detection.priors import Priors
from detection.targets import Targets

Box = Sequence[float]


def overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union else 0.0


def limited_log(value: float) -> float:
    return max(math.log(value), -100.0) if value > 0 else -100.0


class SlowSimOta:
    """The assignment of one image of a batch."""

    def __init__(
        self,
        predictions: Predictions,
        priors: Priors,
        targets: Targets,
        config: YoloxAssignerConfig,
        image: int,
    ) -> None:
        self.config = config
        self.centres = priors.centres_P2.double().tolist()
        self.strides = priors.strides_P1[:, 0].double().tolist()
        self.predicted = predictions.boxes_BP4[image].double().tolist()
        objectness = predictions.objectness_BP[image].double().sigmoid().unsqueeze(1)
        joint = (predictions.classes_BPC[image].double().sigmoid() * objectness).sqrt()
        self.probabilities = joint.tolist()
        self.boxes = targets.boxes_BG4[image].double().tolist()
        self.labels = targets.labels_BG[image].tolist()
        valid = [box for box, is_box in enumerate(targets.valid_BG[image].tolist()) if is_box]
        everywhere = range(len(self.centres))
        self.kept = [box for box in valid if any(self.geometry(box, prior)[0] for prior in everywhere)]
        self.candidates = [
            prior for prior in everywhere if any(self.geometry(box, prior)[0] for box in self.kept)
        ]

    def geometry(self, box: int, prior: int) -> tuple[bool, bool]:
        """Return whether the prior is a candidate because of the box, and whether the pair is good."""
        x1, y1, x2, y2 = self.boxes[box]
        x, y = self.centres[prior]
        dx, dy = abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)
        centre_only = self.config.rule == "center15"
        radius = (self.config.centre_radius or (1.5 if centre_only else 2.5)) * self.strides[prior]
        in_centre = dx < radius and dy < radius
        in_box = dx < (x2 - x1) / 2 and dy < (y2 - y1) / 2
        return (in_centre, in_centre) if centre_only else (in_box or in_centre, in_box and in_centre)

    def iou(self, box: int, prior: int) -> float:
        return overlap(self.boxes[box], self.predicted[prior])

    def cost(self, box: int, prior: int) -> tuple[bool, float]:
        """Return whether the pair is penalised, and its cost without the penalty."""
        of_classes = sum(
            -limited_log(p if label == self.labels[box] else 1 - p)
            for label, p in enumerate(self.probabilities[prior])
        )
        of_overlap = -self.config.iou_cost_weight * math.log(self.iou(box, prior) + 1e-8)
        return not self.geometry(box, prior)[1], of_classes + of_overlap

    def taken_by(self, box: int) -> list[int]:
        """Return the priors that the box wants."""
        largest = sorted((self.iou(box, prior) for prior in self.candidates), reverse=True)
        k = max(1, math.floor(sum(largest[: self.config.top_candidates])))
        return sorted(self.candidates, key=lambda prior: (*self.cost(box, prior), prior))[:k]

    def assign(self) -> tuple[list[int], list[float]]:
        """Return the box of every prior, or BACKGROUND, and the IoU with it, or 0."""
        wanted: dict[int, list[int]] = {}
        for box in self.kept:
            for prior in self.taken_by(box):
                wanted.setdefault(prior, []).append(box)
        boxes, ious = [BACKGROUND] * len(self.centres), [0.0] * len(self.centres)
        for prior, wanting in wanted.items():
            contenders = wanting if len(wanting) == 1 else self.kept
            boxes[prior] = min(contenders, key=lambda box, at=prior: (*self.cost(box, at), box))
            ious[prior] = self.iou(boxes[prior], prior)
        return boxes, ious
