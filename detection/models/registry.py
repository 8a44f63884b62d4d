"""The detectors by name; each family's module files its members here."""

from __future__ import annotations

from typing import Protocol

from detection.models.detector import Detector
from detection.registry import Registry
from detection.training.config import YoloxAssignerConfig, YoloxLossConfig


class DetectorBuilder(Protocol):
    """Builds one architecture with freshly initialised weights."""

    def __call__(
        self, *, num_classes: int, assigner: YoloxAssignerConfig, loss: YoloxLossConfig
    ) -> Detector: ...


MODELS: Registry[DetectorBuilder] = Registry("architecture")
