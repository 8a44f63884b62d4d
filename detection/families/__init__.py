"""Families of networks, as a training is configured. A new one is one module here and one imported name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detection.architectures import ARCHITECTURES
from detection.families import classifier, nanodet_plus, yolox
from detection.families.family import FAMILIES, Family
from detection.tasks import Task

__all__ = [
    "DEFAULT_FAMILY",
    "DEFAULT_OF_TASK",
    "FAMILIES",
    "Family",
    "architectures_of",
    "classifier",
    "family_of",
    "nanodet_plus",
    "yolox",
]

DEFAULT_FAMILY: Family[Any] = yolox.YOLOX
"""Of a training that names neither architecture nor task."""
DEFAULT_OF_TASK: Mapping[Task, Family[Any]] = {
    Task.DETECT: DEFAULT_FAMILY,
    Task.CLASSIFY: classifier.CLASSIFIER,
}
"""Of a training that names no architecture."""


def architectures_of(family: Family[Any]) -> list[str]:
    """Return the names of a family's members."""
    return [name for name in ARCHITECTURES if ARCHITECTURES[name].family == family.name]


def family_of(architecture: str) -> Family[Any]:
    """Return the family that an architecture belongs to.

    Raises:
        UnknownNameError: there is no such architecture.
    """
    return FAMILIES[ARCHITECTURES[architecture].family]
