"""Small labelled datasets made in the test: folders of files, and records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from tests import pictures

CLASSES = ("cat", "dog & <b>", "größe")


def write_files(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def picture(width: int = 100, height: int = 80, seed: int = 0) -> bytes:
    return pictures.jpeg(pictures.noise(width, height, seed))


def voc_xml(
    *objects: str, filename: str = "a.jpg", width: int | str = 100, height: int | str = 80, head: str = ""
) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"{head}<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def voc_object(name: str, *edges: object, extra: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"


def coco_json(
    images: Iterable[Mapping[str, Any]],
    annotations: Iterable[Mapping[str, Any]],
    names: Mapping[Any, str] | None = None,
) -> str:
    categories = [{"id": key, "name": name} for key, name in (names or {7: "cat", 3: "dog"}).items()]
    return json.dumps(
        {"images": list(images), "annotations": list(annotations), "categories": categories}, default=str
    )


def coco_image(number: Any, file_name: str, width: float = 100, height: float = 80) -> dict[str, Any]:
    return {"id": number, "file_name": file_name, "width": width, "height": height}


def coco_box(number: Any, image: Any, category: Any, bbox: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": 1, **more}


def record_with_pictures(seed: int = 0) -> tuple[DatasetRecord, dict[str, bytes]]:
    """Return a dataset with all splits, odd names, negatives, and the bytes of its pictures by id."""
    rng = np.random.default_rng(seed)
    files: dict[str, bytes] = {}
    images = []
    folders = {Split.TRAIN: "images/train", Split.VAL: "images/val", Split.TEST: "images/test"}
    for number in range(9):
        split = list(Split)[number % 3]
        width, height = int(rng.integers(20, 90)), int(rng.integers(20, 90))
        name, image_id = f"{folders[split]}/bild {number} ä.jpg", f"{number + 1:06d}"
        files[image_id] = picture(width, height, number)
        count = 0 if number == 4 else int(rng.integers(1, 4))
        boxes = tuple(_random_box(rng, width, height) for _ in range(count))
        images.append(
            ImageRecord(id=image_id, file_name=name, width=width, height=height, split=split, boxes=boxes)
        )
    return DatasetRecord(format="coco", classes=CLASSES, images=tuple(images)), files


def _random_box(rng: np.random.Generator, width: int, height: int) -> BoxRecord:
    x1, x2 = np.sort(rng.choice(width * 100, 2, replace=False)) / 100
    y1, y2 = np.sort(rng.choice(height * 100, 2, replace=False)) / 100
    return BoxRecord(
        class_id=int(rng.integers(len(CLASSES))),
        x1=float(x1),
        y1=float(y1),
        x2=float(x2),
        y2=float(y2),
        crowd=bool(rng.random() < 0.2),
        difficult=bool(rng.random() < 0.3),
        attributes=_random_attributes(rng),
    )


def _random_attributes(rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    if rng.random() < 0.5:
        return ()
    colour = ["red", "blue & <b>", "grün"][int(rng.integers(3))]
    return (("colour", colour), ("pose", "Left"), ("wheels", str(int(rng.integers(3, 9)))))


def as_whole_pictures(dataset: DatasetRecord) -> DatasetRecord:
    """Return the dataset with one box per picture, which is all of it."""
    images = [
        replace(
            image,
            boxes=(BoxRecord(class_id=number % len(CLASSES), x1=0, y1=0, x2=image.width, y2=image.height),),
        )
        for number, image in enumerate(dataset.images)
    ]
    return replace(dataset, images=tuple(images))
