"""Tries a faster backend beside the traffic: it serves a model only after it has found what is found today.

While nothing waits, pictures that were just answered are looked at once more, by the backend that serves and
by the one on trial; where batches are served, full ones are timed, too. Nothing of a picture is kept. When
the boxes agree and it is faster, it takes over with the next request; when not, it is not asked again for
this model. Who lost leaves the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from app.detect.wire import ChosenBy, ServedModel
from app.engine.acceptances import Acceptance, Acceptances
from app.engine.loader import LoadedModel
from app.engine.refusal import RefusedError
from app.engine.threads import Threads
from detection.detections import Detections
from detection.errors import ImageError
from detection.inference.agreement import CONFIDENT, TOLERANCES, Agreement, Tolerance, compare_detections
from detection.inference.predictor import DetectOptions, Predictor, Prepared
from detection.inference.serving import ServingShape
from detection.tasks import Task

PICTURES = 16
"""So many different ones must have been looked at, and boxes enough been seen."""
MOST_PICTURES = 500
"""Who has seen so many, and not boxes enough, will not see them."""
FASTER = 0.95
"""Of the time that inference of a full batch takes today: who needs more is not worth the change."""
AS_FAST = 1.05
"""Of the time that a lone picture takes today: who needs more makes those wait that come one by one."""
log = structlog.get_logger(__name__)

Load = Callable[[ServedModel, ServingShape], Awaitable[LoadedModel]]


@dataclass(slots=True)
class Times:
    """How long inference took, in milliseconds."""

    full: list[float] = field(default_factory=list)
    """Of a full batch; on a CPU that is a lone picture."""
    lone: list[float] = field(default_factory=list)
    """Of a picture that is alone."""

    def add(self, predictor: Predictor, prepared: Prepared, count: int, lone_ms: float) -> None:
        """Time a batch of so many pictures beside the lone one that was seen already."""
        self.lone.append(lone_ms)
        self.full.append(lone_ms if count == 1 else predictor.infer([prepared] * count)[0].inference_ms)

    def best(self) -> tuple[float, float]:
        """Return the quickest of each: what a backend needs, whatever else the machine does meanwhile."""
        return min(self.full, default=0.0), min(self.lone, default=0.0)


@dataclass(slots=True)
class Trial:
    """How a backend has done so far for one model."""

    shape: ServingShape
    agreement: Agreement = field(default_factory=Agreement)
    own: Times = field(default_factory=Times)
    tried: Times = field(default_factory=Times)
    batch: int = 1
    """Pictures of a full batch."""
    seen: set[int] = field(default_factory=set)
    """Hashes of the pictures: one that is sent again and again tells nothing new."""

    @property
    def tolerance(self) -> Tolerance:
        return TOLERANCES[self.shape.precision]

    def is_over(self) -> bool:
        enough = self.agreement.pictures >= PICTURES and self.agreement.says_enough
        return enough or len(self.seen) >= MOST_PICTURES

    def differs(self) -> bool:
        """Return whether it has found something else; what was only slow may be quicker another time."""
        return self.agreement.says_enough and not self.agreement.is_within(self.tolerance)

    def outcome(self) -> Acceptance:
        """Return what it comes to."""
        (own_ms, own_lone_ms), (tried_ms, tried_lone_ms) = self.own.best(), self.tried.best()
        boxes = f"{self.agreement.same} of {self.agreement.boxes} boxes agree"
        times = f"{tried_lone_ms:.1f} ms instead of {own_lone_ms:.1f} ms"
        if self.batch > 1:
            times += f", {tried_ms:.1f} ms instead of {own_ms:.1f} ms for {self.batch} pictures"
        faster = tried_ms <= FASTER * own_ms and tried_lone_ms <= AS_FAST * own_lone_ms
        agrees = self.agreement.is_within(self.tolerance)
        return Acceptance(agrees and faster, f"{boxes}, {times}", self.agreement)


class Probation:
    """Decides how each model is served that no plan was pinned to."""

    def __init__(
        self,
        known: Acceptances,
        *,
        own: Callable[[ServedModel], ServingShape],
        candidates: Sequence[ServingShape],
        load: Load,
        may_try: Callable[[ServedModel, ServingShape], bool],
        swapped: Callable[[], None],
        lost: Callable[[ServedModel, ServingShape], None],
    ) -> None:
        """Try `candidates`, the best first.

        Args:
            known: what earlier processes found out.
            own: how a model is served by itself.
            load: returns a model that is ready to look in a shape; it may have to be loaded.
            may_try: whether at this moment nothing waits, and a model in a shape is in memory or fits there.
            swapped: called when a model is served in another shape from now on.
            lost: called with a shape in which a model is served no longer, or will not be.
        """
        self._known, self._own, self._candidates = known, own, tuple(candidates)
        self._load, self._may_try, self._swapped, self._lost = load, may_try, swapped, lost
        self._trials: dict[str, Trial | None] = {}
        self._shapes: dict[str, ServingShape] = {}
        self._running: asyncio.Task[None] | None = None
        self._thread = Threads(1, "probation")

    def shape_of(self, model: ServedModel) -> ServingShape:
        """Return how a model is served now."""
        if model.shape is not None or not self._candidates or model.record.task is not Task.DETECT:
            return self._own(model)
        if model.id not in self._trials:
            self._begin(model)
        return self._shapes.get(model.id) or self._own(model)

    def why(self, model: ServedModel) -> tuple[ChosenBy, str]:
        """Return who decided how a model is served now, and a word about it for people."""
        own, accepted = self._own(model), self._shapes.get(model.id)
        if model.shape is not None:
            pinned, used = model.shape.executor, own.executor
            if pinned == used:
                return ChosenBy.PLAN, ""
            return ChosenBy.DEFAULT, f"a plan has pinned {pinned}, which cannot be used here"
        if accepted is not None:
            return ChosenBy.COMPARISON, self._told(model, accepted, "was accepted")
        trial = self._trials.get(model.id)
        if trial is not None:
            seen = trial.agreement.pictures
            return (
                ChosenBy.DEFAULT,
                f"{trial.shape.executor} is on trial, {seen} of {PICTURES} pictures compared",
            )
        told = [self._told(model, each, "was turned down") for each in self._candidates]
        return ChosenBy.DEFAULT, "; ".join(filter(None, told))

    def _told(self, model: ServedModel, shape: ServingShape, word: str) -> str:
        known = self._known.find(model.id, shape)
        return "" if known is None else f"{shape.executor} {word}: {known.reason}"

    def saw(self, model: ServedModel, image: bytes) -> None:
        """Hear of a picture that was answered; returns at once, and mostly does nothing."""
        if model.shape is not None or not self._candidates or self._running is not None:
            return
        trial = self._trials.get(model.id)
        if trial is None or hash(image) in trial.seen:
            return
        if self._may_try(model, trial.shape):
            trial.seen.add(hash(image))
            self._running = asyncio.create_task(self._look_again(trial, model, image))
            self._running.add_done_callback(partial(self._end, model))

    def _begin(self, model: ServedModel) -> None:
        """Take what is known of a model, or begin the trial of the first candidate that is not."""
        self._trials[model.id] = None
        for shape in self._candidates:
            known = self._known.find(model.id, shape)
            if known is None:
                self._trials[model.id] = Trial(shape)
                return
            if known.accepted:
                self._shapes[model.id] = shape
                return

    def _end(self, model: ServedModel, running: asyncio.Task[None]) -> None:
        self._running = None
        if running.cancelled() or (error := running.exception()) is None:
            return
        log.error("a trial of a backend failed", model_id=model.id, exc_info=error)
        # Another process may try again; here it would fail every time.
        if (trial := self._trials.get(model.id)) is not None:
            self._lost(model, trial.shape)
        self._trials[model.id] = None

    async def _look_again(self, trial: Trial, model: ServedModel, image: bytes) -> None:
        try:
            own = await self._load(model, self._own(model))
            tried = await self._load(model, trial.shape)
        except RefusedError as refused:
            outcome = Acceptance(False, refused.message, trial.agreement)
        else:
            await asyncio.get_running_loop().run_in_executor(self._thread, _compare, trial, own, tried, image)
            if not trial.is_over():
                return
            outcome = trial.outcome()
        await self._decide(model, trial, outcome)

    async def _decide(self, model: ServedModel, trial: Trial, outcome: Acceptance) -> None:
        shape, lasting = trial.shape, outcome.accepted or trial.differs()
        await asyncio.get_running_loop().run_in_executor(
            self._thread, partial(self._known.add, model.id, shape, outcome, lasting=lasting)
        )
        del self._trials[model.id]
        word = "accepted" if outcome.accepted else "rejected"
        log.info(f"backend {word}", model_id=model.id, backend=shape.executor, reason=outcome.reason)
        self._begin(model)
        if outcome.accepted:
            self._swapped()
        self._lost(model, self._own(model) if outcome.accepted else shape)


def _compare(trial: Trial, own: LoadedModel, tried: LoadedModel, image: bytes) -> None:
    options = DetectOptions(score_threshold=CONFIDENT - trial.tolerance.score)
    try:
        prepared = own.narrow.prepare(image)
    except ImageError:  # says nothing about a backend
        return
    trial.batch = min(own.batch_size, tried.batch_size)

    def look(predictor: Predictor, times: Times) -> Detections:
        (prediction,) = predictor.detect([prepared], options)
        times.add(predictor, prepared, trial.batch, prediction.timing.inference_ms)
        return prediction.detections

    served, found = look(own.narrow, trial.own), look(tried.narrow, trial.tried)
    trial.agreement += compare_detections(served, found, trial.tolerance)
