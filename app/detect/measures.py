"""What Prometheus reads about detection: stages, batches, outcomes, and how much waits."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.detect.wire import Detected, Timing

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class DetectMeasures:
    """The series of `/detect` in an application's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stages = Histogram(
            "harrier_detect_stage_seconds",
            "Time of one picture in each stage.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "harrier_detect_batch_size", "Pictures in one forward pass.", buckets=BATCHES, registry=registry
        )
        self._images = Counter(
            "harrier_detect_images", "Pictures, by what became of them.", ["outcome"], registry=registry
        )
        self._waiting = Gauge(
            "harrier_engine_queue_images", "Pictures in the engine when it last answered.", registry=registry
        )
        self._held = Gauge(
            "harrier_detect_held_bytes", "Bytes of pictures that this API process holds.", registry=registry
        )

    def note_detected(self, answer: Detected) -> None:
        self._images.labels("detected").inc()
        self._waiting.set(answer.queue_images)
        self._batches.observe(answer.timing.batch_size)
        for stage, milliseconds in _stages(answer.timing).items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def note_refused(self, code: str) -> None:
        self._images.labels(code).inc()

    def note_held(self, num_bytes: int) -> None:
        self._held.set(num_bytes)


def _stages(timing: Timing) -> dict[str, float]:
    return {
        "decode": timing.decode_ms,
        "queue": timing.queue_ms,
        "preprocess": timing.preprocess_ms,
        "inference": timing.inference_ms,
        "postprocess": timing.postprocess_ms,
        **({"classify": timing.classify_ms} if timing.classify_ms else {}),
    }
