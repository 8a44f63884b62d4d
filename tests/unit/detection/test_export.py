"""The exported graph: what it is called, what it computes, and what it must not carry."""

from __future__ import annotations

import copy
from functools import cache

import onnx
import pytest
import torch
from torch import Tensor

from detection.deploy.export import RECORD_KEY, check_onnx, export_onnx
from detection.errors import ExportError
from detection.inference.backends.onnx_runtime import OnnxRuntimeBackend
from detection.model_files import decode_record
from detection.model_record import ModelRecord
from tests.tiny_training import TinyDetector

RECORD = ModelRecord(architecture="tiny", classes=("cat", "dog"), input_size_hw=(32, 64))


@cache
def exported() -> tuple[bytes, TinyDetector]:
    torch.manual_seed(0)
    detector = TinyDetector()
    detector(torch.rand(4, 3, 32, 64))  # so that the batch norms have statistics of their own
    return export_onnx(detector, RECORD), detector


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 32, 64, generator=torch.Generator().manual_seed(count))


def test_inputs_and_outputs_are_named_and_the_batch_is_free() -> None:
    graph = onnx.load_from_string(exported()[0]).graph

    def shapes(values: object) -> dict[str, list[int | str]]:
        return {
            each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim]
            for each in values  # type: ignore[attr-defined]
        }

    (batch,) = {axes[0] for axes in shapes(graph.input).values()}
    assert isinstance(batch, str)
    assert shapes(graph.input) == {"images": [batch, 3, 32, 64]}
    assert shapes(graph.output) == {"boxes": [batch, 32, 4], "scores": [batch, 32, 2]}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_graph_computes_what_the_detector_computes_for_any_number_of_pictures(count: int) -> None:
    graph, detector = exported()
    assert check_onnx(graph, detector, pictures(count)) < 1e-5


def test_the_detector_stays_as_it_was() -> None:
    detector = TinyDetector()
    before = copy.deepcopy(detector.state_dict())
    graph = export_onnx(detector, RECORD)
    check_onnx(graph, detector, pictures(1))
    assert detector.training
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())


def test_the_graph_carries_its_record_and_nothing_about_this_machine() -> None:
    graph = onnx.load_from_string(exported()[0])
    (entry,) = graph.metadata_props
    assert entry.key == RECORD_KEY
    assert decode_record(entry.value.encode()) == RECORD
    content = exported()[0]
    for trace in (b"site-packages", b".py", b"stack_trace", b'File "'):
        assert trace not in content


def test_a_graph_that_computes_something_else_is_refused() -> None:
    graph, detector = exported()
    other = copy.deepcopy(detector)
    with torch.no_grad():
        other.head.bias += 0.1
    with pytest.raises(ExportError, match=r"scores differ by up to 0\.0"):
        check_onnx(graph, other, pictures(2))
    with torch.no_grad():
        other.head.bias += torch.nan
    with pytest.raises(ExportError, match="scores differ by up to nan"):
        check_onnx(graph, other, pictures(2))


def test_a_graph_for_other_classes_is_refused() -> None:
    with pytest.raises(ExportError, match=r"scores \[1, 32, 2\], not"):
        check_onnx(exported()[0], TinyDetector(num_classes=3), pictures(1))


def test_a_graph_for_one_number_of_pictures_only_is_refused() -> None:
    class Stubborn(TinyDetector):
        def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
            boxes, scores = super().predict(images_BCHW)
            return boxes, scores * len(images_BCHW)  # a plain number to the exporter

    with pytest.raises(ExportError, match="2 pictures at a time, no more and no fewer"):
        export_onnx(Stubborn(), RECORD)


def test_boxes_are_compared_too() -> None:
    class Shifted(TinyDetector):
        def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
            boxes, scores = super().predict(images_BCHW)
            return boxes + 0.5, scores

    graph, detector = exported()
    other = Shifted()
    other.load_state_dict(detector.state_dict())
    with pytest.raises(ExportError, match=r"boxes by up to 0\.5"):
        check_onnx(graph, other, pictures(1))


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_the_number_of_threads_can_be_set(threads: int | None) -> None:
    boxes, scores = OnnxRuntimeBackend(exported()[0], threads=threads).run(pictures(1))
    assert boxes.shape == (1, 32, 4)
    assert scores.dtype is torch.float32
