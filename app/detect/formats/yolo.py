"""YOLO text: a line a box, `class cx cy w h score`, in parts of the picture; several pictures as a zip.

An empty text is a picture in which nothing was found. In a zip a picture that failed has no text at all, and
`errors.json` says why.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePath

import msgspec

from app.api.problems import problem_body
from app.detect.formats.answer_format import Answer, AnswerFormat
from app.detect.wire import Box, Detected
from app.errors import HarrierError

PART_DIGITS = 6
FOLDER = "labels"
ERRORS_FILE = "errors.json"
FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""Of a zip's calendar, so that the same answer has the same bytes."""


def encode(answer: Answer) -> bytes:
    (image,) = answer.images
    assert isinstance(image, Detected)
    return _text(image)


def encode_several(answer: Answer) -> bytes:
    """Write `labels/NAME.txt` for every picture by its file name, or all by places if names do not do."""
    buffer, stems = io.BytesIO(), _stems(answer)
    with zipfile.ZipFile(buffer, "w") as archive:
        for stem, image in zip(stems, answer.images, strict=True):
            if isinstance(image, Detected):
                archive.writestr(zipfile.ZipInfo(f"{FOLDER}/{stem}.txt", FIRST_DAY), _text(image))
        errors = {
            stem: problem_body(image, answer.request_id)
            for stem, image in zip(stems, answer.images, strict=True)
            if isinstance(image, HarrierError)
        }
        if errors:
            archive.writestr(zipfile.ZipInfo(ERRORS_FILE, FIRST_DAY), msgspec.json.encode(errors))
    return buffer.getvalue()


def _stems(answer: Answer) -> list[str]:
    """Return a name for each picture's text; file names are a client's own, and may be alike or lead away."""
    places = range(len(answer.images))
    stems = [PurePath(answer.name_of(place).replace("\\", "/")).stem for place in places]
    is_usable = len(set(stems)) == len(stems) and all(
        stem.strip(". ") and stem.isprintable() for stem in stems
    )
    return stems if is_usable else [str(place) for place in places]


def _text(image: Detected) -> bytes:
    return "".join(_line(box, image.width, image.height) for box in image.boxes).encode()


def _line(box: Box, width: int, height: int) -> str:
    parts = (
        (box.x1 + box.x2) / 2 / width,
        (box.y1 + box.y2) / 2 / height,
        (box.x2 - box.x1) / width,
        (box.y2 - box.y1) / height,
        box.score or 0.0,
    )
    return " ".join((str(box.class_id), *(f"{part:.{PART_DIGITS}f}" for part in parts))) + "\n"


YOLO = AnswerFormat(
    media_type="text/vnd.yolo",
    encode=encode,
    holds_several=False,
    schema={"type": "string"},
    example="16 0.286393 0.660677 0.232422 0.559201 0.930000\n",
)
YOLO_ZIP = AnswerFormat(
    media_type="application/vnd.yolo+zip",
    encode=encode_several,
    schema={"type": "string", "format": "binary"},
)
