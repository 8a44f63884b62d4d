"""Trainings started again over REST with a real worker: the same weights to the bit, or a reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from safetensors.torch import load

from app.jobs.states import JobStatus
from app.main import create_app
from tests.services import Home
from tests.tiny_dataset import add_tiny_dataset

TINY = {
    "architecture": "yolox-nano",
    "epochs": 2,
    "batch_size": 2,
    "input_size": 64,
    "schedule": {"no_aug_epochs": 1},
}


@pytest.fixture
def api(house: Home) -> Iterator[TestClient]:
    with TestClient(create_app(house.settings), base_url="http://127.0.0.1") as client:
        yield client


def post(api: TestClient, path: str, body: dict[str, Any]) -> Any:
    answer = api.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def ended(house: Home, api: TestClient, job: dict[str, Any]) -> Any:
    """Wait for a job, and return it as the API shows it, with its log."""
    assert house.wait_for(job["id"], timeout_s=240).status == JobStatus.SUCCEEDED, house.logs()
    return {**api.get(f"/jobs/{job['id']}").json(), "log": api.get(f"/jobs/{job['id']}/log").text}


def weights_of(api: TestClient, model_id: str) -> Any:
    content = api.get(f"/models/{model_id}/weights").content
    shown = api.get(f"/models/{model_id}").json()
    files = {file["format"]: file["sha256"] for file in shown["files"]}
    assert hashlib.sha256(content).hexdigest() == files["safetensors"]
    return load(content)


def test_a_training_gives_the_same_weights_again(house: Home, api: TestClient) -> None:
    dataset_id = add_tiny_dataset(house)
    # One thread, whatever the worker has: what reproduces it must take this number from the configuration.
    job = post(api, "/train", {**TINY, "dataset_id": dataset_id, "name": "tiny", "threads": 1})
    original_id = ended(house, api, job)["result"]["model_id"]
    original = api.get(f"/models/{original_id}").json()
    is_told_whole(original["provenance"])

    job = ended(house, api, post(api, f"/models/{original_id}/reproduce", {}))
    told = job["result"]["reproduction"]
    assert told["identical"] is True, told
    assert (told["within_tolerance"], told["differing_tensors"], told["worst_tensor"]) == (True, 0, None)
    assert (told["max_abs_difference"], told["max_relative_difference"]) == (0.0, 0.0)
    assert told["tensors_sha256"] == told["original_tensors_sha256"]
    assert told["original_model_id"] == original_id
    assert told["ap"] == told["original_ap"] == original["metrics"]["ap"]
    assert told["differences"] == []
    assert "tensors are the same to the bit" in job["log"]
    assert f"this reproduces the model {original_id} (tiny)" in job["log"]

    reproduced = api.get(f"/models/{job['result']['model_id']}").json()
    assert (reproduced["name"], reproduced["origin"]) == ("tiny (reproduced)", "trained")
    assert reproduced["provenance"]["reproduction"] == told
    assert reproduced["provenance"]["step"] == original["provenance"]["step"]
    first, second = (weights_of(api, each) for each in (original_id, reproduced["id"]))
    assert all(first[name].equal(value) for name, value in second.items())

    without_its_dataset_it_is_refused(api, original)


def is_told_whole(provenance: dict[str, Any]) -> None:
    expected = {
        *("dataset_id", "dataset_sha256", "dataset_content_sha256", "config", "config_sha256", "seed"),
        *("deterministic", "precision", "threads", "step", "steps_done", "micro_batches", "recoveries"),
        *("source", "versions", "devices", "device", "processor", "instructions", "platform"),
        *("init_model_id", "init_sha256", "ended_early"),
    }
    assert expected <= provenance.keys()
    libraries = {"python", "harrier", "torch", "torchvision", "numpy", "opencv-python", "onnx", "onnxruntime"}
    assert libraries <= provenance["versions"].keys()
    assert (provenance["threads"], provenance["config"]["threads"]) == (1, 1)


def without_its_dataset_it_is_refused(api: TestClient, original: dict[str, Any]) -> None:
    assert api.delete(f"/datasets/{original['provenance']['dataset_id']}").status_code == 204
    answer = api.post(f"/models/{original['id']}/reproduce", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_reproducible")
    assert "was deleted" in answer.json()["detail"]
