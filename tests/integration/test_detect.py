"""`POST /detect` with a real engine: every way to send, every way to ask, every way to fail."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, update

from app.database.session import create_database_engine, create_sessions
from app.database.tables import Model
from app.database.upgrade import upgrade_database
from app.detect.formats import ALL as ALL_FORMS
from app.detect.schemas import DetectAnswer
from app.main import create_app
from app.settings import Settings
from detection.images import decode_image
from tests.pictures import bmp, jpeg, noise, png, png_header, quadrants, webp
from tests.published import CLASSES, add_model
from tests.serving import EngineProcess, short_folder, wait_for

PIXELS = noise(150, 100)
PICTURE = jpeg(PIXELS)
RAW = {"Content-Type": "image/jpeg"}
ALL = {"score_threshold": 0.01}
"""Parameters with which random weights see something."""


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with short_folder() as folder:
        settings = Settings(
            home=folder,
            device="cpu",
            max_image_bytes=200_000,
            max_detect_bytes=1_000_000,
            max_detect_images=3,
            max_image_pixels=1_000_000,
        )
        upgrade_database(settings)
        add_model(settings, "m1", alias="first")
        yield settings


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[EngineProcess]:
    engine = EngineProcess(settings)
    yield engine
    assert engine.stop() == 0
    assert not settings.engine_socket.exists()


@pytest.fixture(scope="module")
def api(settings: Settings, engine: EngineProcess) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


def detections(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["images"][0]["detections"]
    return found


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    return body


def encoded(*pictures: bytes, **parameters: Any) -> dict[str, Any]:
    return {"images": [{"data": base64.b64encode(picture).decode()} for picture in pictures], **parameters}


def test_the_three_ways_to_send_a_picture_see_the_same(api: TestClient) -> None:
    raw = detections(api.post("/detect", content=PICTURE, headers=RAW, params=ALL))
    form = detections(api.post("/detect", files={"image": ("a.jpg", PICTURE)}, data=ALL))
    text = detections(api.post("/detect", json=encoded(PICTURE, **ALL)))
    assert raw
    assert raw == form == text


def test_an_answer_is_what_openapi_promises(api: TestClient) -> None:
    answer = api.post("/detect", content=PICTURE, headers=RAW, params=ALL)
    body = DetectAnswer.model_validate(answer.json())
    (image,) = body.images
    assert (body.model, image.width, image.height) == ("m1", 150, 100)
    assert body.timing.batch_size == 1
    assert body.timing.inference_ms > 0
    scores = [found.score for found in image.detections]
    assert scores == sorted(scores, reverse=True)
    for found in image.detections:
        assert 0 <= found.box.x1 < found.box.x2 <= 150
        assert 0 <= found.box.y1 < found.box.y2 <= 100
        assert CLASSES[found.class_id] == found.label


@pytest.mark.parametrize("encode", [jpeg, png, webp, bmp])
def test_the_kind_is_told_by_content_not_by_name(api: TestClient, encode: Any) -> None:
    files = {"image": ("picture.txt", encode(PIXELS), "text/plain")}
    assert api.post("/detect", files=files, data=ALL).status_code == 200


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_measured_as_a_person_sees_it(api: TestClient, orientation: int) -> None:
    answer = api.post("/detect", content=jpeg(quadrants(64, 48), orientation=orientation), headers=RAW)
    (image,) = answer.json()["images"]
    assert (image["width"], image["height"]) == ((64, 48) if orientation < 5 else (48, 64))


def test_parameters_choose(api: TestClient) -> None:
    everything = detections(api.post("/detect", content=PICTURE, headers=RAW, params=ALL))
    few = detections(api.post("/detect", content=PICTURE, headers=RAW, params={**ALL, "max_detections": 2}))
    assert few == everything[:2]
    middle = everything[len(everything) // 2]["score"]
    sure = detections(api.post("/detect", content=PICTURE, headers=RAW, params={"score_threshold": middle}))
    assert 0 < len(sure) < len(everything)
    owls = detections(
        api.post("/detect", content=PICTURE, headers=RAW, params={**ALL, "classes": ["owl", "dog"]})
    )
    assert {found["label"] for found in owls} <= {"owl", "dog"}
    overlapping = detections(api.post("/detect", content=PICTURE, headers=RAW, params={**ALL, "nms_iou": 1}))
    assert len(overlapping) >= len(everything)


def test_classes_in_a_form_are_one_name_or_several_or_a_list(api: TestClient) -> None:
    picture = {"image": ("a.jpg", PICTURE)}
    one = detections(api.post("/detect", files=picture, data={**ALL, "classes": "owl"}))
    listed = detections(api.post("/detect", files=picture, data={**ALL, "classes": '["owl"]'}))
    assert one == listed
    labels = {found["label"] for found in detections(api.post("/detect", files=picture, data=ALL))}
    several = sorted(labels)[:2]
    query = detections(api.post("/detect", files=picture, data=ALL, params={"classes": several}))
    assert {found["label"] for found in query} == set(several)
    for given in (several, json.dumps(several)):
        assert query == detections(api.post("/detect", files=picture, data={**ALL, "classes": given}))
    problem(api.post("/detect", files=picture, data={"classes": "[owl"}), 422, "invalid_input")


def test_every_form_says_the_same(api: TestClient) -> None:
    """Two pictures and one that is none, in each form that holds several; and one picture as text."""
    pictures = [
        ("image", (name, content))
        for name, content in (("a.jpg", PICTURE), ("b.jpg", b"no"), ("c.jpg", PICTURE))
    ]

    def ask(accept: str) -> Any:
        answer = api.post("/detect", files=pictures, data=ALL, headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        assert answer.headers["server-timing"].startswith("decode;dur=")
        assert answer.headers.get("x-harrier-failed") == (None if accept == "application/json" else "1")
        return answer

    native = ask("application/json").json()["images"]
    found = native[0]["detections"]
    assert found
    assert "error" in native[1]
    rows = ask("application/vnd.coco.results+json").json()
    assert [row["image_id"] for row in rows] == [0] * len(found) + [2] * len(found)
    assert [row["category_id"] - 1 for row in rows[: len(found)]] == [each["class_id"] for each in found]
    assert [row["score"] for row in rows[: len(found)]] == [each["score"] for each in found]
    tasks = ask("application/json;profile=label-studio").json()
    assert [task["data"]["image"] for task in tasks] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [len(task["predictions"]) for task in tasks] == [1, 0, 1]
    labels = [region["value"]["rectanglelabels"] for region in tasks[0]["predictions"][0]["result"]]
    assert labels == [[each["label"]] for each in found]
    with zipfile.ZipFile(io.BytesIO(ask("application/vnd.yolo+zip").content)) as archive:
        assert sorted(archive.namelist()) == ["errors.json", "labels/a.txt", "labels/c.txt"]
        lines = archive.read("labels/a.txt").decode().splitlines()
    assert [int(line.split()[0]) for line in lines] == [each["class_id"] for each in found]
    text = api.post("/detect", content=PICTURE, headers={**RAW, "Accept": "text/vnd.yolo"}, params=ALL)
    assert text.text.splitlines() == lines


def test_two_lines_of_accept_are_one(api: TestClient) -> None:
    lines = [("Accept", "text/html"), ("Accept", "text/vnd.yolo"), ("Content-Type", "image/jpeg")]
    answer = api.post("/detect", content=PICTURE, headers=lines)
    assert answer.headers["content-type"].startswith("text/vnd.yolo")


def test_a_jpeg_for_those_who_ask_for_one(api: TestClient) -> None:
    answer = api.post("/detect", content=PICTURE, headers={**RAW, "Accept": "image/jpeg"}, params=ALL)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-harrier-model"] == "m1"
    drawn = decode_image(answer.content)
    assert drawn.size_wh == (150, 100)
    assert (drawn.pixels != decode_image(PICTURE).pixels).any()


def test_annotate_puts_the_drawing_beside_the_boxes(api: TestClient) -> None:
    answer = api.post("/detect", json=encoded(PICTURE, PICTURE, annotate=True))
    for image in answer.json()["images"]:
        assert decode_image(base64.b64decode(image["annotated"])).size_wh == (150, 100)
    plain = api.post("/detect", json=encoded(PICTURE))
    assert "annotated" not in plain.json()["images"][0]


def test_several_pictures_are_answered_in_order_and_a_bad_one_alone(api: TestClient) -> None:
    files = [
        ("image", ("a", PICTURE)),
        ("image", ("b", b"no picture")),
        ("image", ("c", png(quadrants(30, 20)))),
    ]
    answer = api.post("/detect", files=files)
    assert answer.status_code == 200
    first, bad, last = answer.json()["images"]
    assert (first["width"], last["width"]) == (150, 30)
    assert bad["error"]["code"] == "unsupported_image"
    assert bad["error"]["status"] == 415
    DetectAnswer.model_validate(answer.json())


LARGE = bytes(200_001)


@pytest.mark.parametrize("way", ["form", "json"])
def test_a_picture_that_is_too_large_is_refused_alone(api: TestClient, way: str) -> None:
    pictures = (PICTURE, LARGE, PICTURE)
    sent: dict[str, Any] = (
        {"files": [("image", ("a", picture)) for picture in pictures]}
        if way == "form"
        else {"json": encoded(*pictures)}
    )
    answer = api.post("/detect", **sent)
    assert answer.status_code == 200, answer.text
    first, large, last = answer.json()["images"]
    assert first["width"] == last["width"] == 150
    assert (large["error"]["status"], large["error"]["code"]) == (413, "image_too_large")
    DetectAnswer.model_validate(answer.json())


def test_a_single_picture_has_one_limit_in_all_ways_to_send_it(api: TestClient) -> None:
    for sent in (
        {"content": LARGE, "headers": RAW},
        {"files": {"image": ("a", LARGE)}},
        {"json": encoded(LARGE)},
    ):
        problem(api.post("/detect", **sent), 413, "image_too_large")


@pytest.mark.parametrize("data", ["?", "ä", "abc"])
def test_what_is_no_base64_is_refused_alone(api: TestClient, data: str) -> None:
    body = encoded(PICTURE, PICTURE)
    body["images"][0]["data"] = data
    bad, good = api.post("/detect", json=body).json()["images"]
    assert good["width"] == 150
    assert (bad["error"]["status"], bad["error"]["code"]) == (422, "invalid_input")
    assert bad["error"]["errors"][0]["pointer"] == "/images/0/data"


def test_several_pictures_cannot_be_one_jpeg(api: TestClient) -> None:
    answer = api.post("/detect", json=encoded(PICTURE, PICTURE), headers={"Accept": "image/jpeg"})
    problem(answer, 406, "not_acceptable")


@pytest.mark.parametrize(
    ("picture", "status", "code"),
    [
        (b"", 415, "unsupported_image"),
        (b"GIF89a" + bytes(100), 415, "unsupported_image"),
        (PICTURE[:-200], 422, "damaged_image"),
        (png_header(100, 100), 422, "damaged_image"),
        (png_header(30_000, 30_000), 413, "image_too_large"),
        (bytes(200_001), 413, "image_too_large"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "image/jpeg"])
def test_a_single_bad_picture_is_a_problem(
    api: TestClient, picture: bytes, status: int, code: str, accept: str
) -> None:
    problem(api.post("/detect", content=picture, headers={**RAW, "Accept": accept}), status, code)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": PICTURE, "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media"),
        ({"content": PICTURE}, 415, "unsupported_media"),
        ({"data": {"score_threshold": "0.5"}}, 415, "unsupported_media"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "bad_request"),
        ({"content": b"[" * 9999, "headers": {"Content-Type": "application/json"}}, 400, "bad_request"),
        (
            {"content": b'{"images": NaN}', "headers": {"Content-Type": "application/json"}},
            400,
            "bad_request",
        ),
        ({"json": []}, 422, "invalid_input"),
        ({"json": {"images": []}}, 422, "invalid_input"),
        ({"json": {"images": [{"data": "?"}]}}, 422, "invalid_input"),
        ({"json": {"images": [{"data": 7}]}}, 422, "invalid_input"),
        ({"json": encoded(PICTURE, tiles=True)}, 422, "invalid_input"),
        ({"json": encoded(PICTURE, score_threshold=2)}, 422, "invalid_input"),
        ({"files": {"picture": ("a.jpg", PICTURE)}}, 422, "invalid_input"),
        ({"files": {"image": ("a", PICTURE)}, "data": {"second_stage": "x"}}, 422, "invalid_input"),
        ({"files": {"image": ("a", PICTURE)}, "data": {"classifier": "x"}}, 404, "not_found"),
        ({"content": PICTURE, "headers": RAW, "params": {"classifier": "m1"}}, 409, "wrong_task"),
        ({"files": {"image": (None, PICTURE)}}, 422, "invalid_input"),
        ({"json": encoded(*[PICTURE] * 4)}, 413, "payload_too_large"),
        ({"files": [("image", ("a", PICTURE))] * 4}, 413, "payload_too_large"),
        ({"content": PICTURE, "headers": RAW, "params": {"tiles": "true"}}, 422, "invalid_input"),
        ({"content": PICTURE, "headers": RAW, "params": {"score_threshold": "nan"}}, 422, "invalid_input"),
        ({"content": PICTURE, "headers": RAW, "params": {"nms_iou": 0}}, 422, "invalid_input"),
        ({"content": PICTURE, "headers": RAW, "params": {"max_detections": 0}}, 422, "invalid_input"),
        ({"content": PICTURE, "headers": RAW, "params": {"classes": "unicorn"}}, 422, "invalid_input"),
        ({"content": PICTURE, "headers": RAW, "params": {"model": "nobody"}}, 404, "not_found"),
        ({"content": bytes(1_000_001), "headers": RAW}, 413, "payload_too_large"),
        ({"json": encoded(PICTURE, model="m1"), "params": {"model": "m1"}}, 422, "invalid_input"),
    ],
)
def test_a_request_that_cannot_be_served_is_told_why(
    api: TestClient, request_: dict[str, Any], status: int, code: str
) -> None:
    problem(api.post("/detect", **request_), status, code)


def test_a_problem_points_at_its_place(api: TestClient) -> None:
    bad = {"images": [{"data": "?"}]}
    found = problem(api.post("/detect", json=bad), 422, "invalid_input")
    assert found["errors"][0]["pointer"] == "/images/0/data"
    found = problem(
        api.post("/detect", json=encoded(PICTURE, classes=["cat", "unicorn"])), 422, "invalid_input"
    )
    assert (found["errors"][0]["place"], found["errors"][0]["pointer"]) == ("body", "/classes/1")
    asked = api.post("/detect", content=PICTURE, headers=RAW, params={"classes": "unicorn"})
    assert problem(asked, 422, "invalid_input")["errors"][0]["place"] == "query"
    assert "unicorn" in found["detail"]


def test_the_model_is_looked_up_anew_for_every_request(api: TestClient, settings: Settings) -> None:
    def model(**parameters: str) -> str:
        answer = api.post("/detect", content=PICTURE, headers=RAW, params=parameters)
        return str(answer.json().get("model") or answer.json()["code"])

    engine = create_database_engine(settings)
    sessions = create_sessions(engine)

    def set_alias(model_id: str, name: str | None) -> None:
        with sessions() as session:
            session.execute(update(Model).where(Model.id == model_id).values(alias=name))
            session.commit()

    assert model() == "m1"
    add_model(settings, "m2", alias="second", seed=1)
    wait_for(lambda: model() == "m2", 20)  # until it is in memory m1 answers
    assert model(model="m1") == model(model="first") == "m1"
    set_alias("m1", "production")
    assert model() == model(model="production") == "m1"
    assert model(model="first") == "not_found"
    set_alias("m1", None)
    for derived in ({"origin": "pruned"}, {"provenance": {"reproduction": {"identical": True}}}):
        with sessions() as session:
            session.execute(update(Model).where(Model.id == "m2").values(**derived))
            session.commit()
        assert model() == "m1", "m2 is newer, and made to be compared"
        assert model(model="m2") == "m2"
        with sessions() as session:
            session.execute(update(Model).where(Model.id == "m2").values(origin="trained", provenance={}))
            session.commit()
    set_alias("m2", "production")
    assert model(model="production") == "m2"
    with sessions() as session:
        session.execute(delete(Model).where(Model.id == "m2"))
        session.commit()
    assert model(model="m2") == model(model="production") == "not_found"
    assert model() == "m1"
    set_alias("m1", "first")
    engine.dispose()


def test_without_any_model_it_says_how_to_get_one(engine: EngineProcess) -> None:
    with short_folder() as folder:
        settings = Settings(home=folder)
        upgrade_database(settings)
        with TestClient(create_app(settings), base_url="http://127.0.0.1") as api:
            found = problem(api.post("/detect", content=PICTURE, headers=RAW), 409, "no_model")
    assert "/models/import" in found["detail"]


def test_a_lost_file_is_503_and_the_engine_lives(api: TestClient, settings: Settings) -> None:
    served = add_model(settings, "m0")
    for file in served.files:
        (folder := settings.home_path / "storage" / file.key).unlink()
        assert not folder.exists()
    answer = api.post("/detect", content=PICTURE, headers=RAW, params={"model": "m0"})
    found = problem(answer, 503, "model_unavailable")
    assert str(settings.home_path) not in json.dumps(found)
    assert api.post("/detect", content=PICTURE, headers=RAW, params={"model": "m1"}).status_code == 200


def test_a_killed_engine_is_503_with_retry_after_and_then_back(
    api: TestClient, engine: EngineProcess
) -> None:
    engine.kill()
    answer = api.post("/detect", content=PICTURE, headers=RAW)
    problem(answer, 503, "engine_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    engine.restart()
    assert api.post("/detect", content=PICTURE, headers=RAW).status_code == 200


def test_what_happened_is_measured(api: TestClient) -> None:
    assert api.post("/detect", content=PICTURE, headers=RAW).status_code == 200
    assert api.post("/detect", content=PICTURE[:500], headers=RAW).status_code == 422
    text = api.get("/metrics").text
    assert 'harrier_detect_images_total{outcome="detected"}' in text
    assert 'harrier_detect_images_total{outcome="damaged_image"}' in text
    assert 'harrier_detect_stage_seconds_count{stage="inference"}' in text
    assert 'harrier_detect_queue_depth_bucket{le="256.0"}' in text
    assert "harrier_detect_held_bytes 0.0" in text


def test_openapi_shows_all_ways_and_all_errors(api: TestClient) -> None:
    document = api.get("/openapi.json").json()
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document["paths"]["/detect"])))
    assert references <= document["components"]["schemas"].keys()
    call = document["paths"]["/detect"]["post"]
    assert set(call["requestBody"]["content"]) >= {"image/*", "multipart/form-data", "application/json"}
    assert {parameter["name"] for parameter in call["parameters"]} >= {"model", "score_threshold", "annotate"}
    assert set(call["responses"]) >= {"200", "404", "406", "409", "413", "415", "422", "503"}
    assert set(call["responses"]["200"]["content"]) == {form.media_type for form in ALL_FORMS}
