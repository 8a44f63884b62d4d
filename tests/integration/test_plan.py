"""A plan over the API, by a real worker, of a real network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from detection.model_record import ModelRecord
from detection.others import WORTH_SAYING
from tests.real_model import add_real_model
from tests.services import Home
from tests.tiny_dataset import CLASSES, NUM_VAL, SIDE, add_tiny_dataset


@pytest.fixture(scope="module")
def client(house: Home) -> Iterator[TestClient]:
    app = create_app(house.settings, bell=house.bell)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client


def test_every_way_is_measured_and_the_best_is_pinned(client: TestClient, house: Home) -> None:
    record = ModelRecord(
        architecture="yolox-nano",
        classes=CLASSES,
        input_size_hw=(SIDE, SIDE),
        evaluation_score_threshold=1e-6,  # random weights are sure of nothing
    )
    model_id, dataset_id = add_real_model(house, record, name="nano"), add_tiny_dataset(house)
    wish = {"dataset_id": dataset_id, "seconds": 0.1, "rps": 0.1}
    job = house.wait_for(client.post(f"/models/{model_id}/plan", json=wish).json()["id"], timeout_s=120)
    assert job.status == "succeeded", house.logs()
    plan = client.get(f"/models/{model_id}/plan").json()
    assert plan["rows"] == (job.result or {})["rows"]
    assert 0 <= plan["others_share"] <= 1
    assert (plan["beside"] is None) == (plan["others_share"] < WORTH_SAYING)
    assert (plan["job_id"], plan["dataset_id"], plan["pictures"]) == (job.id, dataset_id, NUM_VAL)
    rows = {(row["backend"], row["precision"]) for row in plan["rows"]}
    assert {("eager", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32")} <= rows
    assert all(row["agrees"] for row in plan["rows"] if row["precision"] == "fp32")
    assert all(row["pictures_per_s"] > 0 for row in plan["rows"])
    assert plan["winner"]["agrees"]
    shown = client.get(f"/models/{model_id}").json()
    assert shown["serving"] == plan["pinned"]
    assert plan["pinned"].items() <= plan["winner"].items()
