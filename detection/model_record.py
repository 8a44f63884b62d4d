"""Everything about a model but its numbers: stored beside its weights, enough to serve it. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass, field

from detection.input_convention import InputConvention
from detection.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRule:
    """Which square around a box a classifier sees: side = longer side of the box * `enlarge` + `margin`.

    The rule is published in pixels of the detector's input, so what it cuts out of a picture depends on the
    size at which the detector sees the picture.
    """

    enlarge: float = 1.3
    margin: float = 30.0
    """Pixels of the detector's input."""
    detector_input_size: int = 640
    """Side of the square detector input that is assumed where no detector is: for labelled boxes."""


PUBLISHED_CROP = CropRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """What a predictor must know about a weights file; written as `model.json` with every model.

    An exported graph takes `images` [B, 3, H, W] float32 (prepared by `input_convention`). That of a detector
    returns `boxes` [B, P, 4] (xyxy, pixels of the input) and `scores` [B, P, C] in [0, 1], that of a
    classifier `probabilities` [B, C], whose sum over the classes is 1.
    """

    architecture: str
    classes: tuple[str, ...]
    input_size_hw: tuple[int, int]
    input_convention: InputConvention = field(default_factory=InputConvention)
    nms_iou: float = 0.65
    """Boxes of one class that overlap a better one by more than this are dropped."""
    one_label_per_prior: bool = True
    """True: a prior names its best class only (YOLOX). False: every class above the threshold."""
    evaluation_score_threshold: float = 0.001
    evaluation_max_detections: int = 1000
    """Which detections of a picture an evaluation counts, as those of the published figures do."""
    task: Task = Task.DETECT
    """Of a classifier the four fields above mean nothing, of a detector the two below."""
    crop: CropRule | None = None
    """What a classifier sees of a box."""
    attribute: str | None = None
    """Which attribute of a box a classifier names; None is what the box shows."""
