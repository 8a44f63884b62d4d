"""Export a network as an ONNX graph, and prove that the graph computes what the network computes.

Shape suffixes: B = images, H W = input pixels, P = priors, C = classes.
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from detection.errors import ExportError
from detection.inference.backends.backend import Backend
from detection.inference.backends.onnx_runtime import OnnxRuntimeBackend
from detection.model_files import encode_record
from detection.model_record import ModelRecord
from detection.models.network import Network, input_size_hw

OPSET = 20
SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 1e-3
"""Relative to the box's size and place, with a floor of one pixel: a corner near 0 of a large box is rounded
as coarsely as the opposite one. What lies farther beyond the input than its own size is one place: answers
are clipped to the picture, and a network that has hardly learnt may give a box any size, more than a number
can hold."""
BOXES = "boxes"
TOLERANCES = {BOXES: BOX_TOLERANCE, "scores": SCORE_TOLERANCE, "probabilities": SCORE_TOLERANCE}
"""How much each output may differ, by its name."""
ROUNDING_FACTOR = 10
"""An output may also differ by so many times what float32 costs the network itself. That is next to nothing,
unless it has hardly learnt: its layers then blow up what they pass on, and the last digits with it."""
USELESS = (
    "the model answers what is no number, even before it is exported: its weights are useless. Train for "
    "more epochs, with a lower `optimizer.lr`, or from the weights of another model (`init`)"
)
RECORD_KEY = "harrier.model"
"""Name of the model's record among the graph's metadata."""


class _Prediction(nn.Module):
    """The part of a network that is exported."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.network.predict(images)


def export_onnx(network: Network, record: ModelRecord) -> bytes:
    """Return the fused network as an ONNX graph for any number of pictures of the record's input size.

    The graph takes `images` [B, 3, H, W] float32 and returns what `ModelRecord` says, by the names there; the
    record is among its metadata.

    Raises:
        ExportError: the graph would not take any number of pictures.
    """
    fused = copy.deepcopy(network).eval().cpu().requires_grad_(False)
    fused.fuse()
    # Two pictures, because the exporter takes a dimension of one for a constant.
    example_BCHW = torch.zeros(2, 3, *record.input_size_hw)
    exported, tracer = _Prediction(fused), sys.gettrace()
    with _quiet_exporter():
        # A debugger or a measurement of coverage would double the time of what is nearly all torch's code. It
        # goes on in this very frame: a tracer counts calls and returns.
        sys.settrace(None)
        try:
            program = torch.onnx.export(
                exported,
                (example_BCHW,),
                input_names=["images"],
                output_names=[*network.output_names],
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        finally:
            sys.settrace(tracer)
    assert program is not None
    graph = program.model_proto
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0]
    if not batch.dim_param:
        raise ExportError(f"the graph takes {batch.dim_value} pictures at a time, no more and no fewer")
    return _finish(graph, record).SerializeToString()


def check_onnx(graph: bytes, network: Network, images_BCHW: Tensor) -> float:
    """Compare an exported graph with its network on prepared pictures; return the largest score difference.

    Raises:
        ExportError: its outputs differ by more than rounding explains, or are no numbers at all.
    """
    return check_backend(OnnxRuntimeBackend(graph, threads=1), network, images_BCHW)


def check_backend(backend: Backend, network: Network, images_BCHW: Tensor) -> float:
    """Compare a loaded model with its network on prepared pictures; return the largest score difference.

    Scores of a classifier are its probabilities.

    Raises:
        ExportError: its outputs differ by more than rounding explains, or are no numbers at all.
    """
    checked = copy.deepcopy(network).eval().cpu()
    with torch.inference_mode():
        expected = checked.predict(images_BCHW)
    if not all(_are_numbers(name, each) for name, each in zip(network.output_names, expected, strict=True)):
        raise ExportError(USELESS)
    found = backend.run(images_BCHW)
    if [output.shape for output in found] != [output.shape for output in expected]:
        raise ExportError(
            f"the exported graph returns {_shapes(network, found)}, not {_shapes(network, expected)}"
        )
    differences = _differences(network, found, expected, images_BCHW)
    if not _within(differences, TOLERANCES) and not _within(
        differences, _rounding(checked, expected, images_BCHW)
    ):
        differ = ", ".join(
            f"{name} by up to {difference:.2g}{' of their size' if name == BOXES else ''}"
            for name, difference in reversed(differences.items())
        )
        raise ExportError(f"the exported graph does not compute what the model computes: {differ}")
    return max(difference for name, difference in differences.items() if name != BOXES)


def _differences(
    network: Network, found: Sequence[Tensor], expected: Sequence[Tensor], images_BCHW: Tensor
) -> dict[str, float]:
    """Return by how much the outputs differ, each by its name."""
    return {
        name: _largest(own - wanted) if name != BOXES else _box_difference(own, wanted, images_BCHW)
        for name, own, wanted in zip(network.output_names, found, expected, strict=True)
    }


def _rounding(network: Network, expected: Sequence[Tensor], images_BCHW: Tensor) -> dict[str, float]:
    """Return by how much each output may differ at most; leaves the network in float64."""
    with torch.inference_mode():
        precise = network.double().predict(images_BCHW.double())
    own = _differences(network, expected, precise, images_BCHW)
    return {name: max(TOLERANCES[name], ROUNDING_FACTOR * each) for name, each in own.items()}


def _within(differences: Mapping[str, float], allowed: Mapping[str, float]) -> bool:
    """Written so that a NaN is a difference too."""
    return all(difference <= allowed[name] for name, difference in differences.items())


def _shapes(network: Network, outputs: Sequence[Tensor]) -> str:
    named = zip(network.output_names, outputs, strict=False)
    return " and ".join(f"{name} {list(output.shape)}" for name, output in named)


def _are_numbers(name: str, output: Tensor) -> bool:
    """Return whether outputs can be used; a box may be infinitely large, and is then never a detection."""
    return not bool(output.isnan().any()) if name == BOXES else bool(output.isfinite().all())


def _box_difference(found_BP4: Tensor, expected_BP4: Tensor, images_BCHW: Tensor) -> float:
    size_4 = torch.tensor(input_size_hw(images_BCHW)[::-1] * 2)
    near_BP4, wanted_BP4 = (each.clamp(-size_4, 2 * size_4) for each in (found_BP4, expected_BP4))
    extent_BP1 = wanted_BP4.abs().amax(dim=-1, keepdim=True).clamp(min=1.0)
    return _largest((near_BP4 - wanted_BP4) / extent_BP1)


def _finish(graph: onnx.ModelProto, record: ModelRecord) -> onnx.ModelProto:
    """Give a graph its record, and take out where on this machine its source code lies."""
    for node in graph.graph.node:
        del node.metadata_props[:]
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del value.metadata_props[:]
    for function in graph.functions:
        for node in function.node:
            del node.metadata_props[:]
    del graph.metadata_props[:]
    entry = graph.metadata_props.add()
    entry.key, entry.value = RECORD_KEY, encode_record(record).decode()
    graph.producer_name = "harrier"
    onnx.checker.check_model(graph)
    return graph


def _largest(differences: Tensor) -> float:
    return float(differences.abs().max()) if differences.numel() else 0.0


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns about its own inner workings, which no user can do anything about."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
