"""What `/detect` takes and answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool

from app.api.problems import Problem
from app.api.shapes import EXAMPLE_ID, ClassName, Shape, Wish, example
from app.api.strict_json import strict_json
from app.api.tta import Tta, TtaText

MOST_EVERY = 10_000
"""Frames of a video of which one is looked at."""


def _in_words(schema: dict[str, Any]) -> None:
    """Leave out the default, which the description says.

    A parameter may stand in the query or in the body, and in one of them only; many clients send a default
    that they read in a schema, in both.
    """
    schema.pop("default", None)


def _class_list(value: Any) -> Any:
    """A form has the names one by one, in several fields of the same name; or in one field, as JSON."""
    if not isinstance(value, str):
        return value
    if not value.startswith("["):
        return [value]
    try:
        return strict_json(value.encode())
    except ValueError:
        raise ValueError("neither a class name nor a JSON list of them") from None


class LookParameters(Wish):
    """What a detector should report."""

    score_threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, json_schema_extra=_in_words)] = (
        0.3
    )
    """Detections below it are left out; without it 0.3."""
    nms_iou: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """Of two boxes of a class that overlap by more only the better one is kept; null is the model's value."""
    max_detections: Annotated[int, Field(ge=1, le=1000, json_schema_extra=_in_words)] = 100
    """Most detections in one picture, the best are kept; without it 100."""
    classes: Annotated[
        list[ClassName],
        BeforeValidator(_class_list),
        Field(max_length=1000, json_schema_extra=_in_words),
    ] = []
    """Only these classes, by name; without it, or empty, all. In the query and in forms repeat it for each
    name; a form also takes a JSON list."""
    tta: TtaText = None
    """Look at every picture in several passes and merge what they find: `true` is the scales 1, 0.83, 0.67
    with the flips none, lr, none; or an object with lists of `scales` and `flips`."""


class DetectParameters(LookParameters):
    """Which model looks, and what it should report."""

    model: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Id or alias; without it the model with the alias `production`, and without that the newest that is
    neither pruned nor a reproduction, if there is one."""
    classifier: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Id or alias of a model of the task `classify`, which then looks at every box; null is none."""
    annotate: Annotated[bool, Field(json_schema_extra=_in_words)] = False
    """Also return each picture with its detections drawn, as base64 of a JPEG; without it `false`. Of a video
    a video is made; there it is the default."""
    every: Annotated[int, Field(ge=1, le=MOST_EVERY)] | None = None
    """Only with a video: look at every n-th frame, beginning with the first; null is every frame."""


class EncodedImage(Wish):
    data: str
    """The whole picture file, base64. One that is none is a fault of this picture, not of the others."""


class DetectBody(DetectParameters):
    """The parameters beside the pictures, for clients that speak only JSON."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    tta: Tta = None
    """Look at every picture in several passes and merge what they find: `true` is the scales 1, 0.83, 0.67
    with the flips none, lr, none; or an object with lists of `scales` and `flips`."""
    annotate: Annotated[StrictBool, Field(json_schema_extra=_in_words)] = False
    """Also return each picture with its detections drawn, as base64 of a JPEG; without it `false`."""
    images: Annotated[list[EncodedImage], Field(min_length=1)]


class BoxCorners(Shape):
    """Pixels of the picture as a person sees it, from its top left corner; clipped to it."""

    x1: float
    """Left edge."""
    y1: float
    """Top edge."""
    x2: float
    """Right edge."""
    y2: float
    """Bottom edge."""


class ClassificationRead(Shape):
    """What the second stage says of a box."""

    label: str
    """The class by name."""
    class_id: int
    """Its index among the classifier's classes."""
    score: Annotated[float, Field(ge=0, le=1)]
    """The probability of that class."""


class Detection(Shape):
    label: str
    """The class by name."""
    class_id: int
    """Its index among the model's classes."""
    score: Annotated[float, Field(ge=0, le=1)]
    """How sure the model is."""
    box: BoxCorners
    """Where it is."""
    classification: ClassificationRead | None = None
    """Only with `classifier`, and not for a box of which no pixel is left."""


class ImageResult(Shape):
    width: int
    """Pixels, EXIF orientation applied."""
    height: int
    """Pixels, EXIF orientation applied."""
    detections: list[Detection]
    """By decreasing score."""
    annotated: str | None = None
    """Base64 of a JPEG; only with `annotate`."""


class ImageFailure(Shape):
    error: Problem
    """Why this picture could not be used."""


class DetectTiming(Shape):
    """Milliseconds, summed over the pictures; a batch's inference counts for each picture in it."""

    decode_ms: float
    """From file to pixels."""
    queue_ms: float
    """Waiting for a free place, for the model to be loaded, for others of the batch."""
    preprocess_ms: float
    """From pixels to the network's input."""
    inference_ms: float
    """In the network, all passes together."""
    postprocess_ms: float
    """From the network's output to boxes."""
    classify_ms: float
    """In the second stage: decoding the whole picture, cutting, waiting, and the classifier."""
    batch_size: int
    """The largest batch that one of the pictures was part of."""
    passes: int
    """How often the network looked at each picture; more than 1 with `tta`."""


class DetectAnswer(Shape):
    model_config = example(
        model=EXAMPLE_ID,
        images=[
            {
                "width": 768,
                "height": 576,
                "detections": [
                    {
                        "label": "dog",
                        "class_id": 16,
                        "score": 0.93,
                        "box": {"x1": 130.7, "y1": 219.5, "x2": 309.2, "y2": 541.6},
                    }
                ],
            }
        ],
        timing={
            "decode_ms": 5.1,
            "queue_ms": 0.4,
            "preprocess_ms": 0.6,
            "inference_ms": 9.3,
            "postprocess_ms": 0.8,
            "classify_ms": 0.0,
            "batch_size": 1,
            "passes": 1,
        },
    )

    model: str
    """Id of the model that looked."""
    images: list[ImageResult | ImageFailure]
    """In the order sent; with several pictures one that fails does not spoil the others."""
    timing: DetectTiming
    """Where the time went."""
