"""What a request costs as the picture grows, and as the number of boxes grows; one client, stage by stage."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conftest import Bench
from tests.benchmarks.field import HARRIER
from tests.benchmarks.harriers import Harrier, let_choose, serving_coco
from tests.benchmarks.pictures import enlarged, mosaic
from tests.benchmarks.sending import Counts, send

pytestmark = [pytest.mark.benchmark, pytest.mark.reference]

SIZES_WH = (
    (640, 480),
    (1152, 864),
    (2000, 1500),
    (3264, 2448),
    (4000, 3000),
    (5656, 4242),
    (8000, 6000),
)
BOXES = (0, 1, 3, 10, 30, 100, 200, 300)
STAGES = ("decode_ms", "queue_ms", "preprocess_ms", "inference_ms", "postprocess_ms")
POINT_S = 2.0
KEPT = 1000
LOWEST_SCORE = 0.001
ROUNDED_BY = 0.00005
"""Scores are answered with four digits."""


@pytest.fixture(scope="module")
def harrier(reference: Path, coco_pictures: list[str]) -> Iterator[Harrier]:
    with serving_coco(HARRIER, reference) as running:
        let_choose(running, [Path(picture).read_bytes() for picture in coco_pictures])
        yield running


def test_serving_picture_size(
    bench: Bench, harrier: Harrier, coco_pictures: list[str], tmp_path: Path
) -> None:
    """Milliseconds for one picture from 0.3 to 48 megapixels, the same one enlarged."""
    dog = Path(coco_pictures[0]).read_bytes()
    for (width, height), picture in zip(SIZES_WH, enlarged(dog, SIZES_WH), strict=True):
        path = tmp_path / f"{width}.jpg"
        path.write_bytes(picture)
        counts = send(harrier.server, [str(path)], clients=1, seconds=POINT_S, keep_bodies=KEPT)
        megapixels = width * height / 1e6
        bench.keep(f"{megapixels:.1f} MP", megapixels=megapixels, bytes=len(picture), **costs(counts))


def test_serving_boxes(bench: Bench, harrier: Harrier, coco_pictures: list[str], tmp_path: Path) -> None:
    """Milliseconds for the same picture of many objects as the threshold lets more boxes through."""
    path = tmp_path / "mosaic.jpg"
    path.write_bytes(mosaic([Path(picture).read_bytes() for picture in coco_pictures]))
    scores = scores_of(harrier, path.read_bytes())
    for wanted in BOXES:
        threshold = 1.0 if not wanted else scores[min(wanted, len(scores)) - 1] - ROUNDED_BY
        query = f"?score_threshold={threshold}&max_detections={max(wanted, 1)}"
        counts = send(harrier.server, [str(path)], query=query, clients=1, seconds=POINT_S, keep_bodies=KEPT)
        found = len(json.loads(counts.good["bodies"][0])["images"][0]["detections"])
        answer_bytes = len(counts.good["bodies"][0])
        bench.keep(f"{wanted} boxes", boxes=found, answer_bytes=answer_bytes, **costs(counts))


def scores_of(harrier: Harrier, picture: bytes) -> list[float]:
    """Return the scores of everything in a picture, the best first: the n-th is a threshold for n boxes."""
    answer = harrier.serve.http.post(
        "/detect",
        params={"score_threshold": LOWEST_SCORE, "max_detections": 1000},
        content=picture,
        headers={"Content-Type": "image/jpeg"},
    ).raise_for_status()
    return [each["score"] for each in answer.json()["images"][0]["detections"]]


def costs(counts: Counts) -> dict[str, Any]:
    """Return what a picture took from the first byte sent to the last received, and in each stage."""
    timings = [json.loads(body)["timing"] for body in counts.good["bodies"]]
    stages = {stage: statistics.median(timing[stage] for timing in timings) for stage in STAGES}
    median_ms = counts.ms(0.5)
    return {
        "median_ms": median_ms,
        "p90_ms": counts.ms(0.9),
        "runs": len(timings),
        **stages,
        "http_ms": median_ms - sum(stages.values()),
    }
