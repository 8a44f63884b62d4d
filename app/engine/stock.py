"""The models that are ready for pictures, and which of them looks at one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from app.detect.wire import Detect, Refusal, ServedModel, ServedNow
from app.engine.acceptances import Acceptances
from app.engine.batcher import Batcher
from app.engine.device import Device, num_cores
from app.engine.footprint import memory_free
from app.engine.formers import Formers
from app.engine.lanes import COMPUTING_NICENESS
from app.engine.loader import LoadedClassifier, LoadedModel, Loader
from app.engine.models import ModelCache
from app.engine.probation import Probation
from app.engine.refusal import RefusedError
from app.engine.second_stage import ReadyClassifier, line_up
from app.engine.threads import WITH_MODELS, Threads
from app.engine.width import Width
from detection.inference.predictor import Inferred, Prepared
from detection.inference.serving import ServingShape
from detection.inference.tta import view_size_hw


class ReadyModel:
    """A detector in one shape, with its own line of batches."""

    def __init__(
        self,
        loaded: LoadedModel,
        shape: ServingShape,
        pool: ThreadPoolExecutor,
        *,
        alone: Callable[[], bool],
        max_delay_s: float,
    ) -> None:
        self.loaded, self.shape, self._alone, self._pool = loaded, shape, alone, pool
        self.record = loaded.predictor.record
        self.takes_one_at_a_time = loaded.batch_size == 1 and loaded.predictor.backend.device.type == "cpu"
        # Where streams keep all cores busy, who waits is better off waiting for a thread itself.
        self.streams = asyncio.Semaphore(shape.streams) if shape.streams < num_cores() else nullcontext()
        self._width = Width()
        self.batcher: Batcher[Prepared, Inferred] = Batcher(
            self._infer_beside,
            max_batch_size=loaded.batch_size,
            streams=shape.streams,
            max_delay_s=max_delay_s,
        )

    @property
    def size_bytes(self) -> int:
        return self.loaded.size_bytes

    def infer(self, batch: Sequence[Prepared]) -> list[Inferred]:
        """Return what the network says; a picture that is alone gets as many threads as are quicker."""
        wide = self._alone() and self._width.is_wide()
        predictor = self.loaded.predictor if wide else self.loaded.narrow
        begun = time.perf_counter()
        inferred = predictor.infer(batch)
        if len(batch) == 1 and self._alone():
            self._width.note(time.perf_counter() - begun, wide=wide)
        return inferred

    async def _infer_beside(self, batch: Sequence[Prepared]) -> list[Inferred]:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.infer, batch)


Ready = ReadyModel | ReadyClassifier


@dataclass(frozen=True, slots=True)
class Stock:
    """Loads on a thread of its own, so that pictures never wait for a model that others want."""

    device: Device
    models: ModelCache[Ready]
    probation: Probation
    held: list[ServedModel]
    loading: Threads
    """Where models are loaded."""
    expected: list[ServedModel] = field(default_factory=list)
    formers: Formers = field(default_factory=Formers)

    def shape_of(self, model: ServedModel) -> ServingShape:
        """Return how a model is served now."""
        return self.probation.shape_of(model)

    def stand_in(self, request: Detect) -> ServedModel:
        """Return the model that looks now, which is another one while the wanted one must be loaded first.

        It is the same model as it served before a plan pinned another shape to it, or the one instead. The
        wanted one is loaded beside. One that could not be loaded is tried for this request: another that
        looked for it would hide the fault for ever.
        """
        wanted = request.model
        if self._is_here(wanted):
            return wanted
        has_failed = self.models.has_failed(wanted, self.shape_of(wanted))
        for other in (self.formers.find(wanted), None if has_failed else request.instead):
            if other is not None and self._is_here(other):
                self.models.load_beside(wanted, self.shape_of(wanted))
                return other
        return wanted

    async def for_passes(self, request: Detect, model: ServedModel) -> list[ReadyModel]:
        """Return the model for each pass: in its own shape where the view has the model's size.

        Raises:
            RefusedError: it cannot be loaded, or is no detector.
        """
        own, size_hw = self.shape_of(model), model.record.input_size_hw
        shapes = [
            own if view_size_hw(look, model.record) == size_hw else self.device.any_size_shape(own)
            for look in request.passes
        ]
        ready = [await _detector_in(self.models, model, shape) for shape in shapes]
        self.formers.note(model)
        return ready

    async def classifier(self, wanted: ServedModel | None) -> ReadyClassifier | None:
        """Return a classifier, where one is wanted.

        Raises:
            RefusedError: it cannot be loaded, or is none.
        """
        if wanted is None:
            return None
        model = await self.models.get(wanted, self.shape_of(wanted))
        if not isinstance(model, ReadyClassifier):
            raise RefusedError(Refusal.MODEL_UNAVAILABLE, f"the model {wanted.id} is no classifier")
        return model

    async def prepare(self, model: ServedModel) -> None:
        """Return when a model is in memory.

        Raises:
            RefusedError: it cannot be loaded.
        """
        await self.models.get(model, self.shape_of(model))

    def hold(self, models: Sequence[ServedModel], expected: Sequence[ServedModel] = ()) -> None:
        """Keep these in memory whatever happens, and no others; load those that are not there yet.

        What is only expected is loaded as well while there is room. One whose shape has changed goes on in
        the former one until it is there, also when nobody has asked for it yet.
        """
        for model in (*self.expected, *self.held):
            if self.models.peek(model, self.shape_of(model)) is not None:
                self.formers.note(model)
        self.held[:], self.expected[:] = models, expected
        self.models.hold([(model, self.shape_of(model)) for model in models])
        self.models.expect([(model, self.shape_of(model)) for model in expected])

    def served(self) -> tuple[ServedNow, ...]:
        """Return how each model in memory is served; while a pinned shape is loaded, as it was before."""
        formers = {model.id: model for model in self.formers.all()}
        now = {**formers, **{model.id: model for model in (*self.expected, *self.held)}}
        found = [self._served(now.get(each)) or self._served(formers.get(each)) for each in self.models.ids]
        return tuple(served for served in found if served is not None)

    def _served(self, model: ServedModel | None) -> ServedNow | None:
        if model is None:
            return None
        shape = self.shape_of(model)
        ready = self.models.peek(model, shape)
        if ready is None:
            return None
        if isinstance(ready, ReadyModel):  # an accelerator has learned how large its batches may be
            shape = replace(shape, batch_size=ready.loaded.batch_size)
        return ServedNow(model.id, shape, *self.probation.why(model))

    def _is_here(self, model: ServedModel) -> bool:
        return self.models.find(model, self.shape_of(model)) is not None


async def _detector_in(models: ModelCache[Ready], wanted: ServedModel, shape: ServingShape) -> ReadyModel:
    model = await models.get(wanted, shape)
    if not isinstance(model, ReadyModel):
        raise RefusedError(Refusal.MODEL_UNAVAILABLE, f"the model {wanted.id} is no detector")
    return model


def _loading_with(
    loader: Loader,
    loading: Threads,
    pool: ThreadPoolExecutor,
    *,
    alone: Callable[[], bool],
    max_delay_s: float,
) -> Callable[[ServedModel, ServingShape], Awaitable[Ready]]:
    """Return what makes a model ready for pictures."""

    async def load(model: ServedModel, shape: ServingShape) -> Ready:
        loaded = await asyncio.get_running_loop().run_in_executor(loading, loader.load, model, shape)
        if isinstance(loaded, LoadedClassifier):
            return line_up(loaded, pool, streams=shape.streams, alone=alone)
        return ReadyModel(loaded, shape, pool, alone=alone, max_delay_s=max_delay_s)

    return load


def _has_room_to_try(models: ModelCache[Ready], device: Device) -> bool:
    """A backend on trial must not push out of the memory what serves, nor leave batches without any."""
    return models.size_bytes <= min(device.model_bytes // 2, memory_free(device.torch_device))


def open_stock(
    loader: Loader,
    device: Device,
    pool: ThreadPoolExecutor,
    *,
    alone: Callable[[], bool],
    is_idle: Callable[[], bool],
    known: Acceptances,
    max_delay_s: float,
) -> Stock:
    """Return a stock without models yet.

    Args:
        pool: the threads that compute.
        alone: whether no other picture needs the cores at this moment.
        is_idle: whether no picture is in the engine at all.
        known: which backends were accepted for which models before.
        max_delay_s: that a batch may wait for more pictures.
    """
    # The threads that a backend makes inherit the priority of the one that loads, and keep it for good.
    loading = Threads(1, "loader", niceness=COMPUTING_NICENESS, patience=WITH_MODELS)
    load = _loading_with(loader, loading, pool, alone=alone, max_delay_s=max_delay_s)
    models = ModelCache(load, max_bytes=device.model_bytes)
    held: list[ServedModel] = []

    async def in_shape(model: ServedModel, shape: ServingShape) -> LoadedModel:
        return (await _detector_in(models, model, shape)).loaded

    def may_try(model: ServedModel, shape: ServingShape) -> bool:
        return is_idle() and (models.find(model, shape) is not None or _has_room_to_try(models, device))

    probation = Probation(
        known,
        own=device.shape_of,
        candidates=device.candidates,
        load=in_shape,
        may_try=may_try,
        swapped=lambda: models.hold([(model, probation.shape_of(model)) for model in held]),
        lost=models.drop,
    )
    return Stock(device, models, probation, held, loading)
