"""Import weights: read a file of the original projects, and recognise what it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from detection.data.wording import quoted
from detection.errors import WeightsError
from detection.models.onnx_weights import read_onnx
from detection.models.upstream_names import (
    Bare,
    Recognised,
    copies,
    expected_shapes,
    recognise,
    training_shapes,
    unlike,
    with_batch_norm,
)
from detection.models.weight_files import (
    FileKind,
    file_kind,
    read_safetensors,
    read_torch,
    safetensors_metadata,
)
from detection.models.widths import ARCHITECTURE

PRUNED = "channels were pruned: layers are narrower than the architecture's, in every training from them, too"
LARGEST_WEIGHT = 1e9
"""Those of the published models stay below 100; with larger ones than this float32 soon overflows."""
FOLDED = (
    "the batch norms are folded into the convolutions: exact for detection; a training re-creates them from "
    "its own pictures, which a file that still has them does not need"
)


@dataclass(frozen=True, slots=True)
class ImportedWeights:
    """The weights of one known architecture, ready for `load_state_dict` of `create_served_network`."""

    architecture: str
    num_classes: int
    state: dict[str, Tensor]
    """Float32 (and int64 counters) on the CPU."""
    folded: bool
    """True when the file had its batch norms folded into the convolutions: exact for detection, while the
    statistics that training needs are gone until `recreate_norms` makes new ones."""
    report: tuple[str, ...]
    """What was found, in sentences for a person."""
    training_state: Mapping[str, Tensor] = field(default_factory=dict)
    """What the architecture has in training only; empty when the file does not hold all of it."""


def read_weights(path: Path) -> ImportedWeights:
    """Read a torch checkpoint, a safetensors file or an ONNX graph of a known architecture.

    The content decides what it is, not the file's name. Nothing from the file is run.

    Raises:
        WeightsError: the file is damaged, too large, needs code, or holds another network.
        OSError: the file cannot be opened.
    """
    kind, named = file_kind(path), None
    match kind:
        case FileKind.TORCH:
            state = read_torch(path)
        case FileKind.SAFETENSORS:
            state, named = read_safetensors(path), safetensors_metadata(path).get(ARCHITECTURE)
        case FileKind.ONNX:
            state = read_onnx(path)
    bare, recognised = _recognised_copy(state, named)
    unfolded = with_batch_norm(bare.state, recognised) if recognised.folded else bare.state
    served = expected_shapes(recognised.architecture, recognised.num_classes)
    training = training_shapes(recognised.architecture, recognised.num_classes)
    if unlike(training, unfolded):
        training = {}
    about = f"{recognised.architecture}, {recognised.num_classes} classes"
    return ImportedWeights(
        architecture=recognised.architecture,
        num_classes=recognised.num_classes,
        state=_numbers(unfolded, served),
        folded=recognised.folded,
        report=(
            f"{kind} file with {len(state)} tensors: {about}",
            *bare.notes,
            *_notes(recognised, unfolded.keys() - served.keys(), training.keys()),
        ),
        training_state=_numbers(unfolded, training),
    )


def _recognised_copy(state: Mapping[str, Tensor], named: str | None) -> tuple[Bare, Recognised]:
    """Return the first copy of the weights in a file that is whole, and what it is.

    Args:
        named: the architecture that the file says it is of.
    """
    problem: WeightsError | None = None
    for bare in copies(state):
        try:
            return bare, recognise(bare.state, named)
        except WeightsError as error:
            problem = problem or error
    raise problem or WeightsError("the file holds no weights")


def _notes(recognised: Recognised, beside: Set[str], training: Set[str]) -> Iterator[str]:
    """Yield what a person should know; `beside` are the names that served weights do not have."""
    if recognised.folded:
        yield FOLDED
    if recognised.pruned:
        yield PRUNED
    if known := beside & training:
        yield f"{len(known)} tensors serve training only; a model that is served does not hold them"
    if unused := beside - training:
        yield f"{len(unused)} tensors have no place in the model, for example {quoted(min(unused))}"


def _numbers(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Return the expected entries as float32 copies; counters are int64 and may be missing."""
    numbers = {}
    for name in expected:
        if name.endswith("num_batches_tracked"):
            numbers[name] = _counter(state.get(name))
            continue
        value = state[name].detach()
        # Wide enough for every kind of number: what float32 cannot hold is too large, not infinite.
        wide = value.double() if value.is_floating_point() else torch.tensor(math.nan)
        if not wide.isfinite().all():
            raise WeightsError(f"the weight {name!r} holds numbers that are not finite, or no real numbers")
        if wide.numel() and float(wide.abs().max()) > LARGEST_WEIGHT:
            raise WeightsError(f"the weight {name!r} holds numbers beyond ±{LARGEST_WEIGHT:g}")
        if name.endswith("running_var") and (wide < 0).any():
            raise WeightsError(f"the variance {name!r} is negative")
        numbers[name] = value.to(torch.float32, copy=True).contiguous()
    return numbers


def _counter(given: Tensor | None) -> Tensor:
    """Return how many batches a norm has seen; what is no such number is 0, since nothing depends on it."""
    is_one = given is not None and given.numel() == 1 and not given.is_complex()
    seen = float(given) if given is not None and is_one else 0.0
    return torch.tensor(int(seen) if math.isfinite(seen) else 0, dtype=torch.int64)
