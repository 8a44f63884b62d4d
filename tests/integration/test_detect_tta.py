"""`POST /detect` with test-time augmentation: the engine answers what the library answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from app.database.upgrade import upgrade_database
from app.main import create_app
from app.settings import Settings
from detection.deploy.package import write_model
from detection.inference.passes import DEFAULT_PASSES, TtaPass, passes_of
from detection.inference.predictor import DetectOptions, Prediction, Predictor
from detection.model_record import ModelRecord
from detection.models import create_model
from tests.pictures import jpeg, noise
from tests.published import add_model, add_real_model
from tests.serving import EngineProcess, short_folder

RECORD = ModelRecord(architecture="yolox-nano", classes=("cat", "dog", "owl"), input_size_hw=(128, 160))
PICTURES = [jpeg(noise(150, 100)), jpeg(noise(200, 200, seed=2)), jpeg(noise(160, 128, seed=1))]
CHOICE = {"score_threshold": 0.3}
CLEARLY = 0.31
"""A score that both reach, whatever was rounded on the way."""
RAW = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real network, random, with scores that are not all alike and boxes that are not immense."""
    torch.manual_seed(0)
    detector = create_model(RECORD.architecture, num_classes=3)
    for layer in detector.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for name, weights in detector.named_parameters():
            if "preds" in name:
                weights.mul_(0.1 if "reg_preds" in name else 10)
        for _ in range(20):
            detector(torch.rand(4, 3, 128, 160) * 255)
    folder = tmp_path_factory.mktemp("model")
    write_model(detector.eval(), RECORD, folder)
    return folder


@pytest.fixture(scope="module")
def settings(folder: Path) -> Iterator[Settings]:
    with short_folder() as home:
        settings = Settings(home=home, device="cpu", max_detect_images=3)
        upgrade_database(settings)
        add_model(settings, "graph-only")
        add_real_model(settings, folder)
        yield settings


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[TestClient]:
    engine = EngineProcess(settings)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client
    assert engine.stop() == 0


def expected(folder: Path, passes: tuple[TtaPass, ...], picture: bytes) -> Prediction:
    options = DetectOptions(score_threshold=0.3, passes=passes)
    (answer,) = Predictor.from_folder(folder).predict([picture], options)
    assert isinstance(answer, Prediction)
    return answer


def same(image: dict[str, Any], prediction: Prediction) -> None:
    """Compare without their order: two backends round differently, and many scores are nearly alike."""
    found = prediction.detections
    boxes = torch.tensor([list(each["box"].values()) for each in image["detections"]])
    scores = torch.tensor([each["score"] for each in image["detections"]])
    assert abs(len(boxes) - len(found)) <= 2
    distance_NM = torch.cdist(found.boxes_N4, boxes, p=float("inf"))
    distance_NM += 1000 * (found.scores_N[:, None] - scores).abs()
    assert distance_NM.amin(dim=1)[found.scores_N > CLEARLY].max() < 1
    assert distance_NM.amin(dim=0)[scores > CLEARLY].max() < 1
    assert (scores > CLEARLY).sum() > 5


def asked(api: TestClient, picture: bytes, **parameters: Any) -> dict[str, Any]:
    answer = api.post(
        "/detect", content=picture, headers=RAW, params={"model": "real", **CHOICE, **parameters}
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_is_answered_as_the_library_answers_it(
    api: TestClient, folder: Path, picture: bytes
) -> None:
    plain, augmented = asked(api, picture), asked(api, picture, tta="true")
    same(augmented["images"][0], expected(folder, DEFAULT_PASSES, picture))
    assert plain["images"][0]["detections"] != augmented["images"][0]["detections"]
    assert (plain["timing"]["passes"], augmented["timing"]["passes"]) == (1, 3)
    assert asked(api, picture, tta="false")["images"] == plain["images"]


@pytest.mark.parametrize(
    ("wish", "passes"),
    [
        ({"scales": [1, 1.3], "flips": ["none", "lr"]}, passes_of([1, 1.3], ["none", "lr"])),
        ({"scales": [0.5]}, passes_of([0.5], ["none"])),
        ({"scales": [1, 1, 1], "flips": ["none", "lr", "ud"]}, passes_of([1, 1, 1], ["none", "lr", "ud"])),
    ],
)
def test_passes_can_be_chosen_in_the_query_in_a_form_and_in_json(
    api: TestClient, folder: Path, wish: dict[str, Any], passes: tuple[TtaPass, ...]
) -> None:
    picture, of_real = PICTURES[0], {"model": "real", **CHOICE}
    body = {**of_real, "images": [{"data": base64.b64encode(picture).decode()}], "tta": wish}
    answers = [
        asked(api, picture, tta=json.dumps(wish)),
        api.post(
            "/detect", files={"image": ("a.jpg", picture)}, data={**of_real, "tta": json.dumps(wish)}
        ).json(),
        api.post("/detect", json=body).json(),
    ]
    for answer in answers:
        same(answer["images"][0], expected(folder, passes, picture))
        assert answer["timing"]["passes"] == len(passes)
    assert answers[0]["images"] == answers[1]["images"] == answers[2]["images"]


def test_in_a_batch_a_bad_picture_costs_its_own_answer_only(api: TestClient, folder: Path) -> None:
    pictures = [PICTURES[0], PICTURES[1][:200], PICTURES[2]]
    files = [("image", (f"{number}.jpg", each)) for number, each in enumerate(pictures)]
    answer = api.post("/detect", files=files, data={"model": "real", **CHOICE, "tta": "true"})
    assert answer.status_code == 200, answer.text
    images = answer.json()["images"]
    assert images[1]["error"]["code"] == "damaged_image"
    for place in (0, 2):
        same(images[place], expected(folder, DEFAULT_PASSES, pictures[place]))
    assert answer.json()["timing"]["passes"] == 3


def test_a_picture_can_be_annotated_too(api: TestClient) -> None:
    parameters = {"model": "real", **CHOICE, "tta": "true"}
    drawn = api.post(
        "/detect", content=PICTURES[0], headers={**RAW, "Accept": "image/jpeg"}, params=parameters
    )
    assert drawn.status_code == 200
    assert drawn.headers["content-type"] == "image/jpeg"
    plain = api.post(
        "/detect",
        content=PICTURES[0],
        headers={**RAW, "Accept": "image/jpeg"},
        params={"model": "real", **CHOICE},
    )
    assert drawn.content != plain.content


@pytest.mark.parametrize(
    ("tta", "pointer", "words"),
    [
        ("perhaps", "/tta", "should be `true`, `false`, or an object"),
        ('{"scales": [1, 3]}', "/tta/scales/1", "less than or equal to 2"),
        ('{"scales": [1], "flips": ["left"]}', "/tta/flips/0", "'none', 'lr' or 'ud'"),
        ('{"scales": [1, 0.5], "flips": ["lr"]}', "/tta", "2 `scales` and 1 `flips`"),
        ('{"scales": [1, 1]}', "/tta", "is there twice"),
        ('{"scales": [2, 2, 0.1], "flips": ["none", "lr", "ud"]}', "/tta/scales", "cost as much as 8.01"),
        ('{"scale": [1]}', "/tta/scale", "did you mean `scales`?"),
    ],
)
def test_what_makes_no_sense_is_said(api: TestClient, tta: str, pointer: str, words: str) -> None:
    picture = base64.b64encode(PICTURES[0]).decode()
    by_query = api.post("/detect", content=PICTURES[0], headers=RAW, params={"tta": tta})
    by_form = api.post("/detect", files={"image": ("a.jpg", PICTURES[0])}, data={"tta": tta})
    answers = [by_query, by_form]
    if tta.startswith("{"):
        answers.append(api.post("/detect", json={"images": [{"data": picture}], "tta": json.loads(tta)}))
    for answer in answers:
        assert answer.status_code == 422, answer.text
        problems = {each["pointer"]: each["problem"] for each in answer.json()["errors"]}
        assert words in problems[pointer]


def test_a_word_is_no_truth_in_json(api: TestClient) -> None:
    body = {"images": [{"data": base64.b64encode(PICTURES[0]).decode()}], "tta": "true"}
    answer = api.post("/detect", json=body)
    assert answer.status_code == 422
    assert "should be `true`, `false`" in answer.json()["detail"]


def test_views_of_the_models_own_size_need_its_graph_only(api: TestClient) -> None:
    parameters = {"model": "graph-only", "score_threshold": 0.01}
    mirrored = json.dumps({"scales": [1, 1], "flips": ["none", "lr"]})
    answer = api.post("/detect", content=PICTURES[0], headers=RAW, params={**parameters, "tta": mirrored})
    assert answer.status_code == 200, answer.text
    smaller = json.dumps({"scales": [1, 0.4]})
    answer = api.post("/detect", content=PICTURES[0], headers=RAW, params={**parameters, "tta": smaller})
    assert answer.status_code == 503
    assert answer.json()["code"] == "model_unavailable"
    assert "has no safetensors file" in answer.json()["detail"]


def test_on_a_backend_of_any_size_all_views_share_one_batcher(folder: Path) -> None:
    with short_folder() as home:
        settings = Settings(home=home, device="cpu", backend="eager", engine_batch_size=8)
        upgrade_database(settings)
        add_real_model(settings, folder)
        engine = EngineProcess(settings)
        files = [("image", (f"{number}.jpg", each)) for number, each in enumerate(PICTURES)]
        with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
            answer = client.post("/detect", files=files, data={"model": "real", **CHOICE, "tta": "true"})
        assert engine.stop() == 0
    assert answer.status_code == 200, answer.text
    for image, picture in zip(answer.json()["images"], PICTURES, strict=True):
        same(image, expected(folder, DEFAULT_PASSES, picture))
