"""COCO files of the wild: odd ids, several splits, broken annotations."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from detection.data.class_names import ClassNames
from detection.data.file_tree import FileTree
from detection.data.finding_log import FindingLog
from detection.data.formats import coco, coco_json
from detection.data.formats.coco import CocoFormat
from detection.data.formats.dataset_format import LabelledDataset
from detection.data.records import Split
from detection.errors import DatasetFormatError
from tests.datasets import coco_box, coco_image, picture, write_files
from tests.datasets import coco_json as document

A_BOX = [10, 20, 30, 40]


def read(root: Path, files: dict[str, bytes | str]) -> tuple[LabelledDataset, FindingLog]:
    log = FindingLog()
    return CocoFormat().read(FileTree(write_files(root, files)), log), log


def read_one(root: Path, annotations: list[Any], **more: Any) -> tuple[LabelledDataset, FindingLog]:
    files = {"images/a.jpg": picture(), "a.json": document([coco_image(1, "a.jpg")], annotations, **more)}
    return read(root, files)


def test_boxes_classes_and_sizes(tmp_path: Path) -> None:
    labelled, log = read_one(tmp_path, [coco_box(5, 1, 3, A_BOX), coco_box(6, 1, 7, A_BOX, iscrowd=1)])

    assert labelled.classes == ["dog", "cat"], "in the order of their ids"
    (image,) = labelled.images
    assert (image.file_name, image.split, image.stated_size_wh) == ("images/a.jpg", None, (100, 80))
    first, second = image.boxes
    assert (first.class_name, first.x1, first.y1, first.x2, first.y2) == ("dog", 10, 20, 40, 60)
    assert (first.crowd, second.crowd) == (False, True)
    assert first.where == "annotation 5"
    assert not log.findings


@pytest.mark.parametrize("spelling", [1, "1", 1.0])
def test_ids_in_any_spelling(tmp_path: Path, spelling: object) -> None:
    labelled, log = read_one(tmp_path, [coco_box("x", spelling, 3, [10, 20.0, 30, 40], iscrowd="0")])

    assert [box.x2 for box in labelled.images[0].boxes] == [40]
    assert log.counts == ({"label_text_number": 1} if spelling == "1" else {})


@pytest.mark.parametrize(
    ("annotation", "named"),
    [
        (coco_box(5, 1, 3, ["10", 20, " 3e1 ", "40.0"]), "bbox"),
        (coco_box(5, 1, "3", A_BOX), "category_id"),
        (coco_box(5, "1", "3", ["10", "20", "30", "40"]), "image_id and category_id and bbox"),
    ],
)
def test_numbers_written_as_text_are_read_and_named(tmp_path: Path, annotation: Any, named: str) -> None:
    labelled, log = read_one(tmp_path, [annotation])

    (box,) = labelled.images[0].boxes
    assert (box.class_name, box.x1, box.y1, box.x2, box.y2) == ("dog", 10, 20, 40, 60)
    (finding,) = log.findings
    assert (finding.code, finding.action.value) == ("label_text_number", "fixed")
    assert (finding.file, finding.where) == ("a.json", "annotation 5")
    assert finding.message.startswith(f"{named}: ")


def test_ids_that_are_text_everywhere_are_no_finding(tmp_path: Path) -> None:
    content = {
        "images": [coco_image("x1", "a.jpg")],
        "categories": [{"id": "c", "name": "cat"}],
        "annotations": [coco_box("b", "x1", "c", A_BOX)],
    }
    labelled, log = read(tmp_path, {"a.jpg": picture(), "x.json": json.dumps(content)})

    assert len(labelled.images[0].boxes) == 1
    assert not log.findings


@pytest.mark.parametrize(
    ("annotation", "code"),
    [
        ({"image_id": 1, "category_id": 3}, "label_invalid"),
        (coco_box(1, 1, 3, None), "label_invalid"),
        (coco_box(1, 1, 3, [1, 2, 3]), "label_invalid"),
        (coco_box(1, 1, 3, [1, 2, 3, "x"]), "label_invalid"),
        (coco_box(1, 1, 3, {"x": 1}), "label_invalid"),
        (coco_box(1, 99, 3, A_BOX), "label_invalid"),
        (coco_box(1, 1, 99, A_BOX), "class_unknown"),
        (coco_box(1, [], 3, A_BOX), "label_invalid"),
        (coco_box(1, 1, 3, "abc"), "label_invalid"),
        (coco_box(1, 1, 3, ["12,5", 1, 2, 3]), "label_invalid"),
        (coco_box(1, 1, 3, ["1_0", 1, 2, 3]), "label_invalid"),
        (coco_box(1, None, 3, A_BOX), "label_invalid"),
        (coco_box(1, 1, None, A_BOX), "label_invalid"),
        (coco_box(1, 1, True, A_BOX), "label_invalid"),
        (coco_box(1, 10**40, 3, A_BOX), "label_invalid"),
        ({"id": 1}, "label_invalid"),
        ([], "label_invalid"),
        (17, "label_invalid"),
        (None, "label_invalid"),
    ],
)
@pytest.mark.parametrize("lax", [False, True], ids=["json", "json with NaN"])
def test_one_bad_annotation_spoils_no_other(tmp_path: Path, annotation: Any, code: str, lax: bool) -> None:
    good = coco_box(2, 1, 3, A_BOX) | ({"area": float("nan")} if lax else {})
    labelled, log = read_one(tmp_path, [annotation, good])

    assert [box.where for box in labelled.images[0].boxes] == ["annotation 2"]
    (finding,) = log.findings
    assert (finding.code, finding.file) == (code, "a.json")
    assert finding.where in ("annotation 1", "annotation number 1")


@pytest.mark.parametrize("image", [{"id": 2}, {"file_name": "a.jpg"}, coco_image([], "a.jpg"), "a.jpg", None])
def test_one_bad_image_spoils_no_other(tmp_path: Path, image: Any) -> None:
    files = {
        "a.jpg": picture(),
        "x.json": document([image, coco_image(1, "a.jpg")], [coco_box(1, 1, 3, A_BOX)]),
    }
    labelled, log = read(tmp_path, files)

    assert [len(image.boxes) for image in labelled.images] == [1]
    (finding,) = log.findings
    assert (finding.code, finding.where) == (
        "label_invalid",
        "image 2" if image == {"id": 2} else "image number 1",
    )


@pytest.mark.parametrize("name", [None, "", "\u202e", [], {}, 5])
def test_category_without_a_name_is_called_by_its_id(tmp_path: Path, name: Any) -> None:
    categories = [{"id": 3, "name": name}, {"id": 4, "name": "category 3"}, {"name": "no id"}]
    content = {
        "images": [coco_image(1, "a.jpg")],
        "categories": categories,
        "annotations": [coco_box(1, 1, 3, A_BOX), coco_box(2, 1, 4, A_BOX)],
    }
    labelled, log = read(tmp_path, {"a.jpg": picture(), "x.json": json.dumps(content)})

    called = "5" if name == 5 else "category 3 (2)"
    assert [box.class_name for box in labelled.images[0].boxes] == [called, "category 3"]
    assert labelled.classes == [called, "category 3"]
    assert log.counts == {"label_invalid": 1} | ({} if name == 5 else {"class_name_fixed": 1})


def test_segmentations_are_not_even_looked_at(tmp_path: Path) -> None:
    rle = {"counts": "x" * 100_000, "size": [10**9, 10**9]}
    labelled, _ = read_one(tmp_path, [coco_box(1, 1, 3, A_BOX, segmentation=rle)])

    assert len(labelled.images[0].boxes) == 1


def test_file_with_nan_is_read_all_the_same(tmp_path: Path) -> None:
    labelled, _ = read_one(
        tmp_path, [coco_box(1, 1, 3, [float("nan"), 1, float("inf"), 5]), coco_box(2, 1, 3, A_BOX)]
    )

    assert len(labelled.images[0].boxes) == 2
    assert labelled.images[0].boxes[0].x1 != labelled.images[0].boxes[0].x1


def test_lax_file_that_is_too_large_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_json, "MAX_LAX_JSON_BYTES", 10)

    with pytest.raises(DatasetFormatError, match="malformed"):
        read_one(tmp_path, [coco_box(1, 1, 3, [float("nan"), 1, 2, 5])])


def test_repeated_ids(tmp_path: Path) -> None:
    images = [coco_image(1, "a.jpg"), coco_image(1, "b.jpg"), coco_image(2, "a.jpg"), coco_image(3, "b.jpg")]
    boxes = [coco_box(5, 1, 3, A_BOX), coco_box(5, 2, 3, A_BOX), coco_box(6, 3, 3, A_BOX)]
    labelled, log = read(
        tmp_path, {"a.jpg": picture(), "b.jpg": picture(), "x.json": document(images, boxes)}
    )

    assert {image.file_name: len(image.boxes) for image in labelled.images} == {"a.jpg": 2, "b.jpg": 1}
    assert Counter(log.counts) == {"image_repeated": 2, "label_id_duplicate": 1}


def test_repeated_categories(tmp_path: Path) -> None:
    categories = [
        {"id": 1, "name": "cat"},
        {"id": 1, "name": "dog"},
        {"id": 2, "name": "cat"},
        {"id": 4, "name": " "},
    ]
    content = {
        "images": [coco_image(1, "a.jpg")],
        "categories": categories,
        "annotations": [coco_box(1, 1, 2, A_BOX)],
    }
    labelled, log = read(tmp_path, {"a.jpg": picture(), "x.json": json.dumps(content)})

    assert labelled.classes == ["cat", "category 4"]
    assert labelled.images[0].boxes[0].class_name == "cat"
    assert log.counts == {"class_duplicate": 2, "class_name_fixed": 1}


def test_missing_and_unlisted_pictures(tmp_path: Path) -> None:
    images = [coco_image(1, "a.jpg"), coco_image(2, "gone.jpg"), coco_image(3, "../../etc/passwd")]
    boxes = [coco_box(1, 1, 3, A_BOX), coco_box(2, 2, 3, A_BOX)]
    labelled, log = read(
        tmp_path, {"a.jpg": picture(), "b.jpg": picture(), "x.json": document(images, boxes)}
    )

    assert [image.file_name for image in labelled.images] == ["a.jpg"]
    assert log.counts == {"image_missing": 2, "image_unlisted": 1}
    assert [finding.where for finding in log.findings] == ["image 2", "image 3", ""]


def test_splits_by_the_names_of_files(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {}
    for year, split in (("train2017", "train"), ("val2017", "val")):
        files[f"{year}/0001.jpg"] = picture(seed=len(files))
        files[f"annotations/instances_{year}.json"] = document(
            [coco_image(1, "0001.jpg")], [coco_box(1, 1, 3, A_BOX)], {3: split}
        )
    labelled, log = read(tmp_path, files)

    assert {image.file_name: (image.split, image.boxes[0].class_name) for image in labelled.images} == {
        "train2017/0001.jpg": (Split.TRAIN, "train"),
        "val2017/0001.jpg": (Split.VAL, "val"),
    }
    assert labelled.classes == ["train", "val"]
    assert not log.findings


def test_splits_by_folder(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {}
    for folder in ("train", "valid", "test"):
        files[f"{folder}/x.jpg"] = picture()
        files[f"{folder}/_annotations.coco.json"] = document(
            [coco_image(0, "x.jpg")], [coco_box(1, 0, 3, A_BOX)]
        )
    labelled, _ = read(tmp_path, files)

    assert [(image.file_name, image.split) for image in labelled.images] == [
        ("test/x.jpg", Split.TEST),
        ("train/x.jpg", Split.TRAIN),
        ("valid/x.jpg", Split.VAL),
    ]


def test_one_picture_in_two_files(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"x.jpg": picture()}
    for split in ("train", "val"):
        files[f"{split}.json"] = document([coco_image(1, "x.jpg")], [coco_box(1, 1, 3, A_BOX)])
    labelled, log = read(tmp_path, files)

    assert [(image.split, len(image.boxes)) for image in labelled.images] == [(Split.TRAIN, 2)]
    assert log.counts == {"split_conflict": 1}


def test_keypoints_and_other_json_are_not_read_as_boxes(tmp_path: Path) -> None:
    own = document([coco_image(1, "x.jpg")], [coco_box(1, 1, 3, A_BOX)])
    files = {
        "x.jpg": picture(),
        "instances_val.json": own,
        "person_keypoints_val.json": own,
        "info.json": "{}",
    }
    labelled, log = read(tmp_path, files)

    assert len(labelled.images[0].boxes) == 1
    assert log.counts == {"file_ignored": 2}


def test_paths_from_another_machine(tmp_path: Path) -> None:
    images = [coco_image(1, "C:\\data\\images\\A.JPG"), coco_image(2, "/home/me/set/images/b.jpg")]
    files = {"set/images/a.jpg": picture(), "set/images/b.jpg": picture(), "set/x.json": document(images, [])}
    labelled, log = read(tmp_path, files)

    assert [image.file_name for image in labelled.images] == ["set/images/a.jpg", "set/images/b.jpg"]
    assert not log.findings


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"images": []}',
        '{"images": null, "categories": []}',
        "[" * 100_000,
        "\ufeff[1,",
    ],
)
def test_what_is_no_coco_file(tmp_path: Path, content: str) -> None:
    with pytest.raises(DatasetFormatError, match=r"x\.json"):
        read(tmp_path, {"x.json": content, "a.jpg": picture()})


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("[1, 2]", "file_ignored", "it has no `images`"),
        ('{"shapes": []}', "file_ignored", "it has no `images`"),
        ('{"shapes": NaN}', "file_ignored", "it has no `images`"),
        ('{"images": NaN}', "label_file_invalid", "Expected `array`"),
        ('{"images": [NaN], ', "label_file_invalid", "three lists"),
        ('{"images": {}}', "label_file_invalid", "Expected `array`"),
        ('{"images": [], "categories": [], "annotations": null}', "label_file_invalid", "$.annotations"),
        ('{"images": []}', "label_file_invalid", "`categories`"),
        ('{"images": 5, garbage', "label_file_invalid", "Expected `array`"),
        (f'{{"images": 5, "x": {"[" * 10_000}', "label_file_invalid", "Expected `array`"),
        (f'{{"images": 5, "x": NaN, "y": {"9" * 5000}}}', "label_file_invalid", "Expected `array`"),
        (f'{{"images": [], "x": NaN, "y": {"9" * 5000}}}', "label_file_invalid", "4300 digits"),
    ],
)
def test_a_json_file_that_is_not_read_says_why(tmp_path: Path, content: str, code: str, words: str) -> None:
    good = document([coco_image(1, "a.jpg")], [coco_box(1, 1, 3, A_BOX)])
    labelled, log = read(tmp_path, {"a.jpg": picture(), "good.json": good, "other.json": content})

    assert len(labelled.images) == 1
    (finding,) = log.findings
    assert (finding.code, finding.file) == (code, "other.json")
    assert words in finding.message


def test_what_cannot_be_shown_stands_escaped_in_messages(tmp_path: Path) -> None:
    images = [
        coco_image(1, "a.jpg"),
        coco_image(2, "b\ud800\0.jpg"),
        coco_image("\u202ex" * 99, "\u202eb.jpg"),
    ]
    _, log = read(tmp_path, {"a.jpg": picture(), "x.json": document(images, [])})

    assert [finding.code for finding in log.findings] == ["image_missing"] * 2
    for finding in log.findings:
        assert (finding.message + finding.where).isprintable()
        assert len(finding.where) < 1000


def test_sizes_that_make_no_sense_are_no_sizes(tmp_path: Path) -> None:
    images = [
        coco_image(1, "a.jpg", 0, 80),
        coco_image(2, "b.jpg", float("inf"), 80),
        {"id": 3, "file_name": "c.jpg"},
        {"id": 4, "file_name": "d.jpg", "width": "wide", "height": [8]},
        {"id": 5, "file_name": "e.jpg", "width": None, "height": "80"},
        {"id": 6, "file_name": "f.jpg", "width": "100", "height": 80.0},
    ]
    files: dict[str, bytes | str] = {f"{name}.jpg": picture() for name in "abcdef"}
    labelled, log = read(tmp_path, files | {"x.json": document(images, [])})

    assert [image.stated_size_wh for image in labelled.images] == [None] * 5 + [(100, 80)]
    assert not log.findings


def test_categories_are_not_compared_with_each_other(tmp_path: Path) -> None:
    class Unlooked(dict[str, str]):
        def values(self) -> Any:
            raise AssertionError("all names are gone through for each")

    log = FindingLog()
    file = coco._File("a.json", log, ClassNames(log), classes=Unlooked())
    items = [{"id": number, "name": name} for number, name in enumerate(["cat", "dog", "cat"])]

    coco._read_categories(file, items)

    assert dict(file.classes) == {"0": "cat", "1": "dog", "2": "cat"}
    assert log.counts == {"class_duplicate": 1}


def test_more_classes_than_there_may_be_end_the_reading_before_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detection.data.class_names.MOST_CLASSES", 2)
    categories = [{"id": number, "name": f"class {number}"} for number in range(3)]
    write_files(tmp_path, {"a.json": json.dumps({"images": [7], "categories": categories})})
    log = FindingLog()

    with pytest.raises(DatasetFormatError, match="more than 2 classes"):
        CocoFormat().read(FileTree(tmp_path), log)

    assert log.findings == []
