"""What the engine says about a picture, in the words of the wire."""

from __future__ import annotations

from collections.abc import Sequence

from app.detect.wire import Box, Timing
from detection.inference.predictor import Prediction


def boxes_of(prediction: Prediction, classes: Sequence[str]) -> tuple[Box, ...]:
    found = prediction.detections
    rows = zip(found.boxes_N4.tolist(), found.scores_N.tolist(), found.labels_N.tolist(), strict=True)
    return tuple(
        Box(x1, y1, x2, y2, class_id, classes[class_id], score) for (x1, y1, x2, y2), score, class_id in rows
    )


def timing_of(prediction: Prediction, total_ms: float) -> Timing:
    """Waiting is what no stage accounts for: for a slot, for the model to load, for a thread, for a batch."""
    timing = prediction.timing
    worked_ms = timing.decode_ms + timing.preprocess_ms + timing.inference_ms + timing.postprocess_ms
    return Timing(
        decode_ms=timing.decode_ms,
        queue_ms=max(total_ms - worked_ms, 0.0),
        preprocess_ms=timing.preprocess_ms,
        inference_ms=timing.inference_ms,
        postprocess_ms=timing.postprocess_ms,
        batch_size=timing.batch_size,
        passes=timing.passes,
    )
