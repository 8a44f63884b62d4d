"""What a wrong request to `/detect` is told: all that is wrong, each in its place, and what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message

from app.api.short_bodies import WHOLE
from app.detect.bodies import DetectRequest, read_request
from app.detect.errors import UnsupportedPictureError
from app.detect.schemas import DetectParameters
from app.errors import BadRequestError, HarrierError, InvalidInputError
from app.settings import Settings

FORM = "multipart/form-data; boundary=xYzZY"
END = b"--xYzZY--\r\n"
PICTURE = ("a.jpg", b"a picture")

Part = tuple[str | None, bytes]
"""The name of a file, None of a text; the content."""


def form(*parts: tuple[str, Part]) -> bytes:
    return b"".join(_part(name, *part) for name, part in parts) + END


def _part(name: str, file_name: str | None, content: bytes) -> bytes:
    file = f'; filename="{file_name}"' if file_name is not None else ""
    head = f'--xYzZY\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def read(
    body: bytes, kind: str = FORM, query: Mapping[str, Any] | None = None, *, is_whole: bool = False
) -> DetectRequest:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "headers": [(b"content-type", kind.encode())]}
    request = Request({**scope, **({WHOLE: body} if is_whole else {})}, receive)
    asked = DetectParameters(**(query or {}))
    return asyncio.run(read_request(request, asked, Settings(_env_file=None), lambda num_bytes: None))


def faults(*sent: Any, **how: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidInputError) as refused:
        read(*sent, **how)
    return [(fault.place, fault.pointer, fault.problem) for fault in refused.value.problems]


@pytest.mark.parametrize("field", ["image", "video"])
@pytest.mark.parametrize(
    ("text", "example"),
    [
        (b"dog.jpg", "{}=@dog.jpg"),
        (b"my dog.jpg", "'{}=@my dog.jpg'"),
        (b"\xff\xd8\xff\x00", "{}=@FILE"),
        (b"a" * 300, "{}=@FILE"),
        (b"a" * 70_000, "{}=@FILE"),
    ],
)
def test_a_file_that_is_only_named_is_told_how_to_be_sent(field: str, text: bytes, example: str) -> None:
    [(place, pointer, problem)] = faults(form((field, (None, text))))
    assert (place, pointer) == ("body", f"/{field}")
    assert problem == f"a file is wanted, not a text; with curl: -F {example.format(field)}"


def test_files_that_are_only_named_are_one_fault_beside_the_others() -> None:
    named: Part = (None, b"dog.jpg")
    found = faults(form(("image", named), ("image", named), ("tiles", (None, b"1"))))
    assert [pointer for _, pointer, _ in found] == ["/image", "/tiles"]


def test_all_that_is_given_twice_is_listed() -> None:
    sent = form(("image", PICTURE), ("score_threshold", (None, b"0.5")), ("max_detections", (None, b"3")))
    query = {"score_threshold": 0.3, "max_detections": 100, "annotate": False}
    twice = "given twice: in the query and in the body"
    assert faults(sent, query=query) == [
        ("body", "/max_detections", twice),
        ("body", "/score_threshold", twice),
    ]


@pytest.mark.parametrize(("body", "kind"), [(form(("image", PICTURE)), FORM), (b"a picture", "image/jpeg")])
def test_frames_are_refused_where_they_were_asked_for(body: bytes, kind: str) -> None:
    [(place, pointer, problem)] = faults(body, kind, {"every": 2})
    assert (place, pointer) == ("query", "/every")
    assert "a picture has no frames" in problem


def test_frames_asked_for_in_a_form_are_refused_there_beside_what_else_is_wrong() -> None:
    sent = form(("every", (None, b"2")), ("model", (None, b"m1")))
    found = faults(sent, query={"model": "m1"})
    assert [(place, pointer) for place, pointer, _ in found] == [
        ("body", "/model"),
        ("body", "/image"),
        ("body", "/every"),
    ]


def refusal(picture: bytes | HarrierError) -> tuple[str, list[str]]:
    assert isinstance(picture, UnsupportedPictureError)
    return picture.detail, [fault.pointer for fault in picture.problems]


@pytest.mark.parametrize("is_whole", [False, True])
def test_an_empty_body_is_called_empty(is_whole: bool) -> None:
    [picture] = read(b"", "image/jpeg", is_whole=is_whole).images
    assert refusal(picture) == ("the body is empty", [""])


def test_an_empty_file_of_a_form_is_called_empty_in_its_place() -> None:
    first, empty = read(form(("image", PICTURE), ("image", ("b.jpg", b"")))).images
    assert first == PICTURE[1]
    assert refusal(empty) == ("/image: the file is empty", ["/image"])


def test_empty_base64_is_called_empty_in_its_place() -> None:
    body = json.dumps({"images": [{"data": "YQ=="}, {"data": ""}]}).encode()
    first, empty = read(body, "application/json").images
    assert first == b"a"
    assert refusal(empty) == ("/images/1/data: the data is empty", ["/images/1/data"])


def test_a_name_that_is_nearly_right_is_told_first() -> None:
    with pytest.raises(InvalidInputError, match=r"^/image: .*; did you mean `images`\? \(and 1 more\)$"):
        read(b'{"image": "xx"}', "application/json")


def test_json_that_is_empty_is_called_empty() -> None:
    with pytest.raises(BadRequestError, match=r"^the body is empty$"):
        read(b"", "application/json")
