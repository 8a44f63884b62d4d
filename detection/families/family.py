"""What tells families of networks apart when they are trained: their configuration and their recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from detection.architectures import Architecture, detector_architecture
from detection.input_convention import InputConvention
from detection.model_record import ModelRecord
from detection.registry import Registry
from detection.training.checks import Check
from detection.training.config import EvaluationConfig, TrainingConfig

C = TypeVar("C", bound=TrainingConfig)


def _detector_record(
    config: TrainingConfig, classes: tuple[str, ...], convention: InputConvention
) -> ModelRecord:
    """Return the record of a detector with the thresholds that its training was measured with."""
    architecture, evaluation = detector_architecture(config.architecture), config.evaluation
    if not isinstance(evaluation, EvaluationConfig):
        raise ValueError("a detector is trained with the configuration of one")
    side = config.input_size or architecture.input_size
    return architecture.record(
        classes=classes,
        convention=convention,
        input_size_hw=(side, side),
        nms_iou=evaluation.nms_iou,
        evaluation_score_threshold=evaluation.score_threshold,
        evaluation_max_detections=evaluation.max_detections,
    )


def _as_it_is(config: C, inherited: InputConvention) -> C:
    return config


def _inherited(config: TrainingConfig, inherited: InputConvention) -> InputConvention:
    return inherited


@dataclass(frozen=True, slots=True, kw_only=True)
class Family(Generic[C]):
    """One family's part of a training's configuration. Plain Python, as everything in this package."""

    name: str
    """As its architectures name it."""
    config: type[C]
    """Adds the family's own options to those of every training."""
    complete: Callable[[C, Architecture], C]
    """Fills in, from the published recipe, what is null in the family's own options; what it leaves
    null follows the common rules, see `detection.training.recipes.resolve`."""
    images_per_device: int = 8
    """What the batch size `auto` means; the published batch of detectors, 64, is spread over 8 devices."""
    checks: tuple[Check, ...] = ()
    """What is refused besides the contradictions that any training may have."""
    begin_with: Callable[[C, InputConvention], C] = _as_it_is
    """Fills in what is null because it follows from the weights that a training starts from, given how they
    see pictures; for random ones, as the architecture does."""
    convention: Callable[[C, InputConvention], InputConvention] = _inherited
    """Returns how the trained model sees pictures, from its configuration and the convention of the weights
    that it starts from, or of its architecture."""
    record: Callable[[C, tuple[str, ...], InputConvention], ModelRecord] = _detector_record
    """Returns the record of the trained model, from its configuration, classes and convention."""


FAMILIES: Registry[Family[Any]] = Registry("family")
