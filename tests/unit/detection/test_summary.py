"""Statistics of a dataset: counted by hand on a small one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.data.summary import HEAT_MAP_CELLS, summarise
from tests.datasets import record_with_pictures


@pytest.fixture
def summary() -> dict[str, Any]:
    cat = BoxRecord(class_id=0, x1=0, y1=0, x2=20, y2=20)
    wide = BoxRecord(class_id=1, x1=0, y1=50, x2=200, y2=60)
    images = (
        _image(1, Split.TRAIN, cat, cat, wide),
        _image(2, Split.VAL, cat),
        _image(3, Split.VAL),
    )
    return summarise(DatasetRecord(format="coco", classes=("cat", "dog", "ox"), images=images))


def _image(number: int, split: Split, *boxes: BoxRecord) -> ImageRecord:
    return ImageRecord(id=f"{number}", file_name=f"{number}", width=200, height=100, split=split, boxes=boxes)


def test_counts_by_split(summary: dict[str, Any]) -> None:
    assert summary["images"] == {"train": 1, "val": 2, "test": 0}
    assert summary["boxes"] == {"train": 3, "val": 1, "test": 0}
    assert summary["images_without_boxes"] == {"train": 0, "val": 1, "test": 0}


def test_classes(summary: dict[str, Any]) -> None:
    assert [entry["name"] for entry in summary["classes"]] == ["cat", "dog", "ox"]
    assert summary["classes"][0]["boxes"] == {"train": 2, "val": 1, "test": 0}
    assert summary["classes"][0]["images"] == {"train": 1, "val": 1, "test": 0}
    assert summary["classes"][2]["boxes"] == {"train": 0, "val": 0, "test": 0}


def test_sizes_and_shapes(summary: dict[str, Any]) -> None:
    assert summary["box_areas"] == {"small": 3, "medium": 1, "large": 0}
    assert _bin(summary["box_sides"], 0.1414) == 3
    assert _bin(summary["box_sides"], 0.3162) == 1
    assert _bin(summary["aspect_ratios"], 1.0) == 3
    assert _bin(summary["aspect_ratios"], 20.0) == 1
    assert summary["image_sizes"] == [{"width": 200, "height": 100, "images": 3}]


def _bin(histogram: dict[str, Any], value: float) -> int:
    edges, counts = histogram["edges"], histogram["counts"]
    assert len(edges) == len(counts) + 1
    ends = [float("inf") if edge is None else edge for edge in edges]
    (index,) = [n for n in range(len(counts)) if ends[n] <= value < ends[n + 1]]
    return int(counts[index])


def test_boxes_per_image(summary: dict[str, Any]) -> None:
    assert summary["boxes_per_image"]["counts"][:5] == [1, 1, 0, 1, 0]


def test_heat_map(summary: dict[str, Any]) -> None:
    grid = summary["centres"]
    assert len(grid) == len(grid[0]) == HEAT_MAP_CELLS
    assert grid[2][1] == 3
    assert grid[11][10] == 1
    assert sum(map(sum, grid)) == 4


def test_is_json_and_adds_up() -> None:
    dataset, _ = record_with_pictures()
    summary = summarise(dataset)
    num_boxes = sum(len(image.boxes) for image in dataset.images)

    assert json.loads(json.dumps(summary)) == summary
    for name in ("box_sides", "aspect_ratios"):
        assert sum(summary[name]["counts"]) == num_boxes
    assert sum(summary["boxes_per_image"]["counts"]) == len(dataset.images)


def test_empty_dataset() -> None:
    summary = summarise(DatasetRecord(format="coco", classes=(), images=()))

    assert summary["boxes"] == {"train": 0, "val": 0, "test": 0}
    assert summary["image_sizes"] == []
