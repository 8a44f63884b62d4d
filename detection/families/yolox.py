"""YOLOX: its options, and the published recipe with its rule for short runs. Plain Python.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", https://arxiv.org/abs/2107.08430
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from detection.architectures import Architecture
from detection.families.family import FAMILIES, Family
from detection.training.checks import MOST_ZOOM, range_check
from detection.training.config import (
    STRICT,
    AssignerConfig,
    AugmentationConfig,
    DetectorConfig,
    Fraction,
    LossConfig,
    Positive,
    Range,
    ScheduleConfig,
)

TAIL_EPOCHS = 15
SHORT_TAIL = 0.15
"""Of the epochs of a short run."""

CENTRE_RADIUS = {"inbox25": 2.5, "center15": 1.5}
"""Of each rule, in strides."""


@dataclass(frozen=True, kw_only=True)
class YoloxAssignerConfig(AssignerConfig):
    """SimOTA: which prior must predict which box."""

    __pydantic_config__: ClassVar = STRICT
    rule: Literal["inbox25", "center15"] = "inbox25"
    """Which priors may predict a box: inside it or near its centre (`inbox25`), only near it (`center15`)."""
    centre_radius: Positive | None = None
    """Radius around a box's centre, in strides; null is the rule's: 2.5 or 1.5."""
    top_candidates: Annotated[int, Ge(1), Le(1000)] = 10
    """So many of the best overlaps are summed up to say how many priors a box gets."""
    iou_cost_weight: Annotated[float, Ge(0), Le(1000)] = 3.0
    """Weight of the overlap in the cost of a prior, beside that of its class."""


@dataclass(frozen=True, kw_only=True)
class YoloxLossConfig(LossConfig):
    """The loss terms of YOLOX."""

    __pydantic_config__: ClassVar = STRICT
    box: Literal["iou", "giou"] = "iou"
    """Loss of a box by its overlap: `iou` or `giou`."""
    box_weight: Annotated[float, Ge(0), Le(1000)] = 5.0
    """Weight of that loss, beside class and objectness."""
    l1: Literal["tail", "always", "never"] = "tail"
    """When the L1 term of the boxes counts: in the last epochs (`tail`), `always` or `never`."""


@dataclass(frozen=True, kw_only=True)
class YoloxAugmentationConfig(AugmentationConfig):
    """What may happen to a training picture; a probability of 0 turns a step off, null is the recipe."""

    __pydantic_config__: ClassVar = STRICT
    mosaic: Fraction | None = None
    """Probability of joining four pictures, followed by the affine step."""
    mosaic_scale: Range | None = None
    """Zoom of the affine step after a mosaic."""
    affine: Fraction | None = None
    """Probability of the affine step for a picture without mosaic."""
    affine_scale: Range = (0.7, 1.0)
    """Zoom of the affine step without mosaic, placed at random inside the input."""
    rotate_degrees: Annotated[float, Ge(0), Le(180)] = 10.0
    """Largest turn after a mosaic, either way."""
    shear_degrees: Annotated[float, Ge(0), Le(45)] = 2.0
    """Largest shear after a mosaic, either way."""
    translate: Annotated[float, Ge(0), Le(0.9)] = 0.1
    """Largest shift after a mosaic, as a fraction of the input."""
    mixup: Fraction | None = None
    """Probability of blending a second picture into a mosaic."""
    mixup_scale: Range = (0.5, 1.5)
    """Zoom of that second picture."""
    hsv: Fraction | None = None
    """Probability of the colour step."""
    hue: Annotated[int, Ge(0), Le(90)] = 5
    """Largest shift of the hue by the colour step, either way, in steps of two degrees."""
    saturation: Annotated[int, Ge(0), Le(255)] = 30
    """Largest shift of the saturation, of 255."""
    value: Annotated[int, Ge(0), Le(255)] = 30
    """Largest shift of the brightness, of 255."""


@dataclass(frozen=True, kw_only=True)
class YoloxConfig(DetectorConfig):
    """Everything that decides what a training of a YOLOX computes, besides the pictures."""

    __pydantic_config__: ClassVar = STRICT
    architecture: str = "yolox-nano"
    assigner: YoloxAssignerConfig = field(default_factory=YoloxAssignerConfig)
    loss: YoloxLossConfig = field(default_factory=YoloxLossConfig)
    augmentation: YoloxAugmentationConfig = field(default_factory=YoloxAugmentationConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPictures:
    """What the published recipe of an architecture does with its pictures."""

    mosaic: float
    mixup: float
    mosaic_scale: tuple[float, float]
    multi_scale_range: tuple[int, int]


SMALL = PublishedPictures(mosaic=1.0, mixup=0.0, mosaic_scale=(0.5, 1.5), multi_scale_range=(320, 640))
LARGE = PublishedPictures(mosaic=1.0, mixup=1.0, mosaic_scale=(0.1, 2.0), multi_scale_range=(480, 800))
PICTURES = {"yolox-nano": replace(SMALL, mosaic=0.5), "yolox-tiny": SMALL}
"""Of the architectures that are not `LARGE`."""


def complete(config: YoloxConfig, architecture: Architecture) -> YoloxConfig:
    """Return a configuration with YOLOX's own options filled in."""
    return replace(
        config,
        schedule=_schedule(config),
        assigner=_assigner(config.assigner),
        augmentation=_augmentation(config, architecture),
    )


def _schedule(config: YoloxConfig) -> ScheduleConfig:
    chosen = config.schedule
    if chosen.no_aug_epochs is not None:
        return chosen
    tail = max(1, round(SHORT_TAIL * config.epochs)) if config.is_short else TAIL_EPOCHS
    return replace(chosen, no_aug_epochs=min(tail, TAIL_EPOCHS, config.epochs - 1))


def _assigner(chosen: YoloxAssignerConfig) -> YoloxAssignerConfig:
    return replace(chosen, centre_radius=chosen.centre_radius or CENTRE_RADIUS[chosen.rule])


def _augmentation(config: YoloxConfig, architecture: Architecture) -> YoloxAugmentationConfig:
    """Fill in the steps; a short run has no mosaic and a gentle affine step instead."""
    chosen, short = config.augmentation, config.is_short
    published = PICTURES.get(architecture.name, LARGE)

    def pick(value: float | None, short_run: float, full_run: float) -> float:
        return value if value is not None else (short_run if short else full_run)

    multi_scale_range = chosen.multi_scale_range
    if multi_scale_range is None and config.input_size in (None, architecture.input_size):
        multi_scale_range = published.multi_scale_range
    return replace(
        chosen,
        mosaic=pick(chosen.mosaic, 0.0, published.mosaic),
        mosaic_scale=chosen.mosaic_scale or published.mosaic_scale,
        affine=pick(chosen.affine, 1.0, 0.0),
        mixup=pick(chosen.mixup, 0.0, published.mixup),
        hsv=chosen.hsv if chosen.hsv is not None else 1.0,
        multi_scale=chosen.multi_scale if chosen.multi_scale is not None else not short,
        multi_scale_range=multi_scale_range,
    )


YOLOX = Family(
    name="yolox",
    config=YoloxConfig,
    complete=complete,
    checks=(
        range_check("mosaic_scale", MOST_ZOOM),
        range_check("affine_scale", MOST_ZOOM),
        range_check("mixup_scale", MOST_ZOOM),
    ),
)
FAMILIES.add(YOLOX.name, YOLOX)
