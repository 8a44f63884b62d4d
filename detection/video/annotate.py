"""The frames of a video with what was detected in them drawn."""

from __future__ import annotations

from collections.abc import Sequence

from detection.detections import Detections
from detection.images import Pixels
from detection.inference.draw import draw_detections
from detection.video.reader import Frame
from detection.video.writer import VideoFileWriter


def add_annotated(
    writer: VideoFileWriter, frame: Frame, detections: Detections, classes: Sequence[str]
) -> None:
    """Add a frame with its detections drawn; captions are as large as the written video wants them.

    Args:
        detections: boxes in pixels of the frame.
        classes: the label of every class index.
    """
    canvas = writer.shrink(frame.pixels)
    writer.add(draw_detections(canvas, _scaled(detections, frame.pixels, canvas), classes), frame.time_s)


def _scaled(detections: Detections, whole: Pixels, canvas: Pixels) -> Detections:
    """Return boxes for a frame that was shrunk; one that was only made even keeps its pixels."""
    width, height = (canvas.shape[axis] / whole.shape[axis] for axis in (1, 0))
    if abs(canvas.shape[1] - whole.shape[1]) <= 1 and abs(canvas.shape[0] - whole.shape[0]) <= 1:
        return detections
    boxes_N4 = detections.boxes_N4 * detections.boxes_N4.new_tensor([width, height, width, height])
    return Detections(boxes_N4, detections.scores_N, detections.labels_N)
