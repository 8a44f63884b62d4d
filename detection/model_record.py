"""Everything about a model but its numbers: stored beside its weights, enough to serve it. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass, field

from detection.input_convention import InputConvention


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """What a predictor must know about a weights file; written as `model.json` with every model.

    An exported graph takes `images` [B, 3, H, W] float32 (prepared by `input_convention`) and returns
    `boxes` [B, P, 4] (xyxy, pixels of the input) and `scores` [B, P, C] in [0, 1].
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
