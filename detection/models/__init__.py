"""Detectors. A new family is one module here and one name in the import below."""

from __future__ import annotations

from detection.models import nanodet_plus, yolox
from detection.models.detector import Detector
from detection.models.registry import MODELS
from detection.training.config import AssignerConfig, LossConfig

__all__ = ["MODELS", "create_model", "create_served_model", "nanodet_plus", "yolox"]


def create_model(
    architecture: str,
    *,
    num_classes: int,
    assigner: AssignerConfig | None = None,
    loss: LossConfig | None = None,
) -> Detector:
    """Return the detector of this name with freshly initialised weights, in train mode on the default device.

    Args:
        assigner, loss: of the architecture's family; None is its default.

    Raises:
        UnknownNameError: there is no such architecture.
        ValueError: there is no class to detect, or a configuration is that of another family.
    """
    if num_classes < 1:
        raise ValueError(f"a detector needs at least one class, not {num_classes}")
    return MODELS[architecture](num_classes=num_classes, assigner=assigner, loss=loss)


def create_served_model(architecture: str, *, num_classes: int) -> Detector:
    """Return the detector that published weights belong to: without what training alone needs, in eval mode.

    Raises:
        UnknownNameError: there is no such architecture.
        ValueError: there is no class to detect.
    """
    detector = create_model(architecture, num_classes=num_classes).eval()
    detector.drop_training_parts()
    return detector
