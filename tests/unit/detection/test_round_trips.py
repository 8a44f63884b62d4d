"""Whatever a dataset is called and wherever its boxes lie: an export that is read again has lost nothing.

What a format has no word for is in the docstring of its `write`, and nowhere else.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.data.archive import extract_archive
from detection.data.archive.names import safe_parts
from detection.data.class_names import clean_class_name
from detection.data.export import export_zip
from detection.data.formats import FORMATS
from detection.data.formats.export_names import export_names
from detection.data.importing import read_dataset
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.errors import ArchiveError
from tests.datasets import picture

SIZES = [(8, 8), (33, 17), (100, 80), (257, 1)]
SUFFIXES = [".jpg", ".JPG", ".jpeg", ".png"]
ODD_NAMES = [
    "a",
    "A",
    "ä",
    "a b",
    "photo 1",
    "x -1",
    "a.jpg",
    "img.001",
    "=cmd()",
    "ß",
    "<b>&",
    "no",
    "100%",
    "#1",
]


def is_file_name(name: str) -> bool:
    try:
        return safe_parts(name) == (name,)
    except ArchiveError:
        return False


stems = st.sampled_from(ODD_NAMES) | st.text(min_size=1, max_size=20)
file_names = (
    st.tuples(stems, st.sampled_from(SUFFIXES))
    .map(lambda parts: unicodedata.normalize("NFC", "".join(parts)))
    .filter(is_file_name)
    .filter(lambda name: not name.startswith("._"))
)
class_names = (
    (
        st.sampled_from([*ODD_NAMES, "~", "yes", "1.0", "- x", "a: b", "{}", "'", '"', "x" * 200])
        | st.text(max_size=20)
    )
    .map(clean_class_name)
    .filter(bool)
)


attributes = st.dictionaries(
    class_names.map(lambda name: name[:100].strip()).filter(lambda name: name and name != "pose"),
    class_names,
    max_size=3,
).map(lambda given: tuple(sorted(given.items())))
WITH_LABELS = [name for name in FORMATS.names() if name != "folders"]
"""The other is told by folders, whose names cannot be everything that a class may be called."""


@cache
def picture_of(size_wh: tuple[int, int]) -> bytes:
    return picture(*size_wh)


@st.composite
def box_records(draw: st.DrawFn, size_wh: tuple[int, int], num_classes: int) -> BoxRecord:
    """Draw a box as an import leaves it: inside its picture, in ten thousandths of a pixel."""
    (x1, x2), (y1, y2) = (
        sorted(draw(st.lists(st.integers(0, side * 10_000), min_size=2, max_size=2, unique=True)))
        for side in size_wh
    )
    return BoxRecord(
        class_id=draw(st.integers(0, num_classes - 1)),
        x1=x1 / 10_000,
        y1=y1 / 10_000,
        x2=x2 / 10_000,
        y2=y2 / 10_000,
        crowd=draw(st.booleans()),
        difficult=draw(st.booleans()),
        attributes=draw(attributes),
    )


@st.composite
def datasets(draw: st.DrawFn) -> DatasetRecord:
    classes = draw(st.lists(class_names, min_size=1, max_size=4, unique=True))
    images = []
    for number in range(1, draw(st.integers(1, 4)) + 1):
        size_wh = draw(st.sampled_from(SIZES))
        folder = draw(st.sampled_from(["", "images/", "train/x/"]))
        images.append(
            ImageRecord(
                id=f"{number:06d}",
                file_name=folder + draw(file_names),
                width=size_wh[0],
                height=size_wh[1],
                split=draw(st.sampled_from(Split)),
                boxes=tuple(draw(st.lists(box_records(size_wh, len(classes)), max_size=3))),
            )
        )
    certain = BoxRecord(class_id=0, x1=0, y1=0, x2=1, y2=1)  # without a single box it would be no dataset
    images[0] = replace(images[0], boxes=(certain, *images[0].boxes), split=Split.TRAIN)
    return DatasetRecord(format="coco", classes=tuple(classes), images=tuple(images))


Picture = tuple[str, Split, tuple[int, int], list[tuple[str, BoxRecord]]]


def content(dataset: DatasetRecord, format_name: str) -> list[Picture]:
    """Return what the format can hold of every picture, its classes by name, in an order of its own."""
    return sorted(
        (
            PurePosixPath(image.file_name).name,
            image.split,
            (image.width, image.height),
            [
                (
                    dataset.classes[box.class_id],
                    replace(
                        box,
                        class_id=0,
                        difficult=difficult(box, format_name),
                        attributes=() if format_name == "yolo" else box.attributes,
                    ),
                )
                for box in image.boxes
                if format_name == "coco" or not box.crowd
            ],
        )
        for image in dataset.images
    )


def difficult(box: BoxRecord, format_name: str) -> bool:
    return box.difficult and format_name != "yolo"


@pytest.mark.parametrize("format_name", WITH_LABELS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(dataset=datasets())
def test_an_export_holds_everything(format_name: str, dataset: DatasetRecord) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        archive = folder / "export.zip"
        archive.write_bytes(
            b"".join(export_zip(dataset, format_name, lambda image: picture_of((image.width, image.height))))
        )
        extract_archive(archive, folder / "unpacked")
        read = read_dataset(folder / "unpacked", format=format_name, validation_fraction=0.0).dataset

    wanted = exported(dataset)
    assert content(read, format_name) == content(wanted, format_name)
    used = {name for _, _, _, boxes in content(wanted, format_name) for name, _ in boxes}
    assert set(read.classes) == (used if format_name == "voc" else set(dataset.classes))
    if format_name == "yolo":
        assert read.classes == dataset.classes


def exported(dataset: DatasetRecord) -> DatasetRecord:
    """Return the dataset with the names that namesakes get in an export."""
    names = export_names(dataset)
    return replace(
        dataset, images=tuple(replace(image, file_name=names[image.id]) for image in dataset.images)
    )


def named(*names: str) -> DatasetRecord:
    images = [
        ImageRecord(id=f"{n:06d}", file_name=name, width=1, height=1, split=Split.TRAIN)
        for n, name in enumerate(names, start=1)
    ]
    return DatasetRecord(format="coco", classes=(), images=tuple(images))


def test_namesakes_get_their_id() -> None:
    names = export_names(named("x/a.jpg", "y/A.PNG", "000002_A.png", "a.jpg", "000004_a.jpg"))

    expected = ["a.jpg", "000002_A.PNG", "000003_000002_A.png", "000004_a.jpg", "000005_000004_a.jpg"]
    assert list(names.values()) == expected


def test_long_namesakes_stay_apart_and_fit_every_file_system() -> None:
    long = "ü" * 125 + ".jpg"
    twins = [f"{n:06d}_{'ü' * 122}.jpg" for n in range(1, 4)]

    names = list(export_names(named(*twins, *(f"{n}/{long}" for n in range(6)))).values())

    assert len({PurePosixPath(name).stem.casefold() for name in names}) == 9
    assert all(len(name.encode()) <= 255 and name.endswith(".jpg") for name in names)
