"""Export a detector as an ONNX graph, and prove that the graph computes what the detector computes.

Shape suffixes: B = images, H W = input pixels, P = priors, C = classes.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from detection.errors import ExportError
from detection.inference.backends.backend import Backend
from detection.inference.backends.onnx_runtime import OnnxRuntimeBackend
from detection.model_files import encode_record
from detection.model_record import ModelRecord
from detection.models.detector import Detector

OPSET = 20
SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 1e-3
"""Relative to the box's size and place, with a floor of one pixel: a corner near 0 of a large box is rounded
as coarsely as the opposite one."""
RECORD_KEY = "harrier.model"
"""Name of the model's record among the graph's metadata."""


class _Prediction(nn.Module):
    """The part of a detector that is exported."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.detector.predict(images)


def export_onnx(detector: Detector, record: ModelRecord) -> bytes:
    """Return the fused detector as an ONNX graph for any number of pictures of the record's input size.

    The graph takes `images` [B, 3, H, W] float32 and returns `boxes` [B, P, 4] and `scores` [B, P, C], as
    `ModelRecord` says; the record is among its metadata.

    Raises:
        ExportError: the graph would not take any number of pictures.
    """
    fused = copy.deepcopy(detector).eval().cpu().requires_grad_(False)
    fused.fuse()
    # Two pictures, because the exporter takes a dimension of one for a constant.
    example_BCHW = torch.zeros(2, 3, *record.input_size_hw)
    with _quiet_exporter():
        program = torch.onnx.export(
            _Prediction(fused),
            (example_BCHW,),
            input_names=["images"],
            output_names=["boxes", "scores"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0]
    if not batch.dim_param:
        raise ExportError(f"the graph takes {batch.dim_value} pictures at a time, no more and no fewer")
    return _finish(graph, record).SerializeToString()


def check_onnx(graph: bytes, detector: Detector, images_BCHW: Tensor) -> float:
    """Compare an exported graph with its detector on prepared pictures; return the largest score difference.

    Raises:
        ExportError: boxes or scores differ by more than rounding explains, or are not finite at all.
    """
    return check_backend(OnnxRuntimeBackend(graph, threads=1), detector, images_BCHW)


def check_backend(backend: Backend, detector: Detector, images_BCHW: Tensor) -> float:
    """Compare a loaded model with its detector on prepared pictures; return the largest score difference.

    Raises:
        ExportError: boxes or scores differ by more than rounding explains, or are not finite at all.
    """
    fused = copy.deepcopy(detector).eval().cpu()
    with torch.inference_mode():
        expected_boxes, expected_scores = fused.predict(images_BCHW)
    if not (expected_boxes.isfinite().all() and expected_scores.isfinite().all()):
        raise ExportError("the model itself answers numbers that are not finite: its weights are useless")
    boxes, scores = backend.run(images_BCHW)
    if boxes.shape != expected_boxes.shape or scores.shape != expected_scores.shape:
        raise ExportError(
            f"the exported graph returns boxes {list(boxes.shape)} and scores {list(scores.shape)}, "
            f"not {list(expected_boxes.shape)} and {list(expected_scores.shape)}"
        )
    score_difference = _largest(scores - expected_scores)
    extent_BP1 = expected_boxes.abs().amax(dim=-1, keepdim=True).clamp(min=1.0)
    box_difference = _largest((boxes - expected_boxes) / extent_BP1)
    # Written so that a NaN is a difference too.
    if not (score_difference <= SCORE_TOLERANCE and box_difference <= BOX_TOLERANCE):
        raise ExportError(
            "the exported graph does not compute what the model computes: scores differ by up to "
            f"{score_difference:.2g}, boxes by up to {box_difference:.2g} of their size"
        )
    return score_difference


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
