"""The second stage in the engine: what is said of each box, and who waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from app.detect.wire import Box
from app.engine.lanes import Lane
from app.engine.loader import LoadedClassifier
from app.engine.second_stage import classify_boxes, line_up
from detection.inference.second_stage import CropClassifier
from detection.input_convention import IMAGENET
from detection.model_record import PUBLISHED_CROP, ModelRecord
from detection.tasks import Task
from tests.pictures import jpeg, quadrants

DETECTOR = ModelRecord(architecture="yolox-nano", classes=("thing",), input_size_hw=(64, 64))
CLASSIFIER = ModelRecord(
    task=Task.CLASSIFY,
    architecture="resnet18",
    classes=("left", "right"),
    input_size_hw=(32, 32),
    input_convention=IMAGENET,
    crop=PUBLISHED_CROP,
)


class OnAnAccelerator:
    """Computes on a device that is not there: to wait for it is an error."""

    device = torch.device("cuda", 0)

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        return (torch.tensor([[0.25, 0.75]]).repeat(len(images_BCHW), 1),)


def box(x1: float, x2: float) -> Box:
    return Box(x1, 10.0, x2, 60.0, 0, "thing", 0.9)


def test_each_box_is_told_what_it_shows_and_the_event_loop_waits_for_no_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        classifier = CropClassifier(OnAnAccelerator(), CLASSIFIER)
        lane = Lane("test", threads=1, max_pictures=1, max_bytes=1)
        with ThreadPoolExecutor(1) as pool:
            ready = line_up(LoadedClassifier(classifier, classifier, 1), pool, streams=1, alone=lambda: True)
            async with lane.turn(1) as turn:
                boxes, took_ms = await classify_boxes(
                    jpeg(quadrants(120, 80)),
                    (box(10.0, 60.0), box(500.0, 600.0)),
                    DETECTOR,
                    ready,
                    turn,
                    max_pixels=10_000,
                )
        lane.pool.shutdown()
        seen, beyond = boxes
        assert seen.classification is not None
        assert (seen.classification.label, seen.classification.score) == ("right", 0.75)
        assert beyond.classification is None, "no pixel of it is left"
        assert took_ms > 0

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: pytest.fail(f"{device} is waited for"))
    asyncio.run(story())
