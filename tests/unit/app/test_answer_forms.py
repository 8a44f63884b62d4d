"""The forms of an answer, each held to what its readers expect, and to not hiding a picture that failed."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pycocotools.coco import COCO

from app.detect.answers import respond
from app.detect.errors import DamagedPictureError
from app.detect.formats import ALL, FORMATS, NATIVE, Answer
from app.detect.wire import Box, Classification, Detected, Timing
from app.errors import HarrierError

DOG = Box(20.0, 10.0, 120.0, 60.0, 1, "dog", 0.87654321)
CAT = Box(0.0, 0.0, 200.0, 100.0, 0, "cat", 0.5, Classification("tabby", 3, 0.9))
BROKEN = DamagedPictureError("the picture ends too early")


def seen(*boxes: Box, annotated: bytes | None = None) -> Detected:
    return Detected(
        id=1,
        model_id="m1",
        width=200,
        height=100,
        boxes=boxes,
        timing=Timing(1.0, 2.0, 3.0, 4.0, 5.0, 1, classify_ms=6.0),
        queue_images=0,
        annotated=annotated,
    )


def answer(*images: Detected | HarrierError, names: tuple[str, ...] = ()) -> Answer:
    return Answer("m1", images, names, "r1")


def written(form: str, *images: Detected | HarrierError, names: tuple[str, ...] = ()) -> Any:
    return json.loads(FORMATS[form].encode(answer(*images, names=names)))


def test_coco_results_load_into_pycocotools() -> None:
    rows = written("application/json;profile=coco", seen(DOG), seen(), seen(CAT, DOG))
    assert [row["image_id"] for row in rows] == [0, 2, 2]
    assert rows[0] == {
        "image_id": 0,
        "category_id": 2,
        "bbox": [20.0, 10.0, 100.0, 50.0],
        "score": 0.8765,
    }
    truth = COCO()
    truth.dataset = {
        "images": [{"id": place, "width": 200, "height": 100} for place in range(3)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [],
    }
    truth.createIndex()
    results = truth.loadRes(rows)
    assert [each["area"] for each in results.loadAnns(results.getAnnIds(imgIds=[0]))] == [5000.0]


def test_yolo_text_is_in_parts_of_the_picture() -> None:
    text = FORMATS["text/vnd.yolo"].encode(answer(seen(DOG, CAT))).decode()
    assert text.splitlines() == [
        "1 0.350000 0.350000 0.500000 0.500000 0.876543",
        "0 0.500000 0.500000 1.000000 1.000000 0.500000",
    ]
    assert FORMATS["text/vnd.yolo"].encode(answer(seen())) == b""


def unzipped(*images: Detected | HarrierError, names: tuple[str, ...] = ()) -> dict[str, bytes]:
    content = FORMATS["application/vnd.yolo+zip"].encode(answer(*images, names=names))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_in_a_zip_an_empty_picture_has_an_empty_text_and_a_failed_one_none() -> None:
    files = unzipped(seen(DOG), seen(), BROKEN, names=("dog.jpg", "empty.jpg", "broken.jpg"))
    assert set(files) == {"labels/dog.txt", "labels/empty.txt", "errors.json"}
    assert files["labels/empty.txt"] == b""
    assert json.loads(files["errors.json"])["broken"]["code"] == "damaged_image"


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("a.jpg", "b/a.png"),
        ("a.jpg", ""),
        ("a.jpg", ".."),
        ("a.jpg", "../"),
        ("a.jpg", "."),
        ("a.jpg", " "),
        ("a.jpg", "b\0.jpg"),
    ],
)
def test_names_that_do_not_do_are_replaced_by_places(names: tuple[str, ...]) -> None:
    files = set(unzipped(seen(DOG), seen(CAT), names=names))
    if names == ("a.jpg", ""):  # its place is its name
        assert files == {"labels/a.txt", "labels/1.txt"}
    else:
        assert files == {"labels/0.txt", "labels/1.txt"}


@pytest.mark.parametrize("name", ["../../etc/passwd.jpg", "..\\..\\boot.jpg", "/abs/x.jpg"])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    (path,) = unzipped(seen(DOG), names=(name,))
    assert path in {"labels/passwd.txt", "labels/boot.txt", "labels/x.txt"}


def test_label_studio_gets_a_task_a_picture() -> None:
    first, second, third = written(
        "application/vnd.label-studio+json", seen(DOG, CAT), seen(), BROKEN, names=("dog.jpg", "", "")
    )
    assert first["data"] == {"image": "dog.jpg"}
    (prediction,) = first["predictions"]
    assert prediction["model_version"] == "m1"
    assert prediction["score"] == pytest.approx(0.6883, abs=1e-4)
    region = prediction["result"][0]
    assert region["value"] == {
        "x": 10.0,
        "y": 10.0,
        "width": 50.0,
        "height": 50.0,
        "rotation": 0,
        "rectanglelabels": ["dog"],
    }
    assert (region["from_name"], region["to_name"], region["type"]) == ("label", "image", "rectanglelabels")
    assert (region["original_width"], region["original_height"]) == (200, 100)
    assert len({each["id"] for each in prediction["result"]}) == 2
    assert second == {"data": {"image": "1"}, "predictions": [{"model_version": "m1", "result": []}]}
    assert third == {"data": {"image": "2", "error": BROKEN.detail}, "predictions": []}


def test_the_picture_with_its_boxes_is_the_engines() -> None:
    assert FORMATS["image/jpeg"].encode(answer(seen(DOG, annotated=b"jpeg"))) == b"jpeg"


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.media_type)
def test_every_form_answers_and_says_where_the_time_went(form: Any) -> None:
    response = respond(form, answer(seen(DOG, annotated=b"jpeg")))
    assert response.headers["content-type"].partition(";")[0] == form.media_type
    assert response.headers["server-timing"] == (
        "decode;dur=1.000, queue;dur=2.000, preprocess;dur=3.000, inference;dur=4.000, "
        "postprocess;dur=5.000, classify;dur=6.000"
    )
    assert ("x-harrier-model" in response.headers) is (form is not NATIVE)
    assert "x-harrier-failed" not in response.headers
    if form.schema.get("format") != "binary" and form is not NATIVE:
        Draft202012Validator(form.schema).validate(form.example)
        body = bytes(response.body).decode()
        Draft202012Validator(form.schema).validate(
            body if form.schema["type"] == "string" else json.loads(body)
        )


@pytest.mark.parametrize(
    "form", [form for form in ALL if form.holds_several], ids=lambda form: form.media_type
)
def test_a_failed_picture_never_looks_like_an_empty_one(form: Any) -> None:
    response = respond(form, answer(seen(DOG), BROKEN, seen(), BROKEN))
    if form is NATIVE:
        assert [("error" in image) for image in json.loads(bytes(response.body))["images"]] == [
            False,
            True,
            False,
            True,
        ]
    else:
        assert response.headers["x-harrier-failed"] == "1, 3"
    assert response.headers["server-timing"].startswith("decode;dur=2.000, queue;dur=4.000")
