"""Make a detector as narrow as the weights it is to hold: a model that lost channels keeps its architecture.

The shapes of the weights are the only record of the widths. Depth, kernels and the wiring are those of the
architecture, and so are the outputs of the last convolutions, which follow from the classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from detection.analysis.complexity import count_flops
from detection.errors import WeightsError
from detection.layers.conv import FusableLayer
from detection.models.detector import Detector
from detection.models.weight_files import FileKind, damage_reported, file_kind, safetensors_metadata

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of the entries of a state, by name."""

TRIAL_SIDE = 64
"""Every family's coarsest level has a cell of so small a picture."""
ARCHITECTURE = "architecture"
"""Name of the architecture's name among the metadata of a safetensors file of ours."""


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    """Return the shapes of a state."""
    return {name: tuple(value.shape) for name, value in state.items()}


def shapes_in(path: Path, architecture: str) -> Shapes:
    """Return the shapes in a weights file that says it is of this architecture; none for any other file.

    Only the header is read.
    """
    if file_kind(path) is not FileKind.SAFETENSORS:
        return {}
    if safetensors_metadata(path).get(ARCHITECTURE) != architecture:
        return {}
    with damage_reported("safetensors file"), safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def fit_widths(detector: Detector, shapes: Shapes) -> None:
    """Narrow the layers of a detector to the shapes of the weights that it is to hold, in place.

    What stays of a layer are its first channels. Layers that `shapes` does not name stay as they are.

    Raises:
        WeightsError: a layer is wider than the architecture's or has another kernel, or the widths do not fit
            each other.
    """
    normed = set(_followed_by_a_norm(detector))
    narrowed = [_fit(name, module, shapes, normed) for name, module in detector.named_modules()]
    if any(narrowed):
        _try_once(detector)
        detector.follow_widths()


def _followed_by_a_norm(detector: nn.Module) -> Iterator[str]:
    """Yield the names of all convolutions but the last ones, whose outputs are the predictions."""
    for name, layer in detector.named_modules():
        if isinstance(layer, FusableLayer):
            yield from (f"{name}.{conv}" for conv in layer.normed())


def _fit(name: str, module: nn.Module, shapes: Shapes, normed: set[str]) -> bool:
    """Narrow one module if it is a convolution or a batch norm; return whether it changed."""
    shape = shapes.get(f"{name}.weight")
    if shape is None:
        return False
    if isinstance(module, nn.Conv2d):
        return _fit_convolution(name, module, shape, keeps_outputs=name not in normed)
    if isinstance(module, nn.BatchNorm2d):
        return _fit_norm(name, module, shape)
    return False


def _fit_convolution(name: str, conv: nn.Conv2d, shape: tuple[int, ...], *, keeps_outputs: bool) -> bool:
    own = tuple(conv.weight.shape)
    wanted = (own[0], *shape[1:]) if keeps_outputs else shape
    _refuse_wider(name, own, wanted)
    if wanted == own:
        return False
    if is_depthwise(conv):
        conv.in_channels = conv.groups = wanted[0]
    else:
        conv.in_channels = wanted[1]
    conv.out_channels = wanted[0]
    conv.weight = _cut(conv.weight, wanted)
    if conv.bias is not None:
        conv.bias = _cut(conv.bias, wanted[:1])
    return True


def _fit_norm(name: str, norm: nn.BatchNorm2d, shape: tuple[int, ...]) -> bool:
    own = tuple(norm.weight.shape)
    _refuse_wider(name, own, shape)
    if shape == own:
        return False
    (norm.num_features,) = shape
    norm.weight, norm.bias = _cut(norm.weight, shape), _cut(norm.bias, shape)
    for statistics in ("running_mean", "running_var"):
        setattr(norm, statistics, norm.get_buffer(statistics)[: shape[0]].clone())
    return True


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Return whether each channel is worked on by itself, so that inputs and outputs are the same ones."""
    return conv.groups == conv.in_channels == conv.out_channels > 1


def _refuse_wider(name: str, own: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    same_kind = len(wanted) == len(own) and wanted[2:] == own[2:]
    if not same_kind or not all(1 <= size <= most for size, most in zip(wanted, own, strict=True)):
        raise WeightsError(
            f"the weight of {name!r} has the shape {list(wanted)}; the architecture's own, {list(own)}, can "
            "be narrower, but not wider or of another kernel"
        )


def _cut(parameter: Tensor, shape: tuple[int, ...]) -> nn.Parameter:
    """Return the first elements along the first two axes as a parameter that learns if the other did."""
    kept = parameter.detach()[tuple(slice(size) for size in shape[:2])].clone()
    return nn.Parameter(kept, requires_grad=parameter.requires_grad)


def _try_once(detector: Detector) -> None:
    try:
        count_flops(detector, (TRIAL_SIDE, TRIAL_SIDE))
    except RuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise WeightsError(f"the widths of the layers do not fit each other: {first_line}") from error
