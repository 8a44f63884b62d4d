"""Stand-ins that keep the same promises as the real thing, for tests that are about something else."""

from __future__ import annotations

from collections.abc import Sequence

from app.detect.engine_client import EngineClient
from app.detect.wire import Box, Detected, EngineStatus, ServedModel, ServedNow, Timing
from app.errors import EngineUnavailableError, HarrierError
from app.jobs.states import Queue
from detection.inference.passes import PLAIN, TtaPass

JPEG = b"\xff\xd8\xff\xe0 a picture, as far as a test can tell \xff\xd9"


class RecordingBell:
    """Rings for nobody, and remembers for whom."""

    def __init__(self, *, broken: bool = False) -> None:
        self.rings: list[tuple[str, Queue]] = []
        self.broken = broken

    def ring(self, job_id: str, queue: Queue) -> bool:
        if not self.broken:
            self.rings.append((job_id, queue))
        return not self.broken


class FakeEngine(EngineClient):
    """Answers every request for a picture with the same few bytes, and remembers what it was asked."""

    def __init__(self) -> None:
        self.has_answered = False
        self.rendered: list[tuple[bytes, tuple[Box, ...], int | None]] = []
        self.error: HarrierError | None = None
        """Raised instead of an answer."""
        self.held: tuple[ServedModel, ...] | None = None
        self.expected: tuple[ServedModel, ...] = ()
        self.prepared: list[ServedModel] = []
        self.loading: set[str] = set()
        """Models that are not in memory yet: `instead` answers for them."""
        self.served: tuple[ServedNow, ...] = ()
        """What its status says."""
        self.loads_after_next = False
        """Whether they come into memory once `instead` has answered."""

    async def detect(
        self,
        image: bytes,
        model: ServedModel,
        *,
        score_threshold: float = 0.3,
        nms_iou: float | None = None,
        max_detections: int = 100,
        class_ids: tuple[int, ...] | None = None,
        annotate: bool = False,
        classifier: ServedModel | None = None,
        passes: tuple[TtaPass, ...] = (PLAIN,),
        instead: ServedModel | None = None,
    ) -> Detected:
        self._fail_if_told()
        if instead is not None and model.id in self.loading:
            model = instead
            if self.loads_after_next:
                self.loading.clear()
        return Detected(
            id=1,
            width=64,
            height=48,
            boxes=(Box(1.0, 2.0, 30.0, 40.0, 0, model.record.classes[0], 0.9),),
            timing=Timing(1.0, 0.0, 1.0, 5.0, 0.5, 1),
            queue_images=0,
            model_id=model.id,
            annotated=JPEG if annotate else None,
        )

    async def render(
        self, image: bytes, *, boxes: tuple[Box, ...] = (), max_side: int | None = None
    ) -> bytes:
        self._fail_if_told()
        self.rendered.append((image, boxes, max_side))
        return JPEG

    async def hold(self, models: Sequence[ServedModel], expected: Sequence[ServedModel] = ()) -> None:
        self._fail_if_told()
        self.held, self.expected = tuple(models), tuple(expected)

    async def prepare(self, model: ServedModel, timeout_s: float) -> None:
        self._fail_if_told()
        self.loading.discard(model.id)
        self.prepared.append(model)

    async def status(self, *, timeout_s: float = 1.0) -> EngineStatus:
        self._fail_if_told()
        return EngineStatus(
            id=1,
            pid=1,
            device="cpu",
            backend="fake",
            models=(),
            model_bytes=0,
            queue_images=0,
            queue_bytes=0,
            served=self.served,
        )

    async def close(self) -> None:
        """Nothing is open."""

    def _fail_if_told(self) -> None:
        if self.error is not None:
            raise self.error


def dead_engine() -> FakeEngine:
    engine = FakeEngine()
    engine.error = EngineUnavailableError("the engine is not running", retry_after_s=5)
    return engine
