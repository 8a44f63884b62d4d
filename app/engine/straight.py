"""The short way on a CPU: one thread takes a picture from its bytes to its boxes without putting it down.

Every change of threads costs a wake-up and a wait for the interpreter, and the caches of the core. Hardly
more threads work than there are streams; a picture that is alone is computed with all cores while that is
quicker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.engine.admission import Place
from app.engine.lanes import Lane
from app.engine.stock import ReadyModel
from app.engine.two_lanes import is_large
from detection.images import ImageHeader, check_header, decoding_bytes
from detection.inference.passes import PLAIN
from detection.inference.predictor import DetectOptions, Prediction

MOST_BUFFERS = 4
"""Input sizes that a thread keeps memory for."""

Value = TypeVar("Value")


class GivenUpError(Exception):
    """Nobody waits for this picture any more."""


class Straight:
    """Takes pictures of models that compute one at a time."""

    def __init__(self, lane: Lane, *, max_pixels: int) -> None:
        self._lane, self._max_pixels = lane, max_pixels
        self._own = threading.local()

    @staticmethod
    def fits(model: ReadyModel, options: DetectOptions) -> bool:
        """Return whether the short way is the way for this."""
        return model.takes_one_at_a_time and tuple(options.passes) == (PLAIN,)

    async def look(
        self,
        image: bytes,
        model: ReadyModel,
        options: DetectOptions,
        place: Place,
        *,
        answer: Callable[[Prediction], Value],
        tell: Callable[[Value], object],
    ) -> Value | ImageHeader:
        """Return what the model sees; of a large picture, which is not for this way, only its header.

        Args:
            answer: makes of it what is returned; called in the thread.
            tell: called with that, in the thread, before the loop learns of it; not while many wait.

        Raises:
            ImageError: the picture cannot be used.
        """

        def through() -> Value | ImageHeader:
            seen = self._take_through(image, model, options, place)
            return seen if isinstance(seen, ImageHeader) else answer(seen)

        def tell_of_it(seen: Value | ImageHeader) -> None:
            if not isinstance(seen, ImageHeader):
                tell(seen)

        async with model.streams:
            return await self._lane.take(through, when_left=place.leave, tell=tell_of_it)

    def _take_through(
        self, image: bytes, model: ReadyModel, options: DetectOptions, place: Place
    ) -> Prediction | ImageHeader:
        place.begin()
        predictor = model.loaded.predictor
        header = check_header(image, max_pixels=self._max_pixels)
        size_hw = model.record.input_size_hw
        if is_large(header, decoding_bytes(header, input_size_hw=size_hw)):
            return header
        prepared = predictor.prepare(image, header=header, out=self._buffer(size_hw))
        if place.is_left:
            raise GivenUpError
        (inferred,) = model.infer([prepared])
        return predictor.finish(prepared, inferred, options)

    def _buffer(self, size_hw: tuple[int, int]) -> NDArray[np.float32]:
        """Return this thread's input of that size; what was in it has been computed."""
        buffers: dict[tuple[int, int], NDArray[np.float32]] = self._own.__dict__.setdefault("buffers", {})
        if size_hw not in buffers:
            if len(buffers) >= MOST_BUFFERS:
                buffers.clear()
            buffers[size_hw] = np.empty((3, *size_hw), np.float32)
        return buffers[size_hw]
