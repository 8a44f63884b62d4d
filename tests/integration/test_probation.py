"""The whole engine lets a backend take over that sees the same, and answers go on meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from app.detect.wire import Detect, Detected, ServedModel
from app.engine import device, pipeline, probation, stock
from app.engine.pipeline import Pipeline
from app.settings import Settings
from app.storage import open_storage
from detection.inference.agreement import Agreement
from detection.inference.backends.eager import EagerKind
from detection.inference.passes import PLAIN, TtaPass
from detection.inference.serving import Precision
from tests.pictures import jpeg, noise
from tests.published import publish, publish_weights


def asked(model: ServedModel, seed: int, passes: tuple[TtaPass, ...] = (PLAIN,)) -> Detect:
    return Detect(
        id=seed,
        timeout_s=30,
        model=model,
        image=jpeg(noise(96, 64, seed)),
        score_threshold=0.3,
        nms_iou=None,
        max_detections=100,
        class_ids=None,
        annotate=False,
        passes=passes,
    )


def half_precision(settings: Settings) -> device.Device:
    """Stands in for an accelerator: batches of torch on a CPU, and half precision on trial."""
    own = device.choose_device(settings.model_copy(update={"backend": "eager", "engine_batch_size": 4}))
    return replace(own, learns_batch_size=True, candidates=(replace(own.shape, precision=Precision.BF16),))


async def looked_again(trial: probation.Probation) -> None:
    """Return when what was just answered has been compared."""
    while trial._running is not None:
        await asyncio.sleep(0.001)


def places(answer: Detected) -> list[tuple[float, ...]]:
    return sorted((box.class_id, round(box.x1), round(box.y1), round(box.x2)) for box in answer.boxes)


def test_a_backend_takes_over_without_a_request_that_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "PROVEN", {"cpu": (("openvino", Precision.FP32),)})
    # Of networks as small as this one it is not the speed that is of interest.
    monkeypatch.setattr(probation, "FASTER", 1000.0)
    monkeypatch.setattr(probation, "AS_FAST", 1000.0)
    settings = Settings(home=tmp_path, device="cpu")
    storage = open_storage(settings)
    model = publish(storage)

    async def story() -> None:
        pipeline = Pipeline(settings, storage)
        pipeline.hold([model])
        trial, seen = pipeline._stock.probation, []
        for seed in range(probation.PICTURES):
            assert trial.shape_of(model).backend == "onnxruntime"
            seen.append(await pipeline.detect(asked(model, seed)))
            await looked_again(trial)
        assert trial.shape_of(model).backend == "openvino"
        again = [await pipeline.detect(asked(model, seed)) for seed in range(probation.PICTURES)]
        assert [places(each) for each in again] == [places(each) for each in seen]
        assert sum(len(each.boxes) for each in seen) > 20

    asyncio.run(story())
    assert (settings.cache / "accepted.json").exists()


def test_half_precision_takes_over_where_batches_are_served_and_its_predecessor_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EagerKind, "precisions", lambda kind, device: (Precision.FP32, Precision.BF16))
    monkeypatch.setattr(pipeline, "choose_device", half_precision)
    monkeypatch.setattr(probation, "PICTURES", 3)
    monkeypatch.setattr(Agreement, "says_enough", True)  # untrained weights see nothing
    monkeypatch.setattr(probation, "FASTER", 1000.0)
    monkeypatch.setattr(probation, "AS_FAST", 1000.0)
    settings = Settings(home=tmp_path, device="cpu")
    storage = open_storage(settings)
    model = publish_weights(storage)

    async def story() -> None:
        engine = Pipeline(settings, storage)
        models, trial = engine._stock.models, engine._stock.probation
        own = trial.shape_of(model)
        half = replace(own, precision=Precision.BF16)
        with monkeypatch.context() as patch:
            patch.setattr(stock, "memory_free", lambda device: 0)
            await engine.detect(asked(model, 0))
            assert trial._running is None, "there is no memory for two"
        for seed in range(probation.PICTURES):
            await engine.detect(asked(model, seed))
            await looked_again(trial)
        assert trial.shape_of(model) == half
        assert models.find(model, own) is None
        await engine.detect(asked(model, 0, (PLAIN, TtaPass(0.5))))
        assert models.find(model, own) is None, "smaller views go the same way"

    asyncio.run(story())
