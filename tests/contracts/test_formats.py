"""What every dataset format promises: writing then reading is the identity, and a fault names its place."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from detection.data.export import write_folder
from detection.data.file_tree import FileTree
from detection.data.finding_log import FindingLog
from detection.data.formats import FORMATS, DatasetFormat
from detection.data.importing import read_dataset
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord
from detection.errors import DatasetFormatError
from tests.datasets import as_whole_pictures, record_with_pictures

KEEPS_CROWDS = {"coco"}
KEEPS_DIFFICULT = {"coco", "voc"}
KEEPS_ATTRIBUTES = {"coco", "voc"}
HAS_LABEL_FILES = {"coco", "yolo", "voc"}
"""The others are told by folders alone."""
KEEPS_UNUSED_CLASSES = {"coco", "yolo"}


@pytest.fixture(params=FORMATS.names())
def format_(request: pytest.FixtureRequest) -> DatasetFormat:
    return FORMATS[request.param]


def export(format_: DatasetFormat, target: Path, seed: int = 0) -> DatasetRecord:
    dataset, files = written_by(format_, seed)
    write_folder(format_.write(dataset, lambda image: files[image.id]), target)
    return dataset


def written_by(format_: DatasetFormat, seed: int = 0) -> tuple[DatasetRecord, dict[str, bytes]]:
    """Return a dataset that the format can hold, at least in part, and its pictures."""
    dataset, files = record_with_pictures(seed)
    return (as_whole_pictures(dataset) if format_.name == "folders" else dataset), files


def held_by(format_: DatasetFormat, dataset: DatasetRecord) -> DatasetRecord:
    """Return what is left of a dataset in a format that cannot say everything."""
    images = [replace(image, boxes=_held_boxes(format_, image), sha256="") for image in dataset.images]
    return replace(dataset, format=format_.name, images=tuple(images))


def _held_boxes(format_: DatasetFormat, image: ImageRecord) -> tuple[BoxRecord, ...]:
    boxes = [box for box in image.boxes if format_.name in KEEPS_CROWDS or not box.crowd]
    if format_.name not in KEEPS_DIFFICULT:
        boxes = [replace(box, difficult=False) for box in boxes]
    if format_.name not in KEEPS_ATTRIBUTES:
        boxes = [replace(box, attributes=()) for box in boxes]
    return tuple(boxes)


def by_name(dataset: DatasetRecord) -> dict[str, object]:
    """Return what counts of every picture, with class names instead of numbers."""
    return {
        PurePosixPath(image.file_name).name: (
            image.split,
            image.width,
            image.height,
            [(dataset.classes[box.class_id], replace(box, class_id=0)) for box in image.boxes],
        )
        for image in dataset.images
    }


@pytest.mark.parametrize("seed", range(5))
def test_write_then_read_is_the_identity(format_: DatasetFormat, tmp_path: Path, seed: int) -> None:
    dataset = export(format_, tmp_path, seed)

    read = read_dataset(tmp_path)

    assert read.dataset.format == format_.name
    assert by_name(read.dataset) == by_name(held_by(format_, dataset))
    if format_.name in KEEPS_UNUSED_CLASSES:
        assert read.dataset.classes == dataset.classes
    assert set(read.finding_counts) <= {"class_without_boxes"}


def test_pictures_keep_their_bytes(format_: DatasetFormat, tmp_path: Path) -> None:
    dataset, files = written_by(format_)
    export(format_, tmp_path)
    originals = {PurePosixPath(image.file_name).name: files[image.id] for image in dataset.images}

    read = read_dataset(tmp_path)

    copies = {PurePosixPath(i.file_name).name: read.paths[i.id].read_bytes() for i in read.dataset.images}
    assert copies == originals


def test_second_round_trip_changes_nothing_at_all(format_: DatasetFormat, tmp_path: Path) -> None:
    export(format_, tmp_path / "first")
    first = read_dataset(tmp_path / "first")
    files = format_.write(first.dataset, lambda image: first.paths[image.id].read_bytes())
    write_folder(files, tmp_path / "second")

    assert read_dataset(tmp_path / "second").dataset == first.dataset


def test_namesakes_stay_apart(format_: DatasetFormat, tmp_path: Path) -> None:
    dataset, files = written_by(format_)
    images = [replace(image, file_name=f"{image.id}/Same.JPG") for image in dataset.images]
    dataset = replace(dataset, images=tuple(images))

    write_folder(format_.write(dataset, lambda image: files[image.id]), tmp_path)

    read = read_dataset(tmp_path).dataset
    boxes = [image.boxes for image in held_by(format_, dataset).images]
    assert sorted(len(image.boxes) for image in read.images) == sorted(map(len, boxes))
    assert len(read.images) == len(dataset.images)


def test_formats_recognise_only_themselves(format_: DatasetFormat, tmp_path: Path) -> None:
    export(format_, tmp_path)
    tree = FileTree(tmp_path)

    counts = {name: FORMATS[name].detect(tree).num_labels for name in FORMATS}

    assert counts.pop(format_.name) >= 8
    assert set(counts.values()) == {0}


def test_nothing_of_the_format_is_an_error_that_says_what_was_looked_for(
    format_: DatasetFormat, tmp_path: Path
) -> None:
    (tmp_path / "readme.txt").write_text("hello")

    with pytest.raises(DatasetFormatError, match=r"there|listed"):
        format_.read(FileTree(tmp_path), FindingLog())
    with pytest.raises(DatasetFormatError) as caught:
        read_dataset(tmp_path, format=format_.name)
    assert format_.looked_for in caught.value.problem
    assert "1 .txt" in caught.value.problem


def label_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix in (".txt", ".xml", ".json", ".yaml"))


def test_a_broken_label_names_file_and_place(format_: DatasetFormat, tmp_path: Path) -> None:
    if format_.name not in HAS_LABEL_FILES:
        return
    export(format_, tmp_path)
    breakages = {
        "coco": ('"bbox":[', '"bbox":["x",'),
        "yolo": (" 0.", " x0."),
        "voc": ("<xmin>", "<xmin>x"),
    }
    old, new = breakages[format_.name]
    for path in label_files(tmp_path):
        path.write_text(path.read_text().replace(old, new, 1))

    read = read_dataset(tmp_path)

    invalid = [finding for finding in read.findings if finding.code == "label_invalid"]
    assert len(invalid) >= 3
    for finding in invalid:
        assert (tmp_path / finding.file).is_file()
        assert finding.where.startswith(("line ", "annotation ", "object "))
        assert finding.message


@pytest.mark.parametrize("seed", range(2))
def test_random_changes_of_labels_end_in_findings_or_a_clear_refusal(
    format_: DatasetFormat, tmp_path: Path, seed: int
) -> None:
    export(format_, tmp_path)
    rng = random.Random(seed)
    originals = {path: path.read_bytes() for path in label_files(tmp_path)}
    for _ in range(10):
        for path, original in originals.items():
            content = bytearray(original or b"x")
            for _ in range(rng.randint(1, 5)):
                position = rng.randrange(len(content) + 1)
                content[position : position + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
            path.write_bytes(content)
        with contextlib.suppress(DatasetFormatError):
            assert_well_formed(read_dataset(tmp_path, format=format_.name).dataset)


def assert_well_formed(dataset: DatasetRecord) -> None:
    for image in dataset.images:
        for box in image.boxes:
            assert 0 <= box.x1 < box.x2 <= image.width
            assert 0 <= box.y1 < box.y2 <= image.height
            assert 0 <= box.class_id < len(dataset.classes)
