"""Classifiers of torchvision, as a second stage behind a detector: their options and recipe. Plain Python.

He et al., "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385
Howard et al., "Searching for MobileNetV3", https://arxiv.org/abs/1905.02244
Tan, Le, "EfficientNet", https://arxiv.org/abs/1905.11946
Liu et al., "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen

from detection.architectures import Architecture, classifier_architecture
from detection.families.family import FAMILIES, Family
from detection.input_convention import InputConvention
from detection.model_record import CropRule, ModelRecord
from detection.tasks import Task
from detection.training.checks import MOST_ZOOM, range_check
from detection.training.config import (
    RANDOM,
    STRICT,
    AugmentationConfig,
    Fraction,
    FreezeConfig,
    LossConfig,
    MeasuringConfig,
    OptimizerConfig,
    OptimizerKind,
    Range,
    ScheduleConfig,
    ScheduleKind,
    TrainingConfig,
)

ADAMW_DECAY = 0.05
LR_FROM_NOTHING, LR_FROM_WEIGHTS = 1e-3, 2e-4
"""Peak of Adam and AdamW. Weights that know something already are not to be thrown far away."""


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """What the classifier sees of a box: a square of the longer side * `enlarge` + `margin`, cut off at the
    border of the picture and stretched to the input. It belongs to the model: `/detect` cuts in this way."""

    __pydantic_config__: ClassVar = STRICT
    enlarge: Annotated[float, Ge(1), Le(10)] = 1.3
    """Factor of the longer side of the box."""
    margin: Annotated[float, Ge(0), Le(1000)] = 30.0
    """Added to the side, in pixels of the detector's input."""
    detector_input_size: Annotated[int, Ge(64), Le(2048)] = 640
    """Side of the square input of the detector that will find the boxes; in training and evaluation it says
    what `margin` means, in `/detect` the detector at hand does."""


@dataclass(frozen=True, kw_only=True)
class ClassifierFreezeConfig(FreezeConfig):
    """Parts that do not learn: no gradient, not in the optimizer, batch-norm statistics kept."""

    __pydantic_config__: ClassVar = STRICT
    parts: Annotated[tuple[Literal["backbone"], ...], MaxLen(16)] = ()
    """Which parts stay as they begin: `backbone` is all but the last layer; empty is none."""


@dataclass(frozen=True, kw_only=True)
class ClassifierOptimizerConfig(OptimizerConfig):
    """The optimizer; null takes the recipe's value."""

    __pydantic_config__: ClassVar = STRICT
    kind: OptimizerKind = OptimizerKind.ADAMW


@dataclass(frozen=True, kw_only=True)
class ClassifierScheduleConfig(ScheduleConfig):
    """The learning rate over the run; null takes the recipe's value."""

    __pydantic_config__: ClassVar = STRICT
    kind: ScheduleKind = ScheduleKind.WARMCOS


@dataclass(frozen=True, kw_only=True)
class ClassifierLossConfig(LossConfig):
    """Cross entropy."""

    __pydantic_config__: ClassVar = STRICT
    label_smoothing: Annotated[float, Ge(0), Le(0.9)] = 0.0
    """How much of each label is spread over all classes."""


@dataclass(frozen=True, kw_only=True)
class ClassifierAugmentationConfig(AugmentationConfig):
    """What may happen to a crop; a probability of 0 turns a step off."""

    __pydantic_config__: ClassVar = STRICT
    scale: Range = (0.8, 1.2)
    """Side of the square that is cut out, relative to that of the rule: detectors are never exact."""
    translate: Annotated[float, Ge(0), Le(0.5)] = 0.1
    """Largest shift of the square along each axis, relative to its side."""
    colour: Fraction = 0.5
    """Probability of the colour step."""
    hue: Annotated[int, Ge(0), Le(90)] = 2
    """Largest shift of the hue by the colour step, either way, in steps of two degrees."""
    saturation: Annotated[int, Ge(0), Le(255)] = 20
    """Largest shift of the saturation, of 255."""
    value: Annotated[int, Ge(0), Le(255)] = 20
    """Largest shift of the brightness, of 255."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(TrainingConfig):
    """Everything that decides what a training of a classifier computes, besides the pictures."""

    __pydantic_config__: ClassVar = STRICT
    task: Task = Task.CLASSIFY
    architecture: str = "resnet101"
    attribute: Annotated[str, MinLen(1), MaxLen(100)] | None = None
    """Which attribute of the boxes is learnt, as `GET /datasets/{id}` lists them; boxes without it are left
    out. Null is what the box shows, its class."""
    epochs: Annotated[int, Ge(1), Le(10_000)] = 30
    """How often every crop is seen."""
    crop: CropConfig = field(default_factory=CropConfig)
    """What is seen of a box."""
    freeze: ClassifierFreezeConfig = field(default_factory=ClassifierFreezeConfig)
    optimizer: ClassifierOptimizerConfig = field(default_factory=ClassifierOptimizerConfig)
    schedule: ClassifierScheduleConfig = field(default_factory=ClassifierScheduleConfig)
    loss: ClassifierLossConfig = field(default_factory=ClassifierLossConfig)
    augmentation: ClassifierAugmentationConfig = field(default_factory=ClassifierAugmentationConfig)
    evaluation: MeasuringConfig = field(default_factory=MeasuringConfig)


def complete(config: ClassifierConfig, architecture: Architecture) -> ClassifierConfig:
    """Return a configuration with a classifier's own options filled in."""
    chosen = config.optimizer
    if chosen.kind is OptimizerKind.SGD:
        return config
    recipe_lr = LR_FROM_NOTHING if config.init == RANDOM else LR_FROM_WEIGHTS
    lr = recipe_lr if chosen.lr is None and chosen.lr_per_image is None else chosen.lr
    decay = chosen.weight_decay
    if decay is None and chosen.kind is OptimizerKind.ADAMW:
        decay = ADAMW_DECAY
    return replace(config, optimizer=replace(chosen, lr=lr, weight_decay=decay))


def record(config: ClassifierConfig, classes: tuple[str, ...], convention: InputConvention) -> ModelRecord:
    """Return the record of a classifier, with what it sees of a box and what it says about it."""
    architecture, crop = classifier_architecture(config.architecture), config.crop
    side = config.input_size or architecture.input_size
    return architecture.record(
        classes=classes,
        convention=convention,
        input_size_hw=(side, side),
        crop=CropRule(enlarge=crop.enlarge, margin=crop.margin, detector_input_size=crop.detector_input_size),
        attribute=config.attribute,
    )


CLASSIFIER = Family(
    name="classifier",
    config=ClassifierConfig,
    complete=complete,
    record=record,
    images_per_device=32,
    checks=(range_check("scale", MOST_ZOOM),),
)
FAMILIES.add(CLASSIFIER.name, CLASSIFIER)
