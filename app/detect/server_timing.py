"""Where the time went, as the header `Server-Timing` that browsers' tools show, in every form of answer."""

from __future__ import annotations

from collections.abc import Sequence

from app.detect.wire import Detected
from app.errors import HarrierError

HEADER = "Server-Timing"


def server_timing(images: Sequence[Detected | HarrierError]) -> str:
    """Return milliseconds by stage, summed over the pictures that were looked at."""
    decode = queue = preprocess = inference = postprocess = classify = 0.0
    for image in images:
        if isinstance(image, Detected):
            timing = image.timing
            decode += timing.decode_ms
            queue += timing.queue_ms
            preprocess += timing.preprocess_ms
            inference += timing.inference_ms
            postprocess += timing.postprocess_ms
            classify += timing.classify_ms
    return (
        f"decode;dur={decode:.3f}, queue;dur={queue:.3f}, preprocess;dur={preprocess:.3f}, "
        f"inference;dur={inference:.3f}, postprocess;dur={postprocess:.3f}, classify;dur={classify:.3f}"
    )
