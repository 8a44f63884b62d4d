"""Six small pictures with a bright square or a blue bar each, in an archive or as a dataset of a home."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from app.database.session import Sessions
from app.database.tables import Dataset
from app.storage import Storage
from detection.data.manifest import write_manifest
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from tests.archives import zip_of
from tests.pictures import jpeg, noise

SIDE = 64
CLASSES = ("square", "bar")
NUM_TRAIN, NUM_VAL = 4, 2
SPLITS = {
    "train": {"images": NUM_TRAIN, "boxes": NUM_TRAIN},
    "val": {"images": NUM_VAL, "boxes": NUM_VAL},
}


def tiny_pictures() -> Iterator[tuple[ImageRecord, bytes]]:
    """Yield pictures with one object each, and their JPEG bytes; always the same."""
    draw = np.random.default_rng(0)
    for index in range(NUM_TRAIN + NUM_VAL):
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
                split=Split.TRAIN if index < NUM_TRAIN else Split.VAL,
                boxes=(box,),
                sha256=hashlib.sha256(content).hexdigest(),
            ),
            content,
        )


def tiny_archive() -> bytes:
    """Return the pictures as a zip in YOLO's layout."""
    files = {"data.yaml": b"names: [square, bar]\ntrain: images/train\nval: images/val\n"}
    for image, content in tiny_pictures():
        box = image.boxes[0]
        numbers = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2, box.x2 - box.x1, box.y2 - box.y1
        line = " ".join([str(box.class_id), *(f"{number / SIDE:.6f}" for number in numbers)])
        files[f"images/{image.split}/{image.id}.jpg"] = content
        files[f"labels/{image.split}/{image.id}.txt"] = line.encode()
    return zip_of(files)


class Place(Protocol):
    """Whatever has a database and a storage: a home, a worker."""

    @property
    def sessions(self) -> Sessions: ...

    @property
    def storage(self) -> Storage: ...


def add_tiny_dataset(home: Place) -> str:
    """Put the dataset into a home as an import would, and return its id."""
    pictures = list(tiny_pictures())
    record = DatasetRecord(format="yolo", classes=CLASSES, images=tuple(image for image, _ in pictures))
    with home.sessions() as session:
        dataset = Dataset(name="tiny", status="ready", format="yolo", classes=list(CLASSES), sha256="1" * 64)
        session.add(dataset)
        session.flush()
        prefix = dataset.storage_prefix = f"datasets/{dataset.id}/1"
        dataset.splits = SPLITS
        for image, content in pictures:
            home.storage.write(f"{prefix}/images/{image.id}", io.BytesIO(content))
        home.storage.write(f"{prefix}/manifest.json", io.BytesIO(write_manifest(record)))
        session.commit()
        return dataset.id
