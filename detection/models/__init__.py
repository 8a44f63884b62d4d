"""Detectors. A new family is one module here and one name in the import below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from detection.models import nanodet_plus, yolox
from detection.models.detector import Detector
from detection.models.registry import MODELS
from detection.models.widths import Shapes, fit_widths, shapes_of
from detection.training.config import AssignerConfig, LossConfig

__all__ = ["MODELS", "create_model", "create_served_model", "load_served_model", "nanodet_plus", "yolox"]


def create_model(
    architecture: str,
    *,
    num_classes: int,
    assigner: AssignerConfig | None = None,
    loss: LossConfig | None = None,
    shapes: Shapes = MappingProxyType({}),
) -> Detector:
    """Return the detector of this name with freshly initialised weights, in train mode on the default device.

    Args:
        assigner, loss: of the architecture's family; None is its default.
        shapes: of weights that it is to hold. Where a layer of theirs has fewer channels than the
            architecture's, because it was pruned, so has the detector's.

    Raises:
        UnknownNameError: there is no such architecture.
        ValueError: there is no class to detect, or a configuration is that of another family.
        WeightsError: the shapes are not those of a narrower network of this architecture.
    """
    if num_classes < 1:
        raise ValueError(f"a detector needs at least one class, not {num_classes}")
    detector = MODELS[architecture](num_classes=num_classes, assigner=assigner, loss=loss)
    fit_widths(detector, shapes)
    return detector


def create_served_model(
    architecture: str, *, num_classes: int, shapes: Shapes = MappingProxyType({})
) -> Detector:
    """Return the detector that published weights belong to: without what training alone needs, in eval mode.

    Args:
        shapes: of the weights, as for `create_model`.

    Raises:
        UnknownNameError: there is no such architecture.
        ValueError: there is no class to detect.
        WeightsError: the shapes are not those of a narrower network of this architecture.
    """
    detector = create_model(architecture, num_classes=num_classes, shapes=shapes).eval()
    detector.drop_training_parts()
    return detector


def load_served_model(architecture: str, *, num_classes: int, state: Mapping[str, Tensor]) -> Detector:
    """Return the detector of published weights with these weights, as wide as they are, in eval mode.

    Raises:
        UnknownNameError: there is no such architecture.
        ValueError: there is no class to detect.
        WeightsError: the weights are not those of a network of this architecture, or of a narrower one.
    """
    detector = create_served_model(architecture, num_classes=num_classes, shapes=shapes_of(state))
    detector.load_state_dict(state)
    return detector
