"""What tells families of detectors apart when they are trained: their configuration and their recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from detection.architectures import Architecture
from detection.input_convention import InputConvention
from detection.registry import Registry
from detection.training.checks import Check
from detection.training.config import TrainingConfig

C = TypeVar("C", bound=TrainingConfig)


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
    checks: tuple[Check, ...] = ()
    """What is refused besides the contradictions that any training may have."""
    begin_with: Callable[[C, InputConvention], C] = _as_it_is
    """Fills in what is null because it follows from the weights that a training starts from, given how they
    see pictures; for random ones, as the architecture does."""
    convention: Callable[[C, InputConvention], InputConvention] = _inherited
    """Returns how the trained model sees pictures, from its configuration and the convention of the weights
    that it starts from, or of its architecture."""


FAMILIES: Registry[Family[Any]] = Registry("family")
