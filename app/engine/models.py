"""Models in memory: each loaded once, beside the pictures; the least recently used go first."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import structlog

from app.detect.wire import Refusal, ServedModel
from app.engine.refusal import RefusedError
from detection.inference.serving import ServingShape

log = structlog.get_logger(__name__)

RETRY_S = 10.0
"""So long a model that could not be loaded is let alone by requests that another one answers."""


class Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


Loaded = TypeVar("Loaded", bound=Sized)

_Key = tuple[str, ServingShape]


class ModelCache(Generic[Loaded]):
    """The models in memory, up to a number of bytes; what is held stays, and so does the newest.

    A model may be there once for each shape in which it is served. One that is evicted while pictures are on
    their way through it finishes them: they hold it.
    """

    def __init__(
        self,
        load: Callable[[ServedModel, ServingShape], Awaitable[Loaded]],
        *,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._max_bytes, self._clock = load, max_bytes, clock
        self._loaded: OrderedDict[_Key, Loaded] = OrderedDict()
        self._loading: dict[_Key, asyncio.Task[Loaded]] = {}
        self._held: set[_Key] = set()
        self._expected: deque[tuple[ServedModel, ServingShape]] = deque()
        self._filling: asyncio.Task[None] | None = None
        self._failed_at: dict[_Key, float] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the models, each once, the least recently used first."""
        return tuple(dict.fromkeys(model_id for model_id, _ in self._loaded))

    @property
    def size_bytes(self) -> int:
        return sum(model.size_bytes for model in self._loaded.values())

    def peek(self, model: ServedModel, shape: ServingShape) -> Loaded | None:
        """Return a model that is in memory; unlike `find` this does not count as use."""
        return self._loaded.get((model.id, shape))

    def find(self, model: ServedModel, shape: ServingShape) -> Loaded | None:
        """Return a model that is in memory, and count it as used."""
        key = model.id, shape
        loaded = self._loaded.get(key)
        if loaded is not None:
            self._loaded.move_to_end(key)
        return loaded

    def has_failed(self, model: ServedModel, shape: ServingShape) -> bool:
        """Return whether the last attempt to load a model failed."""
        return (model.id, shape) in self._failed_at

    async def get(self, model: ServedModel, shape: ServingShape) -> Loaded:
        """Return the model; the first of several askers loads it, the others wait for the same.

        Raises:
            RefusedError: it cannot be loaded.
        """
        loaded = self.find(model, shape)
        return loaded if loaded is not None else await asyncio.shield(self._start(model, shape))

    def hold(self, models: Sequence[tuple[ServedModel, ServingShape]]) -> None:
        """Evict anything but these models, and load those of them that are not there."""
        self._held = {(model.id, shape) for model, shape in models}
        self._failed_at.clear()
        self._evict()
        for model, shape in models:
            self.load_beside(model, shape)

    def expect(self, models: Sequence[tuple[ServedModel, ServingShape]]) -> None:
        """Load these, too, as far as there is room, the first ones first; they are evicted like any other.

        One after the other: a model that somebody waits for comes next.
        """
        self._expected = deque(models)
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        while self._expected:
            if self._loading:  # what is held, or waited for, takes its room first
                await asyncio.wait(tuple(self._loading.values()))
                continue
            expected, room = self._expected, self._max_bytes - self.size_bytes
            model, shape = expected.popleft()
            if room <= 0:
                expected.clear()
            elif self.peek(model, shape) is None and not self.has_failed(model, shape):
                with suppress(RefusedError):  # it is in the log
                    loaded = await self.get(model, shape)
                    if loaded.size_bytes >= room:  # the next one would push out the first
                        expected.clear()

    def drop(self, model: ServedModel, shape: ServingShape) -> None:
        """Forget a model in a shape in which it is not wanted any more, unless it is held."""
        key = model.id, shape
        if key not in self._held and self._loaded.pop(key, None) is not None:
            log.info("model dropped", model_id=model.id, shape=str(shape))

    def load_beside(self, model: ServedModel, shape: ServingShape) -> None:
        """Begin to load a model that nobody waits for; a failure is in the log, and `get` tries again.

        After a failure nothing happens for a while: every request would begin it anew.
        """
        key = model.id, shape
        failed_at = self._failed_at.get(key)
        if key not in self._loaded and (failed_at is None or self._clock() - failed_at >= RETRY_S):
            self._start(model, shape).add_done_callback(_heard)

    def _start(self, model: ServedModel, shape: ServingShape) -> asyncio.Task[Loaded]:
        key = model.id, shape
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.create_task(self._load_one(model, shape))
        return loading

    async def _load_one(self, model: ServedModel, shape: ServingShape) -> Loaded:
        key = model.id, shape
        attempt = asyncio.ensure_future(self._load(model, shape))
        await asyncio.wait({attempt})
        del self._loading[key]
        error = attempt.exception()
        if error is not None:
            if key in self._failed_at:  # every request tries again: where it failed is in the log already
                log.warning("model still cannot be loaded", model_id=model.id, reason=str(error))
            else:
                log.error("model cannot be loaded", model_id=model.id, exc_info=error)
            self._failed_at[key] = self._clock()
            raise error if isinstance(error, RefusedError) else unavailable(model, "cannot be loaded")
        self._failed_at.pop(key, None)
        loaded = self._loaded[key] = attempt.result()
        self._evict(newest=key)
        log.info(
            "model loaded",
            model_id=model.id,
            architecture=model.record.architecture,
            shape=str(shape),
            size_bytes=loaded.size_bytes,
        )
        return loaded

    def _evict(self, *, newest: _Key | None = None) -> None:
        spare = [key for key in self._loaded if key not in self._held and key != newest]
        while spare and self.size_bytes > self._max_bytes:
            evicted, shape = key = spare.pop(0)
            del self._loaded[key]
            log.info("model evicted", model_id=evicted, shape=str(shape))


def unavailable(model: ServedModel, problem: str) -> RefusedError:
    return RefusedError(Refusal.MODEL_UNAVAILABLE, f"the model {model.id} {problem}")


def _heard(loading: asyncio.Task[Loaded]) -> None:
    """Take note of an error that is in the log already."""
    if not loading.cancelled():
        loading.exception()
