"""Profiles and pruning over HTTP: what may be asked, and what the jobs are told."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete

from app.database.tables import Dataset
from app.jobs.states import Queue
from tests.integration.api.conftest import Api, assert_problem, pointers


def test_a_profile_is_a_job_with_everything_filled_in(api: Api) -> None:
    model_id = api.model()
    answer = api.post(f"/models/{model_id}/profile", {})
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/jobs/{job['id']}")
    assert (job["kind"], job["queue"], job["model_id"]) == ("profile", "gpu", model_id)
    assert job["config"] == {
        "model_id": model_id,
        "device": "auto",
        "input_size": [416, 416],
        "batch_size": 1,
        "runs": 20,
        "half": False,
        "type": None,
        "verbose": False,
    }
    assert api.bell.rings == [(job["id"], Queue.GPU)]


@pytest.mark.parametrize("call", ["profile", "prune"])
def test_a_call_without_a_body_means_the_defaults(api: Api, call: str) -> None:
    here = f"/models/{api.model()}/{call}"
    answer = api.client.post(here)
    assert answer.status_code == 202, answer.json()
    assert answer.json()["config"] == api.post(here, {}).json()["config"]


@pytest.mark.parametrize(
    ("given", "meant"), [(640, [640, 640]), ([640, 320], [640, 320]), (None, [416, 416])]
)
def test_an_input_size_is_a_side_or_two(api: Api, given: Any, meant: list[int]) -> None:
    job = api.post(f"/models/{api.model()}/profile", {"input_size": given}).json()
    assert job["config"]["input_size"] == meant


@pytest.mark.parametrize(
    ("wish", "pointer"),
    [
        ({"input_size": 100}, "/input_size"),
        ({"input_size": [64]}, "/input_size"),
        ({"half": "yes"}, "/half"),
        ({"verbose": 1}, "/verbose"),
        ({"batch_size": True}, "/batch_size"),
        ({"runs": "3"}, "/runs"),
        ({"input_size": [640, 321]}, "/input_size"),
        ({"runs": 0}, "/runs"),
        ({"batch_size": 0}, "/batch_size"),
        ({"device": "cuda"}, "/device"),
        ({"type": "Conv 2d"}, "/type"),
        ({"verbos": True}, "/verbos"),
    ],
)
def test_a_wrong_profile_is_named(api: Api, wish: dict[str, Any], pointer: str) -> None:
    problem = assert_problem(api.post(f"/models/{api.model()}/profile", wish), 422, "invalid_input")
    assert pointers(problem) == [pointer]


def test_pruning_is_a_job_that_measures_where_the_model_was_trained(api: Api) -> None:
    dataset_id = api.ready_dataset()
    model_id = api.model(provenance={"dataset_id": dataset_id}, name="cats")
    job = api.post(f"/models/{model_id}/prune", {}).json()
    assert (job["kind"], job["queue"], job["name"]) == ("prune", "gpu", "cats, layer pruned by 0.3")
    assert (job["model_id"], job["dataset_id"]) == (model_id, dataset_id)
    assert job["config"] == {
        "model_id": model_id,
        "amount": 0.3,
        "scope": "layer",
        "finetune_epochs": 0,
        "dataset_id": dataset_id,
        "split": "val",
        "device": "auto",
        "name": "cats, layer pruned by 0.3",
        "unmeasured": None,
        "training": None,
    }


def test_without_a_dataset_the_reason_is_kept(api: Api) -> None:
    unknown = api.post(f"/models/{api.model()}/prune", {}).json()
    assert unknown["dataset_id"] is None
    assert "name one as `dataset_id`" in unknown["config"]["unmeasured"]
    dataset_id = api.ready_dataset()
    model_id = api.model(provenance={"dataset_id": dataset_id})
    empty = api.post(f"/models/{model_id}/prune", {"split": "test"}).json()
    assert empty["config"]["unmeasured"] == "the dataset it was trained on has no pictures in `test`"
    with api.session() as session:
        session.execute(delete(Dataset))
        session.commit()
    gone = api.post(f"/models/{model_id}/prune", {}).json()
    assert "or that is gone" in gone["config"]["unmeasured"]


def test_fine_tuning_is_a_short_run_from_the_model(api: Api) -> None:
    dataset_id = api.ready_dataset()
    model_id = api.model(provenance={"dataset_id": dataset_id})
    wish = {"scope": "channels", "amount": 0.5, "finetune_epochs": 3, "name": "small"}
    job = api.post(f"/models/{model_id}/prune", wish).json()
    training = job["config"]["training"]
    assert job["name"] == "small"
    assert (training["architecture"], training["init"]) == ("yolox-nano", model_id)
    assert (training["epochs"], training["input_size"]) == (3, 416)
    assert training["optimizer"]["lr"] > 0


def test_fine_tuning_needs_pictures_of_the_models_classes(api: Api) -> None:
    here = f"/models/{api.model()}/prune"
    problem = assert_problem(api.post(here, {"finetune_epochs": 1}), 422, "invalid_input")
    assert pointers(problem) == ["/finetune_epochs"]
    other = api.ready_dataset(classes=["dog", "cat"])
    problem = assert_problem(
        api.post(here, {"finetune_epochs": 1, "dataset_id": other}), 422, "invalid_input"
    )
    assert pointers(problem) == ["/dataset_id"]
    splits = {"val": {"images": 2, "boxes": 2}}
    untrained = api.ready_dataset(splits=splits)
    assert_problem(api.post(here, {"finetune_epochs": 1, "dataset_id": untrained}), 409, "empty_split")
    wide = api.model(input_size=[320, 416])
    wish = {"finetune_epochs": 1, "dataset_id": api.ready_dataset()}
    problem = assert_problem(api.post(f"/models/{wide}/prune", wish), 422, "invalid_input")
    assert pointers(problem) == ["/finetune_epochs"]


def test_a_dataset_that_is_named_must_do(api: Api) -> None:
    here, dataset_id = f"/models/{api.model()}/prune", api.ready_dataset()
    assert_problem(api.post(here, {"dataset_id": dataset_id, "split": "test"}), 409, "empty_split")
    strangers = api.ready_dataset(classes=["car"])
    assert_problem(api.post(here, {"dataset_id": strangers}), 409, "no_common_classes")
    assert_problem(api.post(here, {"dataset_id": "nothing"}), 404, "not_found")
    assert_problem(api.post(here, {"dataset_id": api.upload().json()["id"]}), 409, "dataset_not_ready")


@pytest.mark.parametrize(
    ("wish", "pointer"),
    [
        ({"amount": 0}, "/amount"),
        ({"amount": 1e-320}, "/amount"),
        ({"amount": 0.9999999}, "/amount"),
        ({"amount": "0.3"}, "/amount"),
        ({"amount": 1}, "/amount"),
        ({"scope": "filters"}, "/scope"),
        ({"finetune_epochs": -1}, "/finetune_epochs"),
    ],
)
def test_wrong_pruning_is_named(api: Api, wish: dict[str, Any], pointer: str) -> None:
    problem = assert_problem(api.post(f"/models/{api.model()}/prune", wish), 422, "invalid_input")
    assert pointers(problem) == [pointer]


def test_only_detectors_are_pruned_and_all_models_profiled(api: Api) -> None:
    classifier = api.model(architecture="resnet18", task="classify", input_size=[224, 224])
    assert_problem(api.post(f"/models/{classifier}/prune", {}), 409, "wrong_task")
    assert api.post(f"/models/{classifier}/profile", {}).status_code == 202


@pytest.mark.parametrize("call", ["profile", "prune"])
def test_only_models_that_exist_are_analysed(api: Api, call: str) -> None:
    assert_problem(api.post(f"/models/nothing/{call}", {}), 404, "not_found")
