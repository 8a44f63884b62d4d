"""NanoDet-Plus: its options, and the published recipe with its rule for short runs. Plain Python.

RangiLyu, "NanoDet-Plus", https://github.com/RangiLyu/nanodet
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from detection.architectures import Architecture
from detection.families.family import FAMILIES, Family
from detection.input_convention import NANODET_KEEP_RATIO, NANODET_STRETCH, InputConvention, Resize
from detection.training.checks import MOST_ZOOM, range_check
from detection.training.config import (
    STRICT,
    AssignerConfig,
    AugmentationConfig,
    DetectorConfig,
    Fraction,
    LossConfig,
    OptimizerConfig,
    OptimizerKind,
    Positive,
    Range,
    ScheduleConfig,
    ScheduleKind,
    Truth,
)

DETACH_EPOCH = 10
ADAMW_DECAY = 0.05
MOST_FACTOR = 10.0
"""Colours multiplied further are all white or all black."""


@dataclass(frozen=True, kw_only=True)
class NanoDetOptimizerConfig(OptimizerConfig):
    """The optimizer; null takes the recipe's value."""

    __pydantic_config__: ClassVar = STRICT
    kind: OptimizerKind = OptimizerKind.ADAMW
    decay_norms: Truth = True
    decay_biases: Truth = True
    clip_norm: Positive | None = 35.0


@dataclass(frozen=True, kw_only=True)
class NanoDetScheduleConfig(ScheduleConfig):
    """The learning rate over the run; null takes the recipe's value."""

    __pydantic_config__: ClassVar = STRICT
    kind: ScheduleKind = ScheduleKind.NANODET


@dataclass(frozen=True, kw_only=True)
class NanoDetAssignerConfig(AssignerConfig):
    """Dynamic soft label assignment: which prior must predict which box."""

    __pydantic_config__: ClassVar = STRICT
    top_candidates: Annotated[int, Ge(1), Le(1000)] = 13
    """How many of a box's largest IoUs decide how many priors it gets."""
    iou_cost_weight: Annotated[float, Ge(0), Le(1000)] = 3.0
    """Weight of the overlap beside the classes in the cost of a pair."""
    soft_centre_prior: Truth = False
    """Priors far from a box's centre cost more."""
    own_box_only: Truth = False
    """A box takes only priors that lie inside it."""
    ignore_overlap: Fraction | None = None
    """Priors whose box lies in a crowd by more than this are neither right nor wrong; null is never."""
    self_assign_epoch: Annotated[int, Ge(0), Le(10_000)] | None = None
    """From this epoch on, counted from 0, the main head assigns for itself; null, or one that the training
    does not reach, is never."""


@dataclass(frozen=True, kw_only=True)
class NanoDetLossConfig(LossConfig):
    """The loss terms of NanoDet-Plus."""

    __pydantic_config__: ClassVar = STRICT
    qfl_weight: Annotated[float, Ge(0), Le(1000)] = 1.0
    """Weight of the quality focal loss: classes and quality in one."""
    giou_weight: Annotated[float, Ge(0), Le(1000)] = 2.0
    """Weight of the generalised IoU of the boxes."""
    dfl_weight: Annotated[float, Ge(0), Le(1000)] = 0.25
    """Weight of the distribution focal loss of the boxes' sides."""
    detach_epoch: Annotated[int, Ge(0), Le(10_000)] | None = None
    """From this epoch on, counted from 0, the auxiliary branch no longer teaches backbone and neck; one that
    the training does not reach is never, null is 10 and in a short run at most half of its epochs."""


@dataclass(frozen=True, kw_only=True)
class NanoDetAugmentationConfig(AugmentationConfig):
    """What may happen to a training picture; a probability of 0 turns a step off, null is the recipe."""

    __pydantic_config__: ClassVar = STRICT
    scale: Range | None = None
    """Zoom about the picture's centre."""
    stretch: Range | None = None
    """Further zoom of width and height, each drawn by itself."""
    translate: Annotated[float, Ge(0), Le(0.9)] | None = None
    """Largest shift, as a fraction of the picture."""
    rotate_degrees: Annotated[float, Ge(0), Le(180)] = 0.0
    """Largest turn, either way."""
    shear_degrees: Annotated[float, Ge(0), Le(45)] = 0.0
    """Largest shear along each axis, either way."""
    perspective: Annotated[float, Ge(0), Le(0.4)] = 0.0
    """Largest tilt about each axis: by so much an edge is nearer or farther than the centre."""
    colour: Fraction = 0.5
    """Probability of each of the three colour steps."""
    brightness: Fraction = 0.2
    """Largest change, as a fraction of full brightness."""
    contrast: Range = (0.6, 1.4)
    """Factor of all values."""
    saturation: Range = (0.5, 1.2)
    """Factor of the saturation."""
    keep_ratio: Truth | None = None
    """Whether the input keeps the proportions of a picture, in training and in serving; null is as the
    weights that the training starts from were trained, and false for random ones."""


@dataclass(frozen=True, kw_only=True)
class NanoDetConfig(DetectorConfig):
    """Everything that decides what a training of a NanoDet-Plus computes, besides the pictures."""

    __pydantic_config__: ClassVar = STRICT
    optimizer: NanoDetOptimizerConfig = field(default_factory=NanoDetOptimizerConfig)
    schedule: NanoDetScheduleConfig = field(default_factory=NanoDetScheduleConfig)
    assigner: NanoDetAssignerConfig = field(default_factory=NanoDetAssignerConfig)
    loss: NanoDetLossConfig = field(default_factory=NanoDetLossConfig)
    augmentation: NanoDetAugmentationConfig = field(default_factory=NanoDetAugmentationConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """How far a recipe moves things in a picture."""

    scale: tuple[float, float]
    stretch: tuple[float, float]
    translate: float


PUBLISHED = Moves(scale=(0.6, 1.4), stretch=(0.8, 1.2), translate=0.2)
SHORT_RUN = Moves(scale=(0.8, 1.2), stretch=(1.0, 1.0), translate=0.1)


def complete(config: NanoDetConfig, architecture: Architecture) -> NanoDetConfig:
    """Return a configuration with NanoDet-Plus' own options filled in."""
    return replace(
        config,
        optimizer=_optimizer(config.optimizer),
        loss=_loss(config),
        augmentation=_augmentation(config),
    )


def _optimizer(chosen: NanoDetOptimizerConfig) -> NanoDetOptimizerConfig:
    if chosen.weight_decay is None and chosen.kind is OptimizerKind.ADAMW:
        return replace(chosen, weight_decay=ADAMW_DECAY)
    return chosen


def _loss(config: NanoDetConfig) -> NanoDetLossConfig:
    if config.loss.detach_epoch is not None:
        return config.loss
    short_run = (config.epochs + 1) // 2
    return replace(config.loss, detach_epoch=min(DETACH_EPOCH, short_run))


def _augmentation(config: NanoDetConfig) -> NanoDetAugmentationConfig:
    chosen, recipe = config.augmentation, SHORT_RUN if config.is_short else PUBLISHED
    return replace(
        chosen,
        scale=chosen.scale or recipe.scale,
        stretch=chosen.stretch or recipe.stretch,
        translate=recipe.translate if chosen.translate is None else chosen.translate,
    )


def begin_with(config: NanoDetConfig, inherited: InputConvention) -> NanoDetConfig:
    """Return a configuration that says how pictures are brought to the input."""
    if config.augmentation.keep_ratio is not None:
        return config
    keep_ratio = inherited.resize is not Resize.STRETCH
    return replace(config, augmentation=replace(config.augmentation, keep_ratio=keep_ratio))


def convention(config: NanoDetConfig, inherited: InputConvention) -> InputConvention:
    """Return how the trained model sees pictures: colours stay those of the weights it starts from."""
    if config.augmentation.keep_ratio in (None, inherited.resize is not Resize.STRETCH):
        return inherited
    chosen = NANODET_KEEP_RATIO if config.augmentation.keep_ratio else NANODET_STRETCH
    return replace(inherited, resize=chosen.resize, pad_value=chosen.pad_value)


NANODET_PLUS = Family(
    name="nanodet-plus",
    config=NanoDetConfig,
    complete=complete,
    checks=(
        range_check("scale", MOST_ZOOM),
        range_check("stretch", MOST_ZOOM),
        range_check("contrast", MOST_FACTOR),
        range_check("saturation", MOST_FACTOR),
    ),
    begin_with=begin_with,
    convention=convention,
)
FAMILIES.add(NANODET_PLUS.name, NANODET_PLUS)
