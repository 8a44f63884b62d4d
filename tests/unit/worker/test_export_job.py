"""A published model in every format that there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detection.inference.backends.onnx_runtime import OnnxRuntimeBackend
from detection.model_record import ModelRecord
from detection.models import create_model
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


def test_a_model_is_laid_out_as_a_predictor_wants_it(model: StoredModel, tmp_path: Path) -> None:
    folder = as_folder(model, tmp_path / "served")
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
