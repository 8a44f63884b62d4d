"""Numbers that show a dataset at a glance: classes, sizes, shapes and places of its boxes. Plain Python."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split

SIDE_EDGES = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)
"""Of relative box sides; each bin is twice as wide as the one before."""
ASPECT_EDGES = (0.0, 0.125, 0.25, 0.5, 0.8, 1.25, 2.0, 4.0, 8.0, math.inf)
"""Of width / height; the bin in the middle holds what looks square."""
COUNT_EDGES = (0, 1, 2, 3, 5, 9, 17, 33, 65, 129, math.inf)
"""Of boxes in a picture."""
SMALL_AREA, LARGE_AREA = 32**2, 96**2
"""COCO's borders between small, medium and large, in square pixels."""
HEAT_MAP_CELLS = 20
MOST_IMAGE_SIZES = 20


def summarise(dataset: DatasetRecord) -> dict[str, Any]:
    """Return statistics of a dataset as plain numbers, lists and dictionaries, ready for JSON.

    `images`, `boxes`, `images_without_boxes`: counts by split. `classes`: for each its boxes, and the
    pictures that show it, by split. `box_sides`: histogram of sqrt(box area / picture area). `box_areas`:
    COCO's small, medium, large. `aspect_ratios`: histogram of width / height. `boxes_per_image`: histogram.
    `centres`: a square grid of counts over the picture, rows from the top. `image_sizes`: the most frequent
    ones. A histogram has `edges` and one count fewer than edges; an edge without end is null.
    """
    boxes = [(image, box) for image in dataset.images for box in image.boxes]
    return {
        "images": _by_split(image.split for image in dataset.images),
        "boxes": _by_split(image.split for image, _ in boxes),
        "images_without_boxes": _by_split(image.split for image in dataset.images if not image.boxes),
        "classes": _classes(dataset),
        "box_sides": _histogram(SIDE_EDGES, (_relative_side(image, box) for image, box in boxes)),
        "box_areas": _areas(box for _, box in boxes),
        "aspect_ratios": _histogram(ASPECT_EDGES, ((b.x2 - b.x1) / (b.y2 - b.y1) for _, b in boxes)),
        "boxes_per_image": _histogram(COUNT_EDGES, (len(image.boxes) for image in dataset.images)),
        "centres": _heat_map(boxes),
        "image_sizes": _image_sizes(dataset.images),
    }


def _by_split(splits: Iterable[Split]) -> dict[str, int]:
    counts = Counter(splits)
    return {split.value: counts[split] for split in Split}


def _classes(dataset: DatasetRecord) -> list[dict[str, Any]]:
    boxes = Counter((box.class_id, image.split) for image in dataset.images for box in image.boxes)
    images = Counter(
        (class_id, image.split)
        for image in dataset.images
        for class_id in {box.class_id for box in image.boxes}
    )
    return [
        {
            "name": name,
            "boxes": {split.value: boxes[class_id, split] for split in Split},
            "images": {split.value: images[class_id, split] for split in Split},
        }
        for class_id, name in enumerate(dataset.classes)
    ]


def _histogram(edges: Sequence[float], values: Iterable[float]) -> dict[str, Any]:
    """Count values into bins that hold their lower edge; the last bin holds its upper edge too."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(bisect_right(edges, value), len(counts)) - 1] += 1
    return {"edges": [edge if math.isfinite(edge) else None for edge in edges], "counts": counts}


def _relative_side(image: ImageRecord, box: BoxRecord) -> float:
    return math.sqrt(box.area / (image.width * image.height))


def _areas(boxes: Iterable[BoxRecord]) -> dict[str, int]:
    counts = Counter(bisect_right((SMALL_AREA, LARGE_AREA), box.area) for box in boxes)
    return {"small": counts[0], "medium": counts[1], "large": counts[2]}


def _heat_map(boxes: Iterable[tuple[ImageRecord, BoxRecord]]) -> list[list[int]]:
    grid = [[0] * HEAT_MAP_CELLS for _ in range(HEAT_MAP_CELLS)]
    for image, box in boxes:
        row = _cell((box.y1 + box.y2) / 2 / image.height)
        column = _cell((box.x1 + box.x2) / 2 / image.width)
        grid[row][column] += 1
    return grid


def _cell(fraction: float) -> int:
    return min(max(int(fraction * HEAT_MAP_CELLS), 0), HEAT_MAP_CELLS - 1)


def _image_sizes(images: Iterable[ImageRecord]) -> list[dict[str, int]]:
    counts = Counter((image.width, image.height) for image in images)
    return [
        {"width": width, "height": height, "images": count}
        for (width, height), count in counts.most_common(MOST_IMAGE_SIZES)
    ]
