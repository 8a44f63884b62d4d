"""The whole engine lets a backend take over that sees the same, and answers go on meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.detect.wire import Detect, Detected, ServedModel
from app.engine import device, probation
from app.engine.pipeline import Pipeline
from app.settings import Settings
from app.storage import open_storage
from detection.inference.serving import Precision
from tests.pictures import jpeg, noise
from tests.published import publish


def asked(model: ServedModel, seed: int) -> Detect:
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
    )


def places(answer: Detected) -> list[tuple[float, ...]]:
    return sorted((box.class_id, round(box.x1), round(box.y1), round(box.x2)) for box in answer.boxes)


def test_a_backend_takes_over_without_a_request_that_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "PROVEN", (("openvino", Precision.FP32),))
    # Of networks as small as this one it is not the speed that is of interest.
    monkeypatch.setattr(probation, "FASTER", 1000.0)
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
            while trial._running is not None:
                await asyncio.sleep(0.001)
        assert trial.shape_of(model).backend == "openvino"
        again = [await pipeline.detect(asked(model, seed)) for seed in range(probation.PICTURES)]
        assert [places(each) for each in again] == [places(each) for each in seen]
        assert sum(len(each.boxes) for each in seen) > 20

    asyncio.run(story())
    assert (settings.cache / "accepted.json").exists()
