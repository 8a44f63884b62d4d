"""Profiles and pruning over the API, by real workers, of a real network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load

from app.main import create_app
from detection.model_record import ModelRecord
from tests.real_model import add_real_model
from tests.services import Home
from tests.tiny_dataset import CLASSES, NUM_VAL, SIDE, add_tiny_dataset


@pytest.fixture(scope="module")
def client(house: Home) -> Iterator[TestClient]:
    app = create_app(house.settings, bell=house.bell)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture(scope="module")
def dataset_id(house: Home) -> str:
    return add_tiny_dataset(house)


@pytest.fixture(scope="module")
def model_id(house: Home) -> str:
    """A YOLOX-nano with random weights, for small pictures."""
    record = ModelRecord(architecture="yolox-nano", classes=CLASSES, input_size_hw=(SIDE, SIDE))
    return add_real_model(house, record, name="nano")


def result_of(house: Home, answer: Any) -> dict[str, Any]:
    """Wait for the job that a call has begun, and return what it made."""
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/jobs/{answer.json()['id']}"
    job = house.wait_for(answer.json()["id"], timeout_s=240)
    assert job.status == "succeeded", house.logs()
    return job.result or {}


def weights_of(client: TestClient, model_id: str) -> dict[str, torch.Tensor]:
    return load(client.get(f"/models/{model_id}/weights").content)


def test_a_profile_is_a_table(client: TestClient, house: Home, model_id: str) -> None:
    wish = {"input_size": [64, 96], "runs": 2, "verbose": True, "type": "BatchNorm2d", "batch_size": 2}
    result = result_of(house, client.post(f"/models/{model_id}/profile", json=wish))
    shown = client.get(f"/models/{model_id}").json()
    assert (result["device"], result["input_size"], result["batch_size"]) == ("cpu", [64, 96], 2)
    assert result["parameters"] == result["gradients"] == shown["parameters"]
    assert result["gflops"] == pytest.approx(result["gflops_extrapolated"])
    assert [row["part"] for row in result["parts"]] == ["backbone", "neck", "head", "whole"]
    *parts, whole = result["parts"]
    assert sum(row["parameters"] for row in parts) == whole["parameters"] == shown["parameters"]
    assert whole["gflops"] == pytest.approx(2 * result["gflops"])
    assert (whole["input_shapes"], whole["output_shapes"]) == ([[2, 3, 64, 96]], [[2, 126, 7]])
    assert all(row["forward_ms"] > 0 and row["backward_ms"] > 0 for row in result["parts"])
    assert result["memory"]["peak_bytes"] > 1_000_000
    assert sum(row["count"] for row in result["tensors"]) == shown["parameters"]
    assert {row["class"] for row in result["modules"]} == {"BatchNorm2d"}


def test_a_class_that_no_module_has_fails_with_those_there_are(
    client: TestClient, house: Home, model_id: str
) -> None:
    answer = client.post(f"/models/{model_id}/profile", json={"input_size": 64, "type": "Conv9d"})
    job = house.wait_for(answer.json()["id"], timeout_s=120)
    assert job.failure is not None
    assert job.failure["code"] == "unknown_name"
    assert "'Conv9d'; there are: BatchNorm2d, Bottleneck, Conv2d" in job.failure["message"]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_weights_are_pruned_without_a_dataset(
    client: TestClient, house: Home, model_id: str, scope: str
) -> None:
    wish = {} if scope == "layer" else {"scope": scope}
    result = result_of(house, client.post(f"/models/{model_id}/prune", json=wish))
    new = client.get(f"/models/{result['model_id']}").json()
    assert (new["origin"], new["name"], new["metrics"]) == ("pruned", f"nano, {scope} pruned by 0.3", None)
    assert (result["ap"]["before"], result["ap"]["after"]) == (None, None)
    assert "name one as `dataset_id`" in result["ap"]["unmeasured"]
    assert result["parameters"]["before"] == result["parameters"]["after"]
    assert 0.28 < result["sparsity"]["after"] - result["sparsity"]["before"] < 0.3
    before, after = weights_of(client, model_id), weights_of(client, result["model_id"])
    for layer in result["layers"]:
        weight = after[f"{layer['name']}.weight"]
        zeros = int((weight == 0).sum())
        assert scope == "global" or zeros == round(0.3 * weight.numel())
        assert layer["sparsity"] == pytest.approx(zeros / weight.numel())
        kept = weight != 0
        assert torch.equal(weight[kept], before[f"{layer['name']}.weight"][kept])
    assert new["provenance"]["init_model_id"] == model_id
    assert new["provenance"]["pruned"]["sparsity"] == result["sparsity"]
    assert set(result["latency_ms"]) == {"onnxruntime", "eager"}


def test_channels_are_pruned_learn_again_and_stay_gone(
    client: TestClient, house: Home, model_id: str, dataset_id: str
) -> None:
    wish = {"scope": "channels", "amount": 0.5, "finetune_epochs": 1, "dataset_id": dataset_id}
    result = result_of(house, client.post(f"/models/{model_id}/prune", json=wish))
    pruned_id = result["model_id"]
    new = client.get(f"/models/{pruned_id}").json()
    assert new["parameters"] == result["parameters"]["after"] < 0.4 * result["parameters"]["before"]
    assert new["gflops"] == result["gflops"]["after"] < 0.5 * result["gflops"]["before"]
    for sizes in result["file_bytes"].values():
        assert sizes["after"] < 0.5 * sizes["before"]
    assert (new["metrics"]["split"], new["metrics"]["images"]) == ("val", NUM_VAL)
    assert result["ap"] == {
        "before": 0.0,
        "after": new["metrics"]["ap"],
        "dataset_id": dataset_id,
        "split": "val",
        "unmeasured": None,
    }
    assert new["provenance"]["config"]["epochs"] == 1
    assert len(client.get(f"/models/{pruned_id}/evaluations").json()["items"]) == 1
    it_is_measured_like_any_model(client, house, pruned_id, dataset_id)
    a_training_from_it_keeps_its_widths(client, house, pruned_id, dataset_id)


def it_is_measured_like_any_model(client: TestClient, house: Home, model_id: str, dataset_id: str) -> None:
    answer = client.post(f"/models/{model_id}/evaluate", json={"dataset_id": dataset_id})
    evaluation = client.get(f"/evaluations/{result_of(house, answer)['evaluation_id']}").json()
    assert evaluation["metrics"]["ap"] == client.get(f"/models/{model_id}").json()["metrics"]["ap"]


def a_training_from_it_keeps_its_widths(
    client: TestClient, house: Home, model_id: str, dataset_id: str
) -> None:
    wish = {"dataset_id": dataset_id, "init": model_id, "epochs": 1, "input_size": 64, "batch_size": 2}
    trained = result_of(house, client.post("/train", json={**wish, "architecture": "yolox-nano"}))
    shapes = {name: value.shape for name, value in weights_of(client, trained["model_id"]).items()}
    assert shapes == {name: value.shape for name, value in weights_of(client, model_id).items()}
