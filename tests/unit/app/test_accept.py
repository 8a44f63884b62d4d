"""Which form of answer an Accept header chooses: by weight, by exactness, and by what can hold the answer."""

from __future__ import annotations

import pytest

from app.detect.accept import choose_format
from app.detect.formats import ALL, FORMATS
from app.errors import NotAcceptableError

JSON, JPEG = "application/json", "image/jpeg"
COCO, YOLO, LABELS = "application/vnd.coco.results+json", "text/vnd.yolo", "application/vnd.label-studio+json"
ZIP = "application/vnd.yolo+zip"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        # nothing said, or nothing that means anything
        ("", JSON),
        (",;=", JSON),
        ("*", JSON),
        ("image/jpeg;q=high", JSON),
        ("image/jpeg;q=7", JSON),
        ("image/jpeg;q=nan", JSON),
        # one form
        ("application/json", JSON),
        ("application/json; charset=utf-8", JSON),
        ("image/jpeg", JPEG),
        ("image/jpg", JPEG),
        ("IMAGE/JPEG", JPEG),
        (COCO, COCO),
        ('application/json; profile="coco"', COCO),
        ("application/json;profile=COCO", COCO),
        (LABELS, LABELS),
        ("application/json;profile=label-studio", LABELS),
        (YOLO, YOLO),
        (ZIP, ZIP),
        # ranges
        ("*/*", JSON),
        ("application/*", JSON),
        ("image/*", JPEG),
        ("text/*", YOLO),
        ("text/html,application/xhtml+xml,*/*;q=0.8", JSON),
        # weights
        ("IMAGE/JPEG;q=0.9, application/json;q=0.5", JPEG),
        ("image/jpeg;q=0.1, application/json", JSON),
        (f"{COCO};q=0.4, {YOLO};q=0.5", YOLO),
        ("application/json;q=0, */*", COCO),
        ("application/*;q=0, */*;q=0.1", YOLO),
        # the same weight: what is named more exactly, then our own order
        ("image/jpeg, */*", JPEG),
        ("application/json, image/jpeg", JSON),
        ("image/jpeg, application/json", JSON),
        ("application/json, text/plain, */*", JSON),
        # commas in quotes do not part ranges
        ('application/json;note="a, image/jpeg;q=1";q=0.5, text/vnd.yolo;q=0.6', YOLO),
    ],
)
def test_the_form_that_is_wanted_most(accept: str, expected: str) -> None:
    assert choose_format(accept, several=False).media_type == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [("image/jpeg, application/json;q=0.5", JSON), ("text/*, application/vnd.yolo+zip;q=0.1", ZIP)],
)
def test_several_pictures_get_the_next_best_form_that_holds_them(accept: str, expected: str) -> None:
    assert choose_format(accept, several=True).media_type == expected


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "text/html",
        "image/jpeg;q=0",
        "*/*;q=0",
        "application/json;profile=voc",
        "*/*;profile=coco",
    ],
)
def test_what_cannot_be_had_is_refused_with_what_can(accept: str) -> None:
    with pytest.raises(NotAcceptableError) as refused:
        choose_format(accept, several=False)
    for form in ALL:
        assert form.media_type in refused.value.detail


def test_a_form_of_one_picture_says_so() -> None:
    with pytest.raises(
        NotAcceptableError, match=r"text/vnd\.yolo or image/jpeg holds the answer to one picture"
    ) as refused:
        choose_format("image/jpeg, image/jpg, text/vnd.yolo", several=True)
    offered = refused.value.detail.partition("ask for another of ")[2].split(", ")
    assert offered == [form.media_type for form in ALL if form.holds_several]


def test_a_hostile_header_is_read_in_one_pass() -> None:
    for accept in ('"' * 20_000, ',"' * 10_000, '"\\' * 10_000, "a/b;" * 10_000, "*/*," * 10_000):
        choose_format(accept, several=False) if "*/*" in accept else _refused_or_native(accept)


def _refused_or_native(accept: str) -> None:
    try:
        assert choose_format(accept, several=False).media_type == JSON
    except NotAcceptableError:
        assert "/" in accept


def test_every_name_of_a_form_is_its_own() -> None:
    names = [name for form in ALL for name in (form.media_type, *form.also)]
    assert len(names) == len(set(names)) == len(FORMATS)
    assert all(name == name.lower() and " " not in name for name in names)
