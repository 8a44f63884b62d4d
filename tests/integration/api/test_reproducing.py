"""What `POST /models/{id}/reproduce` queues, and what it refuses with which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest

from app.database.tables import Dataset, Model, ModelFile
from app.jobs.states import JobKind, JobStatus
from detection.families.yolox import YoloxConfig
from detection.training.recipes import resolve, settle
from tests.integration.api.conftest import Api, assert_problem

DATASET_SHA256, CONTENT_SHA256 = "a" * 64, "c" * 64


def trained(api: Api, *, init: str = "random", wish: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """Put a model in place as a training on the CPU leaves it, with its dataset."""
    asked = YoloxConfig(**{"epochs": 3, "init": init, "device": "cpu", **(wish or {})})
    config = settle(resolve(asked, num_images=8), device=asked.device, threads=2)
    provenance = {
        "config": asdict(config),
        "step": 3,
        "dataset_id": api.ready_dataset(sha256=DATASET_SHA256),
        "dataset_sha256": DATASET_SHA256,
        "dataset_content_sha256": CONTENT_SHA256,
        "init_sha256": None,
    }
    values = {"origin": "trained", "provenance": {**provenance, **changes.pop("provenance", {})}}
    return api.model({"safetensors": b"weights"}, **{**values, **changes})


def reproduce(api: Api, model_id: str, **body: Any) -> Any:
    return api.post(f"/models/{model_id}/reproduce", body)


def test_the_same_training_is_queued_again(api: Api) -> None:
    model_id = trained(api, name="cells")
    answer = reproduce(api, model_id)
    job = answer.json()
    assert answer.status_code == 202, job
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert (job["kind"], job["name"], job["reproduces"]) == ("train", "cells (reproduced)", model_id)
    model = api.get(f"/models/{model_id}").json()
    assert job["config"] == model["provenance"]["config"]
    assert job["dataset_id"] == model["provenance"]["dataset_id"]
    assert job["model_id"] is None
    assert job["links"]["reproduces"] == model["links"]["self"]
    assert model["links"]["reproduce"] == f"/models/{model_id}/reproduce"
    assert job["queue"] == "gpu"


def test_a_call_without_a_body_leaves_the_device_as_it_was(api: Api) -> None:
    model_id = trained(api)
    answer = api.client.post(f"/models/{model_id}/reproduce")
    assert answer.status_code == 202, answer.json()
    assert answer.json()["config"] == reproduce(api, model_id).json()["config"]


def test_a_long_name_still_ends_with_what_it_is(api: Api) -> None:
    name = reproduce(api, trained(api, name="x" * 200)).json()["name"]
    assert len(name) == 200
    assert name.endswith("x (reproduced)")


def test_only_the_device_can_be_another(api: Api) -> None:
    model_id = trained(api)
    config = reproduce(api, model_id, device="1").json()["config"]
    original = api.get(f"/models/{model_id}").json()["provenance"]["config"]
    assert config == {**original, "device": "1"}
    assert config["precision"] == "fp32", "not what a training of its own would take there"
    assert reproduce(api, model_id, device="0,1").json()["config"]["processes"] == 2
    for body in ({"epochs": 5}, {"device": "gpu"}, {"device": 0}, {"device": "0,00"}):
        assert_problem(reproduce(api, model_id, **body), 422, "invalid_input")


@pytest.mark.parametrize(
    ("wish", "device", "field"),
    [
        ({"processes": 2}, "0", "processes"),
        ({"device": "0,1", "sync_bn": True}, "cpu", "sync_bn"),
        ({"device": "0,1", "batch_size": 8}, "0,1,2", "batch_size"),
    ],
)
def test_a_device_that_its_configuration_cannot_run_on_is_refused(
    api: Api, wish: dict[str, Any], device: str, field: str
) -> None:
    model_id = trained(api, wish=wish)
    assert reproduce(api, model_id).status_code == 202
    problem = assert_problem(reproduce(api, model_id, device=device), 422, "invalid_input")
    [fault] = problem["errors"]
    assert fault["pointer"] == "/device"
    assert f"`{field}` of the first training" in fault["problem"]


def test_a_training_from_weights_begins_with_the_same_ones(api: Api) -> None:
    start = api.model({"safetensors": b"weights"})
    with api.session() as session:
        sha256 = session.get_one(ModelFile, (start, "safetensors")).sha256
    model_id = trained(api, init=start, provenance={"init_sha256": sha256})
    assert reproduce(api, model_id).json()["model_id"] == start

    other = trained(api, init=start, provenance={"init_sha256": "0" * 64})
    problem = assert_problem(reproduce(api, other), 409, "not_reproducible")
    assert "are not those that its training began with" in problem["detail"]
    lost = trained(api, init="gone")
    problem = assert_problem(reproduce(api, lost), 409, "not_reproducible")
    assert "the model gone, whose weights its training began with, was deleted" in problem["detail"]


def test_a_dataset_that_is_gone_or_another_is_refused(api: Api) -> None:
    model_id, other = trained(api), trained(api, provenance={"dataset_sha256": "b" * 64})
    problem = assert_problem(reproduce(api, other), 409, "not_reproducible")
    assert "is not the one it was trained on" in problem["detail"]
    with api.session() as session:
        dataset_id = session.get_one(Model, model_id).provenance["dataset_id"]
        session.delete(session.get_one(Dataset, dataset_id))
        session.commit()
    problem = assert_problem(reproduce(api, model_id), 409, "not_reproducible")
    assert f"its dataset {dataset_id} was deleted" in problem["detail"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"origin": "imported"}, "is imported"),
        ({"origin": "pruned"}, "is pruned"),
        (
            {"provenance": {"step": None, "dataset_content_sha256": None}},
            "did not record step, dataset_content",
        ),
        ({"provenance": {"config": {"architecture": "yolox-nano", "sead": 1}}}, "cannot be read here: sead"),
        (
            {"provenance": {"config": {"architecture": "yolox-nano", "epochs": 0}}},
            "cannot be read here: epochs",
        ),
    ],
)
def test_what_was_not_trained_here_like_this_is_refused(
    api: Api, changes: dict[str, Any], words: str
) -> None:
    problem = assert_problem(reproduce(api, trained(api, **changes)), 409, "not_reproducible")
    assert words in problem["detail"]


def test_there_must_be_such_a_model(api: Api) -> None:
    assert_problem(reproduce(api, "nothing"), 404, "not_found")


def test_a_model_is_kept_while_it_is_reproduced(api: Api) -> None:
    model_id = trained(api)
    job_id = reproduce(api, model_id).json()["id"]
    problem = assert_problem(api.client.delete(f"/models/{model_id}"), 409, "in_use")
    assert problem["links"]["job"] == f"/jobs/{job_id}"
    assert api.post(f"/jobs/{job_id}/cancel").status_code == 202
    assert api.job_row(job_id).status == JobStatus.CANCELLED
    assert api.client.delete(f"/models/{model_id}").status_code == 204


def test_an_ordinary_training_reproduces_nothing(api: Api) -> None:
    shown = api.get(f"/jobs/{api.job(JobKind.TRAIN)}").json()
    assert shown["reproduces"] is None
    assert "reproduces" not in shown["links"]


def test_the_same_key_queues_one_job(api: Api) -> None:
    model_id = trained(api)
    headers = {"Idempotency-Key": "once"}
    first, second = (api.post(f"/models/{model_id}/reproduce", {}, headers=headers).json() for _ in range(2))
    assert first["id"] == second["id"]
