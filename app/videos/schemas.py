"""What can be asked about a video, and how its detections are written: one JSON object a line."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from app.api.faults import invalid_input
from app.api.shapes import EXAMPLE_ID, Shape, example
from app.detect.schemas import MOST_EVERY, Detection, DetectParameters
from app.errors import Place, Problem

FOR_PICTURES = {
    "tta": "test-time augmentation is for pictures; a video is looked at plainly",
    "classifier": "a second stage looks at the boxes of pictures, not of videos",
}
"""Parameters of `/detect` that a video does not take, and why."""


class VideoParameters(DetectParameters):
    """Which model looks at which frames, and what it should report."""

    every: Annotated[int, Field(ge=1, le=MOST_EVERY)] = 1
    """Look at every n-th frame, beginning with the first."""
    annotate: bool = True
    """Also make a video of the frames looked at with their detections drawn."""


def video_parameters(given: DetectParameters, place: Place) -> VideoParameters:
    """Return what is asked about a video.

    Args:
        place: where it was said, for an answer that refuses it.

    Raises:
        InvalidInputError: something is asked that makes no sense for a video.
    """
    said = given.model_dump(exclude_unset=True)
    wrong = [
        Problem(pointer=f"/{name}", problem=why, place=place)
        for name, why in FOR_PICTURES.items()
        if said.get(name) is not None
    ]
    if wrong:
        raise invalid_input(wrong)
    return VideoParameters(**{name: value for name, value in said.items() if value is not None})


class VideoHead(Shape):
    """The first line: which model looked at what, and how."""

    model: str
    """Id of the model that looked."""
    parameters: dict[str, Any]
    """As they were used: `score_threshold`, `nms_iou`, `max_detections`, `classes`, `every`."""
    width: int
    """Pixels, as the file announces its frames, the right way up."""
    height: int
    """Pixels, as the file announces its frames, the right way up."""
    fps: float
    """Frames a second, as the file announces them, on average."""
    announced_frames: int | None
    """As the file announces them; null where it does not. Matroska and WebM only give an estimate."""


class FrameRead(Shape):
    """Every other line: one frame that was looked at."""

    model_config = example(
        frame=12,
        time_s=0.4,
        width=1280,
        height=720,
        detections=[
            {
                "label": "dog",
                "class_id": 16,
                "score": 0.93,
                "box": {"x1": 130.7, "y1": 219.5, "x2": 309.2, "y2": 541.6},
            }
        ],
    )

    frame: int
    """Its number among those that could be decoded; the first is 0."""
    time_s: float
    """Seconds since the beginning, by the file's own clock; it never goes back."""
    width: int
    """Pixels, turned as the file asks for."""
    height: int
    """Pixels, turned as the file asks for."""
    detections: list[Detection]
    """As `/detect` answers them for a picture: by decreasing score, in pixels of this frame."""


LINES_EXAMPLE = (
    f'{{"model":"{EXAMPLE_ID}","parameters":{{"every":1}},"width":1280,"height":720,"fps":30.0,'
    '"announced_frames":300}\n{"frame":0,"time_s":0.0,"width":1280,"height":720,"detections":[]}\n'
)
