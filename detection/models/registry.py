"""The detectors by name; each family's module files its members here."""

from __future__ import annotations

from typing import Protocol, TypeVar

from detection.models.detector import Detector
from detection.registry import Registry
from detection.training.config import AssignerConfig, LossConfig

Config = TypeVar("Config")


class DetectorBuilder(Protocol):
    """Builds one architecture with freshly initialised weights; None is the family's default."""

    def __call__(
        self, *, num_classes: int, assigner: AssignerConfig | None, loss: LossConfig | None
    ) -> Detector: ...


MODELS: Registry[DetectorBuilder] = Registry("architecture")


def config_of(kind: type[Config], given: object | None) -> Config:
    """Return what a family was given to be configured with, or its default.

    Raises:
        ValueError: it is the configuration of another family.
    """
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise ValueError(f"a {kind.__name__} is needed, not a {type(given).__name__}")
    return given
