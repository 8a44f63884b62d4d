"""A second stage over HTTP with a real worker and engine: from labelled archives to classified boxes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from app.detect.schemas import DetectAnswer
from app.jobs.states import JobStatus
from app.main import create_app
from detection.images import Pixels, decode_image
from detection.models.classifier import build_classifier
from tests.archives import zip_of
from tests.pictures import jpeg, noise
from tests.published import add_model
from tests.services import Home
from tests.serving import EngineProcess

SIDE = 96
COLOURS = {"red": (30, 30, 230), "blue": (230, 40, 30)}
"""Blue, green, red."""
QUICK = {"task": "classify", "architecture": "mobilenet_v3_small", "input_size": 64, "device": "cpu"}


def coloured(name: str, seed: int) -> Pixels:
    """Return a picture in which nearly everything has one colour."""
    pixels = noise(SIDE, SIDE, seed) // 8
    pixels[8:-8, 8:-8] = COLOURS[name]
    return pixels


@pytest.fixture(scope="module")
def api(house: Home) -> Iterator[TestClient]:
    with TestClient(create_app(house.settings), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def engine(house: Home) -> Iterator[EngineProcess]:
    engine = EngineProcess(house.settings)
    yield engine
    assert engine.stop() == 0


def uploaded(house: Home, api: TestClient, files: dict[str, bytes]) -> dict[str, Any]:
    """Upload an archive and return the dataset that it becomes."""
    answer = api.post(
        "/datasets", files={"archive": ("a.zip", zip_of(files))}, data={"validation_fraction": 0.3}
    )
    assert answer.status_code == 202, answer.text
    assert house.wait_for(answer.json()["job_id"]).status == JobStatus.SUCCEEDED, house.logs()
    dataset: dict[str, Any] = api.get(answer.headers["Location"]).json()
    return dataset


def trained(house: Home, api: TestClient, **fields: Any) -> dict[str, Any]:
    """Train a classifier and return the model."""
    answer = api.post("/train", json={**QUICK, **fields})
    assert answer.status_code == 202, answer.text
    job = house.wait_for(answer.json()["id"], timeout_s=240)
    assert job.status == JobStatus.SUCCEEDED, house.logs()
    assert {"loss", "cross_entropy", "train_accuracy", "accuracy", "lr"} <= set(job.metrics)
    model: dict[str, Any] = api.get(f"/models/{(job.result or {})['model_id']}").json()
    return model


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    problem: dict[str, Any] = answer.json()
    return problem


def cars() -> dict[str, bytes]:
    """Return an archive in which every car has a colour, but for a few."""
    images, annotations, files = [], [], {}
    for number in range(1, 21):
        name = f"{number}.jpg"
        pixels, colour = noise(SIDE, SIDE, number) // 8, ["red", "blue"][number % 2]
        pixels[24:72, 16:64] = COLOURS[colour]
        files[name] = jpeg(pixels)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        said = {"colour": colour} if number > 2 else {}
        box = {
            "id": number,
            "image_id": number,
            "category_id": 1,
            "bbox": [16, 24, 48, 48],
            "attributes": said,
        }
        annotations.append(box)
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "car"}]}
    return {"instances.json": json.dumps(document).encode(), **files}


def test_a_folder_per_class_becomes_a_classifier(house: Home, api: TestClient) -> None:
    names = [(name, number) for name in COLOURS for number in range(12)]
    archive = {f"{name}/{number}.jpg": jpeg(coloured(name, number)) for name, number in names}
    dataset = uploaded(house, api, archive)
    assert (dataset["format"], dataset["classes"], dataset["attributes"]) == ("folders", ["blue", "red"], {})

    model = trained(house, api, dataset_id=dataset["id"], epochs=6, batch_size=8, optimizer={"lr": 0.003})
    assert (model["task"], model["architecture"], model["input_size"]) == (
        "classify",
        QUICK["architecture"],
        [64, 64],
    )
    assert (model["classes"], model["metrics"]["split"]) == (["blue", "red"], "val")
    assert model["record"]["input_convention"]["std"] == [0.229, 0.224, 0.225]
    assert model["record"]["crop"] == {"enlarge": 1.3, "margin": 30.0, "detector_input_size": 640}
    assert {file["format"] for file in model["files"]} == {"onnx", "safetensors"}
    assert model["metrics"]["confusion_matrix"]["labels"] == ["blue", "red"]
    assert model["links"]["detect"] == f"/detect?classifier={model['id']}"

    job = api.post(
        f"/models/{model['id']}/evaluate", json={"dataset_id": dataset["id"], "split": "val"}
    ).json()
    ended = house.wait_for(job["id"], timeout_s=120)
    assert ended.status == JobStatus.SUCCEEDED, house.logs()
    again = api.get(f"/evaluations/{(ended.result or {})['evaluation_id']}").json()
    assert {name: again["metrics"][name] for name in model["metrics"] if name in again["metrics"]}[
        "accuracy"
    ] == model["metrics"]["accuracy"]
    assert sum(map(sum, again["confusion_matrix"]["counts"])) == model["metrics"]["crops"]
    assert (again["curves"], again["confusion_matrix"]["iou"]) == (None, None)

    exported = api.get(f"/datasets/{dataset['id']}/export", params={"format": "folders"})
    assert exported.content.startswith(b"PK")


def test_an_attribute_becomes_a_classifier_that_looks_at_boxes(
    house: Home, api: TestClient, engine: EngineProcess
) -> None:
    dataset = uploaded(house, api, cars())
    assert {colour: sum(boxes.values()) for colour, boxes in dataset["attributes"]["colour"].items()} == {
        "blue": 9,
        "red": 9,
    }
    here = {"dataset_id": dataset["id"]}
    wrong = refused(api.post("/train", json={**QUICK, **here, "attribute": "shape"}), 422, "invalid_input")
    assert "there are: 'colour'" in wrong["detail"]
    wrong = refused(api.post("/train", json={**QUICK, **here}), 422, "invalid_input")
    assert "its only class is 'car'" in wrong["detail"]
    model = trained(house, api, **here, attribute="colour", epochs=6, batch_size=4, optimizer={"lr": 0.003})
    assert (model["classes"], model["record"]["attribute"]) == (["blue", "red"], "colour")
    assert "2 boxes without the attribute 'colour' were left out" in house.logs()

    add_model(house.settings, "finder")
    picture = jpeg(coloured("red", 99))
    asked = {"model": "finder", "score_threshold": 0.01, "max_detections": 30}
    plain = api.post("/detect", content=picture, headers={"Content-Type": "image/jpeg"}, params=asked)
    assert plain.status_code == 200, plain.text
    both = {**asked, "classifier": model["id"], "annotate": True}
    answer = api.post("/detect", content=picture, headers={"Content-Type": "image/jpeg"}, params=both)
    assert answer.status_code == 200, answer.text
    assert DetectAnswer.model_validate(answer.json()).timing.classify_ms > 0
    found = answer.json()["images"][0]["detections"]
    assert found
    assert [
        {name: each[name] for name in each if name != "classification"} for each in found
    ] == plain.json()["images"][0]["detections"]
    for each in found:
        said = each["classification"]
        assert model["classes"][said["class_id"]] == said["label"]
        assert 0.5 <= said["score"] <= 1

    it_is_asked_in_every_way(api, picture, asked, model["id"])
    each_task_has_its_place(api, picture, model["id"])


def it_is_asked_in_every_way(api: TestClient, picture: bytes, asked: dict[str, Any], classifier: str) -> None:
    form = api.post("/detect", files={"image": ("a.jpg", picture)}, data={**asked, "classifier": classifier})
    alias = api.patch(f"/models/{classifier}", json={"alias": "production"})
    assert alias.status_code == 200
    as_jpeg = api.post(
        "/detect",
        content=picture,
        headers={"Content-Type": "image/jpeg", "Accept": "image/jpeg"},
        params={**asked, "classifier": "production"},
    )
    assert all("classification" in each for each in form.json()["images"][0]["detections"])
    assert decode_image(as_jpeg.content).size_wh == (SIDE, SIDE)


def each_task_has_its_place(api: TestClient, picture: bytes, classifier: str) -> None:
    """The default is never a classifier, even when it has the alias of the default."""
    headers = {"Content-Type": "image/jpeg"}
    assert api.post("/detect", content=picture, headers=headers).json()["model"] != classifier
    for wrong in ({"model": classifier}, {"classifier": "finder"}):
        refused(api.post("/detect", content=picture, headers=headers, params=wrong), 409, "wrong_task")
    refused(
        api.post("/detect", content=picture, headers=headers, params={"classifier": "no"}), 404, "not_found"
    )
    mixed = {"dataset_id": "x", "task": "classify", "architecture": "yolox-nano"}
    assert (
        "to classify there are resnet18"
        in refused(api.post("/train", json=mixed), 422, "invalid_input")["detail"]
    )


def test_weights_of_torchvision_are_imported_and_fine_tuned(house: Home, api: TestClient) -> None:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save(build_classifier("mobilenet_v3_small", num_classes=1000).state_dict(), buffer)
    job = api.post("/models/import", files={"weights": ("mobilenet.pth", buffer.getvalue())}).json()
    ended = house.wait_for(job["id"], timeout_s=120)
    assert ended.status == JobStatus.SUCCEEDED, house.logs()
    model = api.get(f"/models/{(ended.result or {})['model_id']}").json()
    assert (model["task"], model["architecture"]) == ("classify", "mobilenet_v3_small")
    assert (len(model["classes"]), model["classes"][0]) == (1000, "tench")

    dataset = uploaded(house, api, cars())
    fields = {"dataset_id": dataset["id"], "attribute": "colour", "epochs": 1, "batch_size": 8}
    tuned = trained(house, api, **fields, init="pretrained", freeze={"parts": ["backbone"]})
    assert tuned["provenance"]["init_model_id"] == model["id"]
    assert "weights that start at random: classifier.3.bias, classifier.3.weight" in house.logs()
    assert np.isfinite(tuned["metrics"]["accuracy"])
