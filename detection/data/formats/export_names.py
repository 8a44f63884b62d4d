"""Names of pictures in an export: flat, unique, and as close to the original as that allows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import PurePosixPath

from detection.data.archive.names import MAX_COMPONENT_BYTES
from detection.data.records import DatasetRecord, ImageRecord


def export_names(dataset: DatasetRecord) -> dict[str, str]:
    """Return a file name without folders for every picture's id.

    Names differ before their suffix already, because label files are named after that part; of namesakes
    all but the first get their id in front.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for image in dataset.images:
        name = names[image.id] = next(name for name in _candidates(image) if _stem(name) not in taken)
        taken.add(_stem(name))
    return names


def split_name(image: ImageRecord, names: dict[str, str]) -> str:
    """Return `train/a.jpg`."""
    return f"{image.split.value}/{names[image.id]}"


def _candidates(image: ImageRecord) -> Iterator[str]:
    """Yield names for a picture without end, each different from the others."""
    name = PurePosixPath(image.file_name).name
    yield name
    yield _shortened(f"{image.id}_{name}")
    for number in count(2):
        yield _shortened(f"{image.id}-{number}_{name}")


def _shortened(name: str) -> str:
    """Cut the end of a stem, so that the whole is a name that every file system takes."""
    path = PurePosixPath(name)
    room = MAX_COMPONENT_BYTES - len(path.suffix.encode())
    return path.stem.encode()[:room].decode(errors="ignore").rstrip(" .") + path.suffix


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.casefold()
