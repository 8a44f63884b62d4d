"""A dataset of a dozen small pictures: bright squares and dark discs, in an archive or ready in a home."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import numpy as np

from app.database.tables import Dataset
from detection.data.manifest import write_manifest
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from tests.archives import zip_of
from tests.pictures import jpeg, noise
from tests.services import Home

SIDE = 64
CLASSES = ("square", "bar")


def tiny_pictures(num_train: int = 8, num_val: int = 4) -> Iterator[tuple[ImageRecord, bytes]]:
    """Yield pictures with one object each, and their JPEG bytes; always the same."""
    draw = np.random.default_rng(0)
    for index in range(num_train + num_val):
        class_id = index % 2
        width, height = (24, 24) if class_id == 0 else (32, 12)
        x, y = (int(draw.integers(0, SIDE - side)) for side in (width, height))
        pixels = noise(SIDE, SIDE, seed=index) // 2
        pixels[y : y + height, x : x + width] = 255 if class_id == 0 else (255, 0, 0)
        content = jpeg(pixels)
        box = BoxRecord(class_id=class_id, x1=x, y1=y, x2=x + width, y2=y + height)
        yield (
            ImageRecord(
                id=f"{index + 1:06d}",
                file_name=f"images/{index + 1:06d}.jpg",
                width=SIDE,
                height=SIDE,
                split=Split.TRAIN if index < num_train else Split.VAL,
                boxes=(box,),
                sha256=hashlib.sha256(content).hexdigest(),
            ),
            content,
        )


def tiny_archive() -> bytes:
    """Return the pictures as a zip in YOLO's layout."""
    files = {"data.yaml": "names: [square, bar]\ntrain: images/train\nval: images/val\n".encode()}
    for image, content in tiny_pictures():
        box = image.boxes[0]
        numbers = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2, box.x2 - box.x1, box.y2 - box.y1
        line = " ".join([str(box.class_id), *(f"{number / SIDE:.6f}" for number in numbers)])
        files[f"images/{image.split}/{image.id}.jpg"] = content
        files[f"labels/{image.split}/{image.id}.txt"] = line.encode()
    return zip_of(files)


def add_tiny_dataset(home: Home) -> str:
    """Put the dataset into a home as an import would, and return its id."""
    pictures = list(tiny_pictures())
    record = DatasetRecord(format="yolo", classes=CLASSES, images=tuple(image for image, _ in pictures))
    with home.sessions() as session:
        dataset = Dataset(name="tiny", status="ready", format="yolo", classes=list(CLASSES), sha256="1" * 64)
        session.add(dataset)
        session.flush()
        prefix = dataset.storage_prefix = f"datasets/{dataset.id}/1"
        dataset.splits = {"train": {"images": 8, "boxes": 8}, "val": {"images": 4, "boxes": 4}}
        for image, content in pictures:
            home.storage.write(f"{prefix}/images/{image.id}", io.BytesIO(content))
        home.storage.write(f"{prefix}/manifest.json", io.BytesIO(write_manifest(record)))
        session.commit()
        return dataset.id
