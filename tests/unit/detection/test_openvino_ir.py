"""The OpenVINO form of a model computes what the model computes, and nobody is told about it."""

from __future__ import annotations

import json
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.deploy.export import check_backend, export_onnx
from detection.deploy.openvino_ir import open_openvino, write_openvino
from detection.deploy.package import write_openvino_package
from detection.errors import ExportError
from detection.inference.backends.eager import EagerBackend
from detection.inference.backends.onnx_runtime import OnnxRuntimeBackend
from detection.model_record import ModelRecord
from detection.models import create_model
from detection.models.detector import Detector
from tests.pictures import jpeg, noise

RECORD = ModelRecord(architecture="yolox-nano", classes=("a", "b", "c"), input_size_hw=(64, 96))


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return create_model("yolox-nano", num_classes=3).eval()


@pytest.fixture(scope="module")
def package(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [jpeg(noise(150, 100)), jpeg(noise(80, 120))]
    return write_openvino_package(detector, RECORD, tmp_path_factory.mktemp("model"), pictures=pictures)


@pytest.fixture(scope="module")
def _offline() -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing may be sent")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="module")
def graph(detector: Detector, _offline: None) -> bytes:
    """The detector's graph, made where nothing can be sent; to export takes seconds."""
    return export_onnx(detector, RECORD)


@pytest.mark.parametrize("num_images", [1, 3])
def test_it_computes_what_the_other_backends_compute(
    detector: Detector, graph: bytes, package: Path, num_images: int
) -> None:
    images = torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (num_images, 3, 64, 96))).float()
    backend = open_openvino(package)
    boxes, scores = backend.run(images)
    for other in (
        EagerBackend(detector, torch.device("cpu")),
        OnnxRuntimeBackend(graph, threads=1),
    ):
        expected_boxes, expected_scores = other.run(images)
        torch.testing.assert_close(boxes, expected_boxes, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-3)
    assert check_backend(backend, detector, images) < 1e-3


def test_it_carries_its_record_and_no_path_of_this_machine(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        assert json.loads(archive.read("model.json"))["classes"] == ["a", "b", "c"]
        assert str(Path.home()).encode() not in archive.read("model.xml")
        assert str(package.parent).encode() not in archive.read("model.xml")


def test_another_models_graph_is_refused(detector: Detector, package: Path) -> None:
    torch.manual_seed(1)
    other = create_model("yolox-nano", num_classes=3).eval()
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    with pytest.raises(ExportError, match="does not compute"):
        check_backend(open_openvino(package), other, torch.rand(1, 3, 64, 96) * 255)


@pytest.mark.usefixtures("_offline")
def test_it_needs_no_network_and_leaves_nothing_behind(graph: bytes, tmp_path: Path) -> None:
    write_openvino(graph, RECORD, tmp_path / "model.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
