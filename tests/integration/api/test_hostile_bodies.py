"""What costs more than it weighs, or reaches what does not expect it: towers, NUL, words for truth."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.integration.api.conftest import Api, MakeApi, assert_problem, pointers

JSON = {"Content-Type": "application/json"}
NUMBERS = b"0," * 400_000 + b"0"
IMAGE = {"data": base64.b64encode(b"picture").decode()}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/detect", b'{"images": [' + b"{}," * 300_000 + b"{}]}"),
        ("/detect", b'{"images": [' + b'{"data": ""},' * 300_000 + b"{}]}"),
        ("/detect", b'{"images": [{"data": ""}], "classes": [' + NUMBERS + b"]}"),
        ("/detect", b'{"images": [{"data": ""}], "classes": "[' + NUMBERS + b']"}'),
        ("/train", b'{"init_exclude": [' + NUMBERS + b"]}"),
    ],
)
def test_more_values_than_anybody_means_are_not_looked_at(api: Api, path: str, body: bytes) -> None:
    answer = api.client.post(path, content=body, headers=JSON)
    problem = assert_problem(answer, 413, "payload_too_large")
    assert "values may stand in JSON" in problem["detail"]
    assert problem["errors"] == []


def test_pictures_are_counted_before_they_are_looked_at(make_api: MakeApi) -> None:
    api = make_api(max_detect_images=3)
    problem = assert_problem(api.post("/detect", {"images": [{}] * 4}), 413, "payload_too_large")
    assert problem["detail"] == "at most 3 pictures may be sent at once"


def test_a_text_that_no_picture_can_be_is_not_decoded(make_api: MakeApi) -> None:
    """It would not be base64 either: that it is too large is told first."""
    api = make_api(max_image_bytes=1000)
    api.model()
    body = {"images": [{"data": "?" * 100_000}]}
    assert_problem(api.post("/detect", body), 413, "image_too_large")


def test_lists_of_a_training_have_an_end(api: Api) -> None:
    body = {
        "dataset_id": api.ready_dataset(),
        "init_exclude": ["a"] * 1001,
        "schedule": {"milestones": [1] * 1001},
        "freeze": {"parts": ["neck"] * 17},
    }
    problem = assert_problem(api.post("/train", body), 422, "invalid_input")
    assert {"/init_exclude", "/schedule/milestones", "/freeze/parts"} <= {*pointers(problem)}


@pytest.mark.parametrize(
    "classes", ["[" * 9_000, "[" * 60 + "]" * 60, "[" + "1" * 5000 + "]", '["a\\u0000"]']
)
@pytest.mark.parametrize("way", ["form", "json"])
def test_classes_as_json_are_read_like_a_body(api: Api, classes: str, way: str) -> None:
    ways: dict[str, Any] = {
        "form": {"files": {"image": ("a.jpg", b"picture")}, "data": {"classes": classes}},
        "json": {"json": {"images": [IMAGE], "classes": classes}},
    }
    problem = assert_problem(api.client.post("/detect", **ways[way]), 422, "invalid_input")
    assert [*{*pointers(problem)}] == ["/classes"]
    assert problem["errors"][0]["problem"] == "neither a class name nor a JSON list of them"


@pytest.mark.parametrize(
    "rules", ['{"drop": ["a\\u0000"]}', '{"drop": ["a"], "drop": []}', '{"drop": [NaN]}']
)
def test_json_in_a_field_of_a_form_is_read_like_a_body(api: Api, rules: str) -> None:
    problem = assert_problem(api.upload(classes=rules), 422, "invalid_input")
    assert pointers(problem) == ["/classes"]


@pytest.mark.parametrize("word", ["yes", "true", 1, 0, "off"])
def test_only_true_and_false_are_truths_in_json(api: Api, word: object) -> None:
    body = {"deterministic": word, "ema": {"enabled": word}, "augmentation": {"multi_scale": word}}
    problem = assert_problem(api.post("/train", {"dataset_id": "a", **body}), 422, "invalid_input")
    assert {"/deterministic", "/ema/enabled", "/augmentation/multi_scale"} <= {*pointers(problem)}
    problem = assert_problem(api.post("/detect", {"images": [IMAGE], "annotate": word}), 422, "invalid_input")
    assert pointers(problem) == ["/annotate"]


@pytest.mark.parametrize(
    "address",
    [
        "/detect?model=%00",
        "/detect?model=a%00b",
        "/detect?classes=a%00",
        "/jobs?cursor=%00",
        "/jobs?status=%00",
        "/datasets/{id}/images?class=%00",
        "/datasets/{id}/images?finding=%00",
        "/datasets/{id}/images/a%00",
        "/datasets/%00",
        "/architectures/%00",
        "/models/%00/weights?format=onnx",
        "/%00",
    ],
)
def test_nul_reaches_nothing(api: Api, address: str) -> None:
    path = address.replace("{id}", api.ready_dataset())
    method = "POST" if path.startswith("/detect") else "GET"
    answer = api.client.request(method, path, content=b"", headers={"Content-Type": "image/jpeg"})
    problem = assert_problem(answer, 400, "bad_request")
    assert "NUL" in problem["detail"]


def test_nul_in_the_names_of_a_form_reaches_nothing(api: Api) -> None:
    def part(name: str, file: str) -> bytes:
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        return head.encode() + b"PK\x05\x06" + bytes(18) + b"\r\n--x--\r\n"

    for path, field in (("/datasets", "archive"), ("/models/import", "weights")):
        for content in (part(field, '; filename="a\0.zip"'), part("a\0", "")):
            answer = api.client.post(
                path, content=content, headers={"Content-Type": "multipart/form-data; boundary=x"}
            )
            assert_problem(answer, 400, "bad_request")
