"""Plans over HTTP: what may be asked, what the job is told, and what a pinned shape does."""

from __future__ import annotations

from typing import Any

import pytest

from app.database.tables import Model
from app.jobs.states import Queue
from detection.inference.serving import Precision, ServingShape
from tests.integration.api.conftest import Api, assert_problem, pointers

SHAPE = {"backend": "openvino", "precision": "bf16", "streams": 2, "threads": 1, "batch_size": 1}
GRAPH = {"onnx": b"graph"}


def test_a_plan_is_a_job_with_everything_filled_in(api: Api) -> None:
    dataset_id = api.ready_dataset()
    model_id = api.model(GRAPH, provenance={"dataset_id": dataset_id}, name="cats")
    answer = api.post(f"/models/{model_id}/plan", {"p95_ms": 50, "rps": 10})
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/jobs/{job['id']}")
    assert (job["kind"], job["queue"], job["name"]) == ("plan", "gpu", "plan for cats")
    assert (job["model_id"], job["dataset_id"]) == (model_id, dataset_id)
    assert job["config"] == {
        "model_id": model_id,
        "p95_ms": 50.0,
        "rps": 10.0,
        "max_ap_drop": 0.005,
        "dataset_id": dataset_id,
        "split": "val",
        "device": "auto",
        "seconds": 2.0,
        "pin": True,
    }
    assert api.bell.rings == [(job["id"], Queue.GPU)]
    assert api.client.post(f"/models/{model_id}/plan").status_code == 202


@pytest.mark.parametrize(
    ("wish", "pointer"),
    [
        ({"p95_ms": 0}, "/p95_ms"),
        ({"rps": -1}, "/rps"),
        ({"rps": "fast"}, "/rps"),
        ({"max_ap_drop": 2}, "/max_ap_drop"),
        ({"seconds": 0}, "/seconds"),
        ({"device": "cuda"}, "/device"),
        ({"p99_ms": 5}, "/p99_ms"),
    ],
)
def test_a_wrong_wish_is_named(api: Api, wish: dict[str, Any], pointer: str) -> None:
    problem = assert_problem(api.post(f"/models/{api.model(GRAPH)}/plan", wish), 422, "invalid_input")
    assert pointers(problem) == [pointer]


@pytest.mark.parametrize("work", ["plan", "profile", "evaluate"])
@pytest.mark.parametrize("device", ["gpu", "0,1", "CPU"])
def test_a_wrong_device_is_told_which_are_right(api: Api, work: str, device: str) -> None:
    body = {"device": device, **({"dataset_id": "any"} if work == "evaluate" else {})}
    problem = assert_problem(api.post(f"/models/{api.model(GRAPH)}/{work}", body), 422, "invalid_input")
    assert pointers(problem) == ["/device"]
    assert "should be `auto`, `cpu`, or one accelerator by number: `0`" in problem["detail"]


def test_a_plan_needs_pictures_a_graph_and_a_detector(api: Api) -> None:
    here = f"/models/{api.model(GRAPH)}/plan"
    problem = assert_problem(api.post(here, {}), 422, "invalid_input")
    assert pointers(problem) == ["/dataset_id"]
    assert "name one as `dataset_id`" in problem["errors"][0]["problem"]
    assert_problem(api.post(here, {"dataset_id": "none"}), 404, "not_found")
    assert_problem(api.post(here, {"dataset_id": api.ready_dataset(splits={})}), 409, "empty_split")
    problem = assert_problem(api.post(f"/models/{api.model()}/plan", {}), 409, "file_not_made")
    assert problem["links"]["export"].endswith("/export")
    assert_problem(api.post(f"/models/{api.model(task='classify')}/plan", {}), 409, "wrong_task")
    assert_problem(api.post("/models/none/plan", {}), 404, "not_found")


def test_the_last_plan_stays_with_the_model(api: Api) -> None:
    model_id = api.model()
    assert_problem(api.get(f"/models/{model_id}/plan"), 404, "not_found")
    row = {
        **SHAPE,
        **dict.fromkeys(("pictures_per_s", "p50_ms", "p95_ms", "alone_p50_ms", "alone_p95_ms"), 9.5),
        "ap": None,
        "ap_drop": None,
        "same_boxes": 1.0,
        "agrees": True,
        "why_not": None,
    }
    of_an_older_version = {name: value for name, value in row.items() if name != "why_not"}
    plan = {
        "model_id": model_id,
        "job_id": "j",
        "made_at": "2026-11-30T12:00:00Z",
        "device": "cpu",
        "processor": "Fast Core",
        "cores": 2,
        "dataset_id": "d",
        "split": "val",
        "pictures": 3,
        "others_share": 0.434,
        "beside": "other processes used 43%",
        "wish": {"p95_ms": None, "rps": None, "max_ap_drop": 0.005},
        "rows": [row],
        "winner": row,
        "pinned": SHAPE,
        "closest": None,
        "unmet": [],
    }
    with api.session() as session:
        session.get_one(Model, model_id).plan = {**plan, "rows": [of_an_older_version]}
        session.commit()
    assert api.get(f"/models/{model_id}/plan").json() == plan
    with api.session() as session:
        new = {"others_share", "beside"}
        older = {name: value for name, value in plan.items() if name not in new}
        session.get_one(Model, model_id).plan = older
        session.commit()
    assert api.get(f"/models/{model_id}/plan").json() == {**plan, **dict.fromkeys(new)}


def test_what_is_pinned_is_shown_told_to_the_engine_and_taken_away(api: Api) -> None:
    model_id = api.model(GRAPH, serving=SHAPE)
    here, choice = f"/models/{model_id}", api.state.detection.models
    assert api.get(here).json()["serving"] == SHAPE
    assert choice.describe(model_id).shape == ServingShape("openvino", Precision.BF16, 2, 1, 1)
    assert api.client.patch(here, json={"name": "kept"}).json()["serving"] == SHAPE
    assert api.client.patch(here, json={"serving": None}).json()["serving"] is None
    assert choice.describe(model_id).shape is None
    problem = assert_problem(api.client.patch(here, json={"serving": SHAPE}), 422, "invalid_input")
    assert pointers(problem) == ["/serving"]
    assert "POST /models/{id}/plan" in problem["detail"]
