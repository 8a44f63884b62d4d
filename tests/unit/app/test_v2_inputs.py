"""Bodies of the Open Inference Protocol, right ones and hostile ones: each is pictures or an error of 4xx."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from app.errors import HarrierError
from app.settings import Settings
from app.v2.inputs import LENGTH_HEADER, Inference, read_inference
from app.v2.tensors import join_elements

SETTINGS = Settings(home=Path("home"), max_image_bytes=50, max_detect_images=3, _env_file=None)
ELEMENTS = [b"first", b"second picture"]


def read(body: bytes, *lengths: str) -> Inference:
    """Read a body as it comes over the line, in two pieces."""
    half = len(body) // 2
    messages: list[Message] = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    headers = [(LENGTH_HEADER.lower().encode(), each.encode("latin-1")) for each in lengths]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)
    return asyncio.run(read_inference(request, SETTINGS, lambda _: None))


def refusal(body: bytes, *lengths: str) -> HarrierError:
    with pytest.raises(HarrierError) as refused:
        read(body, *lengths)
    assert 400 <= refused.value.status < 500
    return refused.value


def head(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES"}
    return {"inputs": [{**tensor, **changes.pop("input", {})}], **changes}


def in_json(data: Any, **changes: Any) -> bytes:
    return json.dumps(head(input={"data": data, **changes.pop("input", {})}, **changes)).encode()


def behind(content: bytes, **changes: Any) -> tuple[bytes, str]:
    size = {"binary_data_size": changes.pop("size", len(content))}
    text = json.dumps(head(input={"parameters": size, **changes.pop("input", {})}, **changes)).encode()
    return text + content, str(len(text))


BASE64 = [base64.b64encode(each).decode() for each in ELEMENTS]


def test_pictures_come_in_base64() -> None:
    sent = read(in_json(BASE64, id="7", outputs=[{"name": "boxes"}]))
    assert sent.images == ELEMENTS
    assert sent.request.id == "7"
    assert [output.name for output in sent.request.outputs] == ["boxes"]


def test_pictures_come_as_bytes_behind_the_json() -> None:
    assert read(*behind(join_elements(ELEMENTS))).images == ELEMENTS


def test_a_list_of_lists_is_as_good() -> None:
    assert read(in_json([[text] for text in BASE64], input={"shape": [2, 1]})).images == ELEMENTS
    assert read(*behind(join_elements(ELEMENTS), input={"shape": [2, 1]})).images == ELEMENTS


def test_a_length_of_nothing_means_the_picture_itself() -> None:
    assert read(b"picture", "0").images == [b"picture"]
    (image,) = read(b"x" * 51, "0").images
    assert isinstance(image, HarrierError)
    assert image.code == "image_too_large"


def test_what_is_wrong_with_one_picture_leaves_the_others() -> None:
    images = read(
        in_json([BASE64[0], "no base64!", base64.b64encode(b"x" * 51).decode()], input={"shape": [3]})
    )
    codes = [image.code if isinstance(image, HarrierError) else image for image in images.images]
    assert codes == [b"first", "invalid_input", "image_too_large"]
    _, image = read(*behind(join_elements([b"ok", b"x" * 51]))).images
    assert isinstance(image, HarrierError)


@pytest.mark.parametrize(
    ("given_classes", "expected"),
    [("cat,dog", ["cat", "dog"]), ("cat, dog", ["cat", "dog"]), (["a,b"], ["a,b"]), ("", []), ([], [])],
)
def test_classes_are_a_list_or_a_text_with_commas(given_classes: Any, expected: list[str]) -> None:
    sent = read(in_json(BASE64, parameters={"classes": given_classes, "score_threshold": 0.1}))
    assert sent.request.parameters.classes == expected


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"shape": [0]}, "no picture"),
        ({"shape": [-1]}, "greater than or equal to 0"),
        ({"shape": [2.0]}, "valid integer"),
        ({"shape": [True]}, "valid integer"),
        ({"shape": []}, "at least 1"),
        ({"shape": [1, 1, 2]}, "`image` is [n] or [n, 1]"),
        ({"shape": [1, 3, 416, 416], "datatype": "FP32"}, "whole picture file"),
        ({"shape": [1] * 9}, "at most 8"),
        ({"shape": [3]}, "2 elements, and the shape has 3"),
        ({"shape": [4]}, "at most 3 pictures"),
        ({"shape": [10**9]}, "at most 3 pictures"),
        ({"shape": [2**31 - 1, 2**31 - 1]}, "at most 3 pictures"),
        ({"shape": [2**31]}, "less than or equal to"),
        ({"shape": [10**300]}, "/inputs/0/shape/0"),
        ({"datatype": "FP32"}, "whole picture file"),
        ({"name": "images"}, "one input, `image`"),
        ({"data": [1, 2]}, "a text in base64"),
        ({"data": [[["a"]], "b"]}, "a text in base64"),
        ({"data": "abc"}, "valid list"),
        ({"data": None}, "neither `data` nor"),
        ({"parameters": {"binary_data_size": 0}}, "twice"),
        ({"parameters": {"binary_data_size": -1}}, "greater than or equal to 0"),
        ({"parameters": {"binary_data_size": "4"}}, "valid integer"),
        ({"parameters": {"shared_memory_region": "r"}}, "not offered"),
        ({"parameters": 3}, "no JSON object"),
        ({"dtype": "BYTES"}, "did you mean `datatype`"),
    ],
)
def test_a_wrong_input_says_what_is_wrong(changes: dict[str, Any], complaint: str) -> None:
    assert complaint in refusal(in_json(BASE64, input=changes)).detail


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"outputs": [{"name": "box"}]}, "did you mean `boxes`"),
        ({"outputs": [{"name": "boxes"}, {"name": "boxes"}]}, "twice"),
        ({"outputs": [{"name": "boxes", "parameters": {"classification": 3}}]}, "not offered"),
        ({"outputs": [{"name": "boxes", "parameters": {"binary_data": "yes"}}]}, "valid boolean"),
        ({"outputs": 1}, "valid list"),
        ({"parameters": {"score_threshold": 2}}, "/parameters/score_threshold"),
        ({"parameters": {"score_treshold": 0.2}}, "did you mean `score_threshold`"),
        ({"parameters": {"model": "other"}}, "not known"),
        ({"inputs": []}, "/inputs"),
        ({"id": 7}, "valid string"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(changes: dict[str, Any], complaint: str) -> None:
    assert complaint in refusal(in_json(BASE64, **changes)).detail


def test_there_is_one_input() -> None:
    twice = json.dumps({"inputs": [head()["inputs"][0]] * 2}).encode()
    assert "one input" in refusal(twice).detail


@pytest.mark.parametrize("length", ["-1", "+5", "1_0", "0x10", " ", "", "five", "1.0", "9" * 13, "²"])
def test_a_length_that_is_none_is_refused(length: str) -> None:
    assert LENGTH_HEADER in refusal(in_json(BASE64), length).detail


def test_two_lengths_are_refused() -> None:
    body, length = behind(join_elements(ELEMENTS))
    assert "once" in refusal(body, length, length).detail


def test_lengths_that_do_not_fit_the_body_are_refused() -> None:
    body, length = behind(join_elements(ELEMENTS))
    assert "the body has" in refusal(body, str(len(body) + 1)).detail
    assert "not valid JSON" in refusal(body, str(int(length) - 1)).detail
    assert "not valid JSON" in refusal(body, str(int(length) + 1)).detail
    assert LENGTH_HEADER in refusal(body).detail


@pytest.mark.parametrize("size", [0, 1, 26, 28, 10**9, 2**62])
def test_a_size_that_does_not_fit_the_bytes_is_refused(size: int) -> None:
    body, length = behind(join_elements(ELEMENTS), size=size)
    assert "are announced" in refusal(body, length).detail


def test_bytes_that_no_input_announces_are_refused() -> None:
    text = in_json(BASE64)
    assert "stand behind the JSON" in refusal(text + b"more", str(len(text))).detail


@pytest.mark.parametrize("elements", [[b"one"], [b"one"] * 3])
def test_another_number_of_elements_than_the_shape_says_is_refused(elements: list[bytes]) -> None:
    assert "the bytes of `image`" in refusal(*behind(join_elements(elements))).detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe{}",
        b'{"inputs": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"inputs": [], "inputs": []}',
        b'{"inputs": [{"name": "image", "shape": [NaN], "datatype": "BYTES"}]}',
        b'{"inputs": [' + b"1," * 20_000 + b"1]}",
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    refusal(body)


def pictures_or_error(body: bytes, *lengths: str) -> list[bytes | HarrierError] | None:
    try:
        images = read(body, *lengths).images
    except HarrierError as error:
        status, images = error.status, None
    else:
        status = 200 if images else 500
    assert status < 500
    return images


@given(st.binary(max_size=80), st.one_of(st.none(), st.integers(0, 100)))
def test_any_body_is_pictures_or_an_error(body: bytes, length: int | None) -> None:
    pictures_or_error(body, *([] if length is None else [str(length)]))


@given(st.binary(max_size=60), st.integers(0, 4))
def test_any_bytes_behind_the_json_are_pictures_or_an_error(content: bytes, num_images: int) -> None:
    images = pictures_or_error(*behind(content, input={"shape": [num_images]}))
    assert images is None or len(images) == num_images
