"""One folder per class: what is a class, what is a split, and what is neither."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from detection.data.export import write_folder
from detection.data.file_tree import FileTree
from detection.data.formats.folders import FoldersFormat
from detection.data.importing import ImportedDataset, read_dataset
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.errors import DatasetFormatError
from tests.datasets import picture, record_with_pictures, write_files

PICTURE = picture(12, 8)


def imported(root: Path, *names: str, format: str = "auto", **options: float) -> ImportedDataset:  # noqa: A002
    write_files(root, dict.fromkeys(names, PICTURE))
    return read_dataset(root, format=format, **options)  # type: ignore[arg-type]


def shown(dataset: DatasetRecord) -> dict[str, tuple[str, str]]:
    return {
        image.file_name: (image.split.value, dataset.classes[image.boxes[0].class_id])
        for image in dataset.images
    }


def codes(read: ImportedDataset) -> set[str]:
    return set(read.finding_counts) - {"image_duplicate", "validation_cut"}


def test_a_folder_is_a_class_and_its_pictures_are_boxes(tmp_path: Path) -> None:
    read = imported(tmp_path, "cat/1.jpg", "dog/1.jpg", "dog/2.jpg", validation_fraction=0.0)
    assert (read.dataset.format, read.dataset.classes) == ("folders", ("cat", "dog"))
    whole = BoxRecord(class_id=1, x1=0, y1=0, x2=12, y2=8)
    assert [image.boxes for image in read.dataset.images][1:] == [(whole,), (whole,)]
    assert not codes(read)


@pytest.mark.parametrize("above", ["", "pets/", "archive/pets/"])
def test_a_split_stands_above_the_classes(tmp_path: Path, above: str) -> None:
    names = [
        f"{above}{split}/{name}/a.jpg" for split in ("train", "valid", "test") for name in ("cat", "dog")
    ]
    dataset = imported(tmp_path, *names).dataset
    assert dataset.format == "folders"
    assert set(shown(dataset).values()) == {
        (split, name) for split in ("train", "val", "test") for name in ("cat", "dog")
    }


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    dataset = imported(tmp_path, "test/a.jpg", "control/a.jpg", validation_fraction=0.0).dataset
    assert shown(dataset) == {"control/a.jpg": ("train", "control"), "test/a.jpg": ("train", "test")}


def test_folders_below_a_class_belong_to_it_when_asked_for(tmp_path: Path) -> None:
    names = ["cat/black/a.jpg", "cat/b.jpg", "dog/c.jpg"]
    dataset = imported(tmp_path, *names, format="folders", validation_fraction=0.0).dataset
    assert [name for _, name in shown(dataset).values()] == ["cat", "cat", "dog"]


@pytest.mark.parametrize(
    "names",
    [
        ("cat/1.jpg", "cat/2.jpg"),
        ("images/1.jpg", "masks/1.png"),
        ("cat/1.jpg", "dog/1.jpg", "cover.jpg"),
        ("cat/black/1.jpg", "dog/1.jpg"),
    ],
    ids=["one class", "kinds of files", "a picture in no folder", "deeper"],
)
def test_what_may_be_no_classes_is_not_guessed(tmp_path: Path, names: Sequence[str]) -> None:
    with pytest.raises(DatasetFormatError, match="`format: folders` takes them as such"):
        imported(tmp_path, *names)


def test_any_other_format_comes_first(tmp_path: Path) -> None:
    names = ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]
    write_files(tmp_path, {"dog/1.txt": "0 .5 .5 .5 .5"})
    assert imported(tmp_path, *names).dataset.format == "yolo"


def test_a_picture_in_no_folder_is_a_finding(tmp_path: Path) -> None:
    read = imported(tmp_path, "cat/1.jpg", "dog/1.jpg", "cover.jpg", format="folders")
    assert codes(read) == {"image_unlisted"}
    assert [each.file for each in read.findings if each.code == "image_unlisted"] == ["cover.jpg"]


@pytest.mark.parametrize(
    ("labelled", "stray"),
    [
        (("root/cat/1.jpg", "root/dog/1.jpg"), "root/preview.jpg"),
        (("root/train/cat/1.jpg", "root/val/cat/1.jpg", "root/train/dog/1.jpg"), "root/preview.jpg"),
        (("train/cat/1.jpg", "val/cat/1.jpg", "train/dog/1.jpg", "val/dog/1.jpg"), "extra/x.jpg"),
        (("train/cat/1.jpg", "val/cat/1.jpg", "train/dog/1.jpg"), "train/x.jpg"),
    ],
    ids=["beside classes", "beside splits", "in no split", "in no class"],
)
def test_a_stray_picture_leaves_the_rest_as_it_is(
    tmp_path: Path, labelled: Sequence[str], stray: str
) -> None:
    read = imported(tmp_path, *labelled, stray, format="folders", validation_fraction=0.0)
    assert read.dataset.classes == ("cat", "dog")
    expected = {
        name: ("val" if "val/" in name else "train", "cat" if "cat/" in name else "dog") for name in labelled
    }
    assert shown(read.dataset) == expected
    assert [each.file for each in read.findings if each.code == "image_unlisted"] == [stray]


def test_nothing_in_folders_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="Looked for folders: pictures in folders, one") as error:
        imported(tmp_path, "a.jpg", format="folders")
    assert "format: folders" not in str(error.value), "that was asked for already"


def test_splits_alone_are_no_classes_whatever_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="no labels were found") as error:
        imported(tmp_path, "train/1.jpg", "val/1.jpg")
    assert "format: folders" not in str(error.value)


def test_a_dataset_of_boxes_cannot_be_written() -> None:
    dataset, _ = record_with_pictures()
    with pytest.raises(DatasetFormatError, match="a folder per class holds pictures of one thing each"):
        FoldersFormat().write(dataset, lambda image: b"")


def test_one_box_that_is_a_part_of_a_picture_is_told_from_many() -> None:
    part = BoxRecord(class_id=0, x1=1, y1=0, x2=12, y2=8)
    image = ImageRecord(id="000000", file_name="a.jpg", width=12, height=8, split=Split.TRAIN, boxes=(part,))
    dataset = DatasetRecord(format="coco", classes=("cat",), images=(image,))
    with pytest.raises(DatasetFormatError, match="a box that is not the whole picture; `coco`, `yolo`"):
        FoldersFormat().write(dataset, lambda image: b"")


def test_classes_that_no_folder_can_be_called_get_folders_of_their_own(tmp_path: Path) -> None:
    classes = ("a/b", "a\\b", "A_B", "..", "x" * 200 + "ä" * 60)
    images = tuple(
        ImageRecord(
            id=f"{number:06d}",
            file_name=f"{number}.jpg",
            width=12,
            height=8,
            split=Split.TRAIN,
            boxes=(BoxRecord(class_id=number, x1=0, y1=0, x2=12, y2=8),),
        )
        for number in range(len(classes))
    )
    files = FoldersFormat().write(
        DatasetRecord(format="coco", classes=classes, images=images), lambda _: PICTURE
    )
    write_folder(files, tmp_path)
    names = [name.split("/") for name in FileTree(tmp_path).names]
    assert {name[0] for name in names} == {"train"}
    assert len({name[1].casefold() for name in names}) == len(classes)
