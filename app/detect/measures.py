"""What Prometheus reads about detection: stages, batches, outcomes, and how much waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.api.noted import Noted
from app.detect.wire import Detected, EngineStatus, Timing
from app.errors import HarrierError

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
DEPTHS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
STAGES = ("decode", "queue", "preprocess", "inference", "postprocess")
"""Of every picture; the second stage is noted where there was one."""


class DetectMeasures:
    """The series of `/detect` in an application's registry; labels are looked up once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._noted: Noted[tuple[Timing, int]] = Noted(self._count_detected, registry)
        stages = Histogram(
            "harrier_detect_stage_seconds",
            "Time of one picture in each stage.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self._stages = tuple((attrgetter(f"{stage}_ms"), stages.labels(stage)) for stage in STAGES)
        self._classify = stages.labels("classify")
        self._batches = Histogram(
            "harrier_detect_batch_size", "Pictures in one forward pass.", buckets=BATCHES, registry=registry
        )
        self._depths = Histogram(
            "harrier_detect_queue_depth",
            "Pictures that were in the engine when one was answered.",
            buckets=DEPTHS,
            registry=registry,
        )
        self._images = Counter(
            "harrier_detect_images", "Pictures, by what became of them.", ["outcome"], registry=registry
        )
        self._detected = self._images.labels("detected")
        self._rejected = Counter(
            "harrier_detect_rejected", "Requests turned away, by why.", ["reason"], registry=registry
        )
        self._queue_images = 0
        waiting = Gauge(
            "harrier_engine_queue_images", "Pictures in the engine when it last answered.", registry=registry
        )
        waiting.set_function(lambda: self._queue_images)
        self._waiting_bytes = Gauge(
            "harrier_engine_queue_bytes", "Bytes of pictures in the engine, a moment ago.", registry=registry
        )
        self._models = Gauge(
            "harrier_engine_models", "Models in the engine's memory, a moment ago.", registry=registry
        )
        self._model_bytes = Gauge(
            "harrier_engine_model_bytes", "Bytes of models in the engine's memory.", registry=registry
        )
        self._held = Gauge(
            "harrier_detect_held_bytes", "Bytes of pictures that this API process holds.", registry=registry
        )

    def watch_held(self, held_bytes: Callable[[], int]) -> None:
        """Ask for the bytes held when Prometheus does, not with every piece of a picture."""
        self._held.set_function(held_bytes)

    def note_answered(self, images: Sequence[Detected | HarrierError]) -> None:
        """Count the pictures of an answered request."""
        for image in images:
            if isinstance(image, HarrierError):
                self.note_refused(image.code)
            else:
                self._queue_images = image.queue_images
                self._noted.note((image.timing, image.queue_images))

    def note_refused(self, code: str) -> None:
        """Count a picture that could not be used, or not now."""
        self._images.labels(code).inc()

    def note_rejected(self, code: str) -> None:
        """Count a request that was told to come back."""
        self._rejected.labels(code).inc()

    def note_status(self, status: EngineStatus) -> None:
        """Note how full the engine is."""
        self._queue_images = status.queue_images
        self._waiting_bytes.set(status.queue_bytes)
        self._models.set(len(status.models))
        self._model_bytes.set(status.model_bytes)

    def _count_detected(self, answer: tuple[Timing, int]) -> None:
        timing, queue_images = answer
        self._detected.inc()
        self._batches.observe(timing.batch_size)
        self._depths.observe(queue_images)
        for milliseconds_of, seconds in self._stages:
            seconds.observe(milliseconds_of(timing) / 1000)
        if timing.classify_ms:
            self._classify.observe(timing.classify_ms / 1000)
