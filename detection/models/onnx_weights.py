"""Read the weights of a known architecture out of an ONNX graph: find out which it is, then walk it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detection.errors import WeightsError
from detection.models import MODELS, create_served_model
from detection.models.detector import Detector
from detection.models.onnx_graph import OnnxGraph
from detection.models.onnx_nanodet import NanoDetWalk
from detection.models.onnx_walk import BackwardWalk
from detection.models.onnx_yolox import YoloxWalk
from detection.models.upstream_names import MAX_CLASSES
from detection.models.weight_files import damage_reported

Walk = type[BackwardWalk[Any]]

WALKS: tuple[Walk, ...] = (YoloxWalk, NanoDetWalk)
"""One per family."""


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Return the weights of a graph by the names of our model, batch norms folded.

    Raises:
        WeightsError: the file is damaged, or the graph is not exactly one of a known architecture.
    """
    graph = OnnxGraph.read(path)
    with damage_reported("ONNX graph"):
        return _weights_of(graph)


def _weights_of(graph: OnnxGraph) -> dict[str, Tensor]:
    predictions = list(graph.convolutions_before(graph.outputs))
    walks = [each for each in WALKS if each.num_predictions == len(predictions)]
    if not walks:
        known = " or ".join(f"{each.num_predictions} ({each.family})" for each in WALKS)
        raise WeightsError(f"the graph ends in {len(predictions)} convolutions, not in {known}")
    kind, model = _matching_model(graph, walks, [graph.shape(node.input[1])[0] for node in predictions])
    walk = kind(graph, model)
    walk.walk([node.output[0] for node in predictions])
    return walk.state


def _matching_model(graph: OnnxGraph, walks: Sequence[Walk], rows: Sequence[int]) -> tuple[Walk, Detector]:
    """Return the model that has convolutions of the same shapes as the graph, and the walk of its family.

    Its own weights are without numbers.

    Args:
        rows: output channels of each last convolution.
    """
    shapes = sorted(graph.shape(node.input[1]) for node in graph.convolutions)
    for kind in walks:
        num_classes = kind.num_classes(rows)
        for model in _models_like(kind, num_classes):
            convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
            if sorted(tuple(each.weight.shape) for each in convolutions) == shapes:
                return kind, model
    raise WeightsError(f"none of {', '.join(MODELS.names())} has these {len(shapes)} convolutions")


def _models_like(kind: Walk, num_classes: int) -> Iterator[Detector]:
    """Yield every size of a walk's family.

    Raises:
        WeightsError: there are no models with so many classes.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise WeightsError(f"the graph tells {num_classes} classes apart; 1 to {MAX_CLASSES} are possible")
    for name in MODELS:
        with torch.device("meta"):
            model = create_served_model(name, num_classes=num_classes)
        if isinstance(model, kind.network):
            yield model
