"""A published model in every format that there is."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from app.models.schemas import WeightsFormat
from detection.errors import MissingPackageError
from detection.inference.backends.onnx_runtime import OnnxRuntimeBackend
from detection.model_record import ModelRecord
from detection.models import create_model
from worker.failures import failure_of
from worker.jobs.export_model import WRITERS
from worker.stored_model import StoredModel, as_folder

RECORD = ModelRecord(architecture="yolox-nano", classes=("a", "b"), input_size_hw=(64, 64))


@pytest.fixture
def model(tmp_path: Path) -> StoredModel:
    weights = tmp_path / "stored.safetensors"
    save_file(create_model("yolox-nano", num_classes=2).state_dict(), weights)
    return StoredModel(id="m", record=RECORD, weights=weights, storage_prefix="models/m/1")


def test_the_graph_can_be_made_again(model: StoredModel, tmp_path: Path) -> None:
    path = WRITERS["onnx"](model, tmp_path)
    boxes, scores = OnnxRuntimeBackend(path.read_bytes(), threads=1).run(torch.zeros(1, 3, 64, 64))
    assert (boxes.shape[2], scores.shape[2]) == (4, 2)


def test_openvino_gets_graph_weights_and_record_in_one_zip(model: StoredModel, tmp_path: Path) -> None:
    path = WRITERS["openvino"](model, tmp_path)
    assert sorted(zipfile.ZipFile(path).namelist()) == ["model.bin", "model.json", "model.xml"]
    assert [file.name for file in tmp_path.glob("model*")] == [path.name]


def test_every_format_that_the_api_names_can_be_written() -> None:
    published = {WeightsFormat.SAFETENSORS}
    assert set(WRITERS.names()) == set(WeightsFormat) - published


def test_without_the_extra_the_job_says_how_to_install_it(
    model: StoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match="pip install 'openvino") as refused:
        WRITERS["openvino"](model, tmp_path)
    failure = failure_of(refused.value)
    assert (failure.code, failure.retryable) == ("package_missing", False)


def test_a_model_is_laid_out_as_a_predictor_wants_it(model: StoredModel, tmp_path: Path) -> None:
    folder = as_folder(model, tmp_path / "served")
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
