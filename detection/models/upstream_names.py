"""Recognise a detector by the names and shapes of its weights, as the original projects write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from detection.data.wording import quoted
from detection.errors import WeightsError
from detection.layers.conv import BN_EPS
from detection.models import MODELS, create_model

WRAPPERS = ("module.", "_orig_mod.")
"""What data-parallel and compiled wrappers put before every name."""
MOST_WRAPPERS = 8
"""More than anybody puts around each other; a name may be millions of characters long."""
CLASS_WEIGHTS = ("head.cls_preds.0.weight",)
"""One per family: the weight whose first axis is as long as there are classes."""
MAX_CLASSES = 10_000

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a state turned out to be."""

    architecture: str
    num_classes: int


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state under the names of the bare model."""
    names = list(state)
    for _ in range(MOST_WRAPPERS):
        if not all(name.startswith(WRAPPERS) for name in names):
            break
        names = [name.split(".", 1)[1] for name in names]
    return dict(zip(names, state.values(), strict=True))


def is_folded(state: Mapping[str, Tensor]) -> bool:
    """Return whether the batch norms of the conv units were folded into their convolutions."""
    return any(name.endswith(".conv.bias") for name in state)


def with_batch_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a folded state with batch norms that change nothing in eval mode but add the folded bias.

    Mean 0 and variance 1 - eps make the norm's divisor exactly 1. In train mode such norms would behave
    unlike the lost ones, so the state suits detection; for fine-tuning it is only a start.
    """
    unfolded = {}
    for name, value in state.items():
        if not name.endswith(".conv.bias"):
            unfolded[name] = value
            continue
        norm = name.removesuffix("conv.bias") + "bn."
        unfolded[norm + "weight"] = torch.ones_like(value)
        unfolded[norm + "bias"] = value
        unfolded[norm + "running_mean"] = torch.zeros_like(value)
        unfolded[norm + "running_var"] = torch.full_like(value, 1 - BN_EPS)
        unfolded[norm + "num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return unfolded


@lru_cache(maxsize=32)
def expected_shapes(architecture: str, num_classes: int) -> Shapes:
    """Return the names and shapes of an architecture's weights; nothing is allocated."""
    with torch.device("meta"):
        model = create_model(architecture, num_classes=num_classes)
    return {name: value.shape for name, value in model.state_dict().items()}


def recognise(state: Mapping[str, Tensor]) -> Recognised:
    """Return the architecture all of whose weights are in `state`.

    Raises:
        WeightsError: there is none; the message names the nearest.
    """
    num_classes = next((state[name].shape[0] for name in CLASS_WEIGHTS if _has_rows(state.get(name))), None)
    if num_classes is None or num_classes > MAX_CLASSES:
        raise WeightsError(f"these weights belong to none of {', '.join(MODELS.names())}{_sample(state)}")
    faults = {name: _unlike(expected_shapes(name, num_classes), state) for name in MODELS}
    nearest = min(faults, key=lambda name: len(faults[name]))
    if faults[nearest]:
        raise WeightsError(
            f"these weights are nearest to {nearest}, but {len(faults[nearest])} of its entries are missing "
            f"or of another shape, the first being {faults[nearest][0]!r}"
        )
    return Recognised(nearest, num_classes)


def _has_rows(weight: Tensor | None) -> bool:
    return weight is not None and weight.ndim > 0 and weight.shape[0] > 0


def _unlike(expected: Shapes, state: Mapping[str, Tensor]) -> list[str]:
    """Return the names that `state` lacks or has in another shape; a norm's counter does not matter."""
    return [
        name
        for name, shape in expected.items()
        if not name.endswith("num_batches_tracked") and (name not in state or state[name].shape != shape)
    ]


def _sample(state: Mapping[str, Tensor]) -> str:
    return f"; the file holds {len(state)} weights, for example {quoted(min(state))}" if state else ""
