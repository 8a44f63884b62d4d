"""Recognise a network by the names and shapes of its weights, as the original projects write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from detection.architectures import ARCHITECTURES, names_for
from detection.data.wording import quoted
from detection.errors import WeightsError
from detection.layers.conv import FusableLayer
from detection.models import create_model, create_served_model
from detection.models.batch_norm_statistics import neutral_norm
from detection.models.nanodet_plus import BOX_LOGITS
from detection.models.networks import create_served_network
from detection.tasks import Task

WRAPPERS = ("module.", "_orig_mod.")
"""What data-parallel and compiled wrappers put before every name."""
MOST_WRAPPERS = 8
"""More than anybody puts around each other; a name may be millions of characters long."""
AVERAGED, RAW = "avg_model.", "model."
"""What NanoDet's trainer puts before the names of its two copies of a model."""
CLASS_WEIGHTS = {"head.cls_preds.0.weight": 0, "head.gfl_cls.0.weight": BOX_LOGITS}
"""One per family: the weight with a row per class, and how many rows it has beside them."""
CLASSIFIER_WEIGHTS = ("fc.weight", "classifier.1.weight", "classifier.2.weight", "classifier.3.weight")
"""The same of torchvision's classifiers: nothing but a row per class."""
STATISTICS = ".running_var"
"""Every batch norm that is not folded into a convolution has one."""
MAX_CLASSES = 10_000

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a state turned out to be."""

    architecture: str
    num_classes: int
    folded: bool
    """Whether the batch norms were folded into the convolutions."""
    pruned: bool = False
    """Whether layers are narrower than the architecture's."""


@dataclass(frozen=True, slots=True)
class Bare:
    """A state under the names of the model alone."""

    state: dict[str, Tensor]
    notes: tuple[str, ...]
    """What was taken off or left out, in sentences for a person."""


def copies(state: Mapping[str, Tensor]) -> Iterator[Bare]:
    """Yield each copy of the weights that a file holds, the averaged one first.

    What wrappers and trainers put before the names is taken off.
    """
    names = {name: _without_wrappers(name) for name in state}
    there = [each for each in (AVERAGED, RAW) if any(short.startswith(each) for short in names.values())]
    for prefix in there or [""]:
        yield _copy(state, names, prefix)


def _copy(state: Mapping[str, Tensor], names: Mapping[str, str], prefix: str) -> Bare:
    """Return the weights whose names, without wrappers, start with `prefix`."""
    chosen = {
        name: _without_wrappers(short.removeprefix(prefix))
        for name, short in names.items()
        if short.startswith(prefix)
    }
    notes = []
    if any(name != prefix + short for name, short in chosen.items()):
        notes.append("prefixes of a parallel or compiled wrapper were removed from the names")
    if left := len(names) - len(chosen):
        notes.append(f"the {len(chosen)} tensors of {prefix!r} were taken, {left} others left")
    return Bare({short: state[name] for name, short in chosen.items()}, tuple(notes))


def _without_wrappers(name: str) -> str:
    for _ in range(MOST_WRAPPERS):
        if not name.startswith(WRAPPERS):
            break
        name = name.split(".", 1)[1]
    return name


def with_batch_norm(state: Mapping[str, Tensor], recognised: Recognised) -> dict[str, Tensor]:
    """Return a folded state with batch norms that change nothing in eval mode but add the folded bias.

    In train mode such norms behave unlike the lost ones: a training gives them statistics before its first
    step, see `detection.models.batch_norm_statistics`.
    """
    with torch.device("meta"):
        model = create_served_model(recognised.architecture, num_classes=recognised.num_classes)
    unfolded = dict(state)
    for conv, norm, eps in _norms_of(model):
        neutral = neutral_norm(unfolded.pop(f"{conv}.bias"), eps=eps)
        unfolded.update({f"{norm}.{entry}": value for entry, value in neutral.items()})
    return unfolded


def _norms_of(model: nn.Module) -> Iterator[tuple[str, str, float]]:
    """Yield every convolution with its batch norm, by name, and the norm's eps."""
    for name, layer in model.named_modules():
        if isinstance(layer, FusableLayer):
            for conv, norm in layer.normed().items():
                eps = layer.get_submodule(norm).eps
                assert isinstance(eps, float)
                yield f"{name}.{conv}", f"{name}.{norm}", eps


@lru_cache(maxsize=64)
def expected_shapes(architecture: str, num_classes: int, *, folded: bool = False) -> Shapes:
    """Return the names and shapes of an architecture's published weights; nothing is allocated."""
    with torch.device("meta"):
        model = create_served_network(architecture, num_classes=num_classes)
        if folded:
            model.fuse()
    return {name: value.shape for name, value in model.state_dict().items()}


@lru_cache(maxsize=64)
def training_shapes(architecture: str, num_classes: int) -> Shapes:
    """Return the names and shapes of what an architecture has in training only."""
    served = expected_shapes(architecture, num_classes)
    if ARCHITECTURES[architecture].task is not Task.DETECT:
        return {}
    with torch.device("meta"):
        model = create_model(architecture, num_classes=num_classes)
    return {name: value.shape for name, value in model.state_dict().items() if name not in served}


def recognise(state: Mapping[str, Tensor], named: str | None = None) -> Recognised:
    """Return the architecture all of whose weights are in `state`, folded or not.

    Args:
        named: the architecture that the file says it is of; without it, narrower weights belong to none.

    Raises:
        WeightsError: there is none; the message names the nearest.
    """
    task, num_classes = next(_class_counts(state), (Task.DETECT, None))
    if num_classes is None or num_classes > MAX_CLASSES:
        raise WeightsError(f"these weights belong to none of {', '.join(ARCHITECTURES)}{_sample(state)}")
    # What has neither norms nor a folded form of its own is told by its shapes alone.
    folded = task is Task.DETECT and not any(name.endswith(STATISTICS) for name in state)
    expected = {name: expected_shapes(name, num_classes, folded=folded) for name in names_for(task)}
    faults = {name: unlike(shapes, state) for name, shapes in expected.items()}
    if named in faults and faults[named] and not folded and _is_narrower(named, num_classes, state):
        return Recognised(named, num_classes, folded, pruned=True)
    # Everything that a ResNet-18 has is in a ResNet-34, too: of those that fit it is the largest.
    nearest = min(faults, key=lambda name: (len(faults[name]), -len(expected[name])))
    if faults[nearest]:
        raise WeightsError(
            f"these weights are nearest to {nearest}, but {len(faults[nearest])} of its entries are missing "
            f"or of another shape, the first being {faults[nearest][0]!r}"
        )
    return Recognised(nearest, num_classes, folded)


def _is_narrower(architecture: str, num_classes: int, state: Mapping[str, Tensor]) -> bool:
    """Return whether a state has all entries of an architecture, and no layer in it is wider."""
    expected = expected_shapes(architecture, num_classes)
    return all(
        name.endswith("num_batches_tracked")
        or (
            name in state
            and state[name].ndim == len(shape)
            and all(1 <= size <= most for size, most in zip(state[name].shape, shape, strict=True))
        )
        for name, shape in expected.items()
    )


def _class_counts(state: Mapping[str, Tensor]) -> Iterator[tuple[Task, int]]:
    """Yield how many classes each family's weight speaks of, when there is such a weight."""
    for name, others in CLASS_WEIGHTS.items():
        if name in state and state[name].ndim and len(state[name]) > others:
            yield Task.DETECT, len(state[name]) - others
    for name in reversed(CLASSIFIER_WEIGHTS):
        if name in state and state[name].ndim == 2 and len(state[name]):
            yield Task.CLASSIFY, len(state[name])


def unlike(expected: Shapes, state: Mapping[str, Tensor]) -> list[str]:
    """Return the names that `state` lacks or has in another shape; a norm's counter does not matter."""
    return [
        name
        for name, shape in expected.items()
        if not name.endswith("num_batches_tracked") and (name not in state or state[name].shape != shape)
    ]


def _sample(state: Mapping[str, Tensor]) -> str:
    return f"; the file holds {len(state)} weights, for example {quoted(min(state))}" if state else ""
