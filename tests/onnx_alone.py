"""Detection with nothing but a downloaded ONNX file: ONNX Runtime, OpenCV and NumPy, no line of Harrier."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Found(NamedTuple):
    """One detection, in pixels of the picture."""

    label: str
    score: float
    box: tuple[float, ...]


def detect_alone(graph: bytes, picture: bytes, *, score_threshold: float) -> list[Found]:
    """Return what a model sees in an upright picture, by decreasing score.

    All that has to be known about the model lies in the graph itself.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    record = json.loads(session.get_modelmeta().custom_metadata_map["harrier.model"])
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    images, scale = fitted(pixels, record)
    boxes, scores = (batch[0] for batch in session.run(["boxes", "scores"], {"images": images}))
    labels, best = scores.argmax(axis=1), scores.max(axis=1)
    order = [row for row in np.argsort(-best, kind="stable") if best[row] >= score_threshold]
    kept: list[int] = []
    for row in order:
        rivals = [other for other in kept if labels[other] == labels[row]]
        if all(overlap(boxes[row], boxes[other]) <= record["nms_iou"] for other in rivals):
            kept.append(row)
    height, width = pixels.shape[:2]
    inside = np.clip(boxes / scale, 0, [width, height, width, height])
    return [
        Found(record["classes"][labels[row]], float(best[row]), tuple(map(float, inside[row])))
        for row in kept
        if (inside[row, 2:] > inside[row, :2]).all()
    ]


def fitted(pixels: NDArray[np.uint8], record: dict[str, Any]) -> tuple[Array, float]:
    """Place a picture at the top left of the input; return the input and how much the picture shrank."""
    convention = record["input_convention"]
    assert (convention["order"], convention["resize"], convention["scale"]) == ("bgr", "letterbox", 1.0)
    height, width = record["input_size_hw"]
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    resized = cv2.resize(pixels, (int(pixels.shape[1] * scale), int(pixels.shape[0] * scale)))
    canvas = np.full((height, width, 3), convention["pad_value"], np.float32)
    canvas[: resized.shape[0], : resized.shape[1]] = resized
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None]), scale


def overlap(one: Array, other: Array) -> float:
    """Return the IoU of two boxes."""
    x1, y1 = np.maximum(one[:2], other[:2])
    x2, y2 = np.minimum(one[2:], other[2:])
    shared = max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))
