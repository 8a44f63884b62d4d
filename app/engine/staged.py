"""The long way: prepared by one thread, batched with others, computed on the device, finished by a thread.

It is the way of everything on an accelerator, of several looks at a picture, and of large pictures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from app.engine.admission import Place
from app.engine.lanes import Turn
from app.engine.stock import ReadyModel
from detection.images import ImageHeader
from detection.inference.passes import PLAIN, TtaPass
from detection.inference.predictor import (
    DetectOptions,
    Inferred,
    Prediction,
    Predictor,
    Prepared,
    with_view,
)

Value = TypeVar("Value")


class Staged:
    """Takes pictures through several threads and batches."""

    def __init__(self) -> None:
        self.extra_looks = 0
        """Of pictures that are looked at more than once: each look takes a stream of its own."""

    async def look(
        self,
        image: bytes,
        header: ImageHeader,
        models: Sequence[ReadyModel],
        options: DetectOptions,
        turn: Turn,
        place: Place,
    ) -> Prediction:
        """Return what the models see, one for each pass.

        Raises:
            ImageError: the picture cannot be used.
        """
        predictor = models[0].loaded.predictor

        def prepare() -> Prepared:
            place.begin()
            return predictor.prepare(image, header=header)

        self.extra_looks += len(models) - 1
        try:
            prepared = await turn.run(prepare)
            looks = [
                _look(prepared, look, model, turn) for look, model in zip(options.passes, models, strict=True)
            ]
            seen = [await looks[0]] if len(looks) == 1 else await _all_or_first_error(looks)
            for look, (view, _) in zip(options.passes, seen, strict=True):
                prepared = with_view(prepared, view, look)
            return await turn.run(_finish, predictor, prepared, [each for _, each in seen], options)
        finally:
            self.extra_looks -= len(models) - 1


async def _look(
    prepared: Prepared, look: TtaPass, model: ReadyModel, turn: Turn
) -> tuple[Prepared, Inferred]:
    view = prepared if look == PLAIN else await turn.run(model.loaded.predictor.view, prepared, look)
    return view, await model.batcher.submit(view)


async def _all_or_first_error(work: Sequence[Coroutine[Any, Any, Value]]) -> list[Value]:
    """Return what all return when all have ended, so that nothing works on for a picture that is given up."""
    ended = await asyncio.gather(*work, return_exceptions=True)
    for each in ended:
        if isinstance(each, BaseException):
            raise each
    return [each for each in ended if not isinstance(each, BaseException)]


def _finish(
    predictor: Predictor, prepared: Prepared, inferred: Sequence[Inferred], options: DetectOptions
) -> Prediction:
    return predictor.finish(prepared, predictor.merge(options.passes, inferred), options)
