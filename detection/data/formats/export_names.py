"""Names of pictures in an export: flat, unique, and as close to the original as that allows."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

from detection.data.records import DatasetRecord, ImageRecord


def export_names(dataset: DatasetRecord) -> dict[str, str]:
    """Return a file name without folders for every picture's id.

    Names differ before their suffix already, because label files are named after that part; of namesakes
    all but the first get their id in front.
    """
    names: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for image in dataset.images:
        name = PurePosixPath(image.file_name).name
        while taken[_stem(name)]:
            name = f"{image.id}_{name}"
        taken[_stem(name)] += 1
        names[image.id] = name
    return names


def split_name(image: ImageRecord, names: dict[str, str]) -> str:
    """Return `train/a.jpg`."""
    return f"{image.split.value}/{names[image.id]}"


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.casefold()
