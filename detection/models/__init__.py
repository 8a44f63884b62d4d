"""Detectors. A new family is one module here and one name in the import below."""

from __future__ import annotations

from detection.models import yolox
from detection.models.detector import Detector
from detection.models.registry import MODELS
from detection.training.config import YoloxAssignerConfig, YoloxLossConfig

__all__ = ["MODELS", "create_model", "yolox"]

DEFAULT_ASSIGNER = YoloxAssignerConfig()
DEFAULT_LOSS = YoloxLossConfig()


def create_model(
    architecture: str,
    *,
    num_classes: int,
    assigner: YoloxAssignerConfig = DEFAULT_ASSIGNER,
    loss: YoloxLossConfig = DEFAULT_LOSS,
) -> Detector:
    """Return the detector of this name with freshly initialised weights, in train mode on the default device.

    Raises:
        UnknownNameError: there is no such architecture.
        ValueError: there is no class to detect.
    """
    if num_classes < 1:
        raise ValueError(f"a detector needs at least one class, not {num_classes}")
    return MODELS[architecture](num_classes=num_classes, assigner=assigner, loss=loss)
