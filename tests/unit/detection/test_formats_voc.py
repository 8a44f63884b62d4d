"""Pascal VOC of the wild: lists, folders, broken and hostile XML."""

from __future__ import annotations

from pathlib import Path

import pytest

from detection.data.file_tree import FileTree
from detection.data.finding_log import FindingLog
from detection.data.formats.dataset_format import LabelledDataset
from detection.data.formats.voc import VocFormat
from detection.data.records import Split
from tests.datasets import picture, voc_object, voc_xml, write_files

CAT = voc_object("cat", 10, 20, 30, 40)
Files = dict[str, bytes | str]


def read(root: Path, files: Files) -> tuple[LabelledDataset, FindingLog]:
    log = FindingLog()
    return VocFormat().read(FileTree(write_files(root, files)), log), log


def read_xml(root: Path, content: str | bytes) -> tuple[LabelledDataset, FindingLog]:
    files: Files = {"JPEGImages/a.jpg": picture(), "Annotations/a.xml": content}
    return read(root, files | {"JPEGImages/b.jpg": picture(), "Annotations/b.xml": voc_xml(CAT)})


def splits(labelled: LabelledDataset) -> dict[str, Split | None]:
    return {image.file_name: image.split for image in labelled.images}


def test_objects_are_boxes_as_the_file_says(tmp_path: Path) -> None:
    hard = voc_object("dog", 1, "2.5", " 99 ", 80, extra="<difficult>1</difficult>")
    labelled, log = read_xml(tmp_path, voc_xml(CAT, hard))

    image = labelled.images[0]
    assert (image.file_name, image.split, image.stated_size_wh) == ("JPEGImages/a.jpg", None, (100, 80))
    first, second = image.boxes
    assert (first.class_name, first.x1, first.y1, first.x2, first.y2) == ("cat", 10, 20, 30, 40)
    assert (second.y1, second.x2, second.difficult, second.where) == (2.5, 99, True, "object 2")
    assert labelled.classes == ["cat", "dog"]
    assert not log.findings


@pytest.mark.parametrize(
    "broken",
    [
        "<object/>",
        "<object><name>cat</name></object>",
        "<object><name> </name><bndbox/></object>",
        voc_object("cat", "x", 1, 2, 3),
        voc_object("cat", "", 1, 2, 3),
        voc_object("cat", "12,5", 1, 2, 3),
        voc_object("cat", "1_0", 1, 2, 3),
        voc_object("\u202e", 1, 1, 2, 3),
    ],
)
def test_one_bad_object_spoils_no_other(tmp_path: Path, broken: str) -> None:
    labelled, log = read_xml(tmp_path, voc_xml(broken, CAT))

    assert [box.where for box in labelled.images[0].boxes] == ["object 2"]
    (finding,) = log.findings
    assert (finding.code, finding.file, finding.where) == ("label_invalid", "Annotations/a.xml", "object 1")


BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
)


@pytest.mark.parametrize(
    "content",
    [
        voc_xml(CAT, head=BILLION_LAUGHS),
        voc_xml(CAT, head='<!DOCTYPE annotation SYSTEM "file:///etc/passwd">'),
        voc_xml(CAT, head='<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
        voc_xml(CAT)[:-5],
        "<annotation>" + "<a>" * 50_000,
        voc_xml(CAT) + " " * 2 * 1024**2,
        '<?xml version="1.0" encoding="nonsense"?>' + voc_xml(CAT),
        voc_xml(CAT).encode() + b"\xff\xff",
        "<annotation>\x00</annotation>",
    ],
    ids=["laughs", "dtd", "entity", "cut", "deep", "large", "encoding", "bytes", "nul"],
)
def test_xml_that_cannot_be_read_safely(tmp_path: Path, content: str | bytes) -> None:
    labelled, log = read_xml(tmp_path, content)

    assert splits(labelled) == {"JPEGImages/b.jpg": None}, "a picture whose labels are unknown is no negative"
    (finding,) = log.findings
    assert (finding.code, finding.file) == ("label_file_invalid", "Annotations/a.xml")


def test_utf_16_is_fine(tmp_path: Path) -> None:
    content = ('<?xml version="1.0" encoding="utf-16"?>' + voc_xml(voc_object("größe", 1, 2, 3, 4))).encode(
        "utf-16"
    )
    labelled, log = read_xml(tmp_path, content)

    assert labelled.images[0].boxes[0].class_name == "größe"
    assert not log.findings


@pytest.mark.parametrize(("width", "height"), [(0, 0), ("", 5), ("x", 5), (-3, 5), ("1e999", 5)])
def test_sizes_that_make_no_sense_are_no_sizes(tmp_path: Path, width: object, height: object) -> None:
    labelled, _ = read_xml(tmp_path, voc_xml(CAT, width=str(width), height=str(height)))

    assert labelled.images[0].stated_size_wh is None


def with_lists(lists: dict[str, str], names: str = "abcd") -> Files:
    files: Files = {f"ImageSets/Main/{name}.txt": content for name, content in lists.items()}
    for name in names:
        files |= {f"JPEGImages/{name}.jpg": picture(), f"Annotations/{name}.xml": voc_xml(CAT)}
    return files


def test_splits_as_lists(tmp_path: Path) -> None:
    lists = {"train": "a\n", "val": "b\n", "trainval": "a\nb\nd\n", "test": "c\n", "cat_train": "a -1\nb 1\n"}
    labelled, log = read(tmp_path, with_lists(lists))

    assert splits(labelled) == {
        "JPEGImages/a.jpg": Split.TRAIN,
        "JPEGImages/b.jpg": Split.VAL,
        "JPEGImages/c.jpg": Split.TEST,
        "JPEGImages/d.jpg": Split.TRAIN,
    }
    assert not log.findings


def test_lists_with_presence_and_suffixes(tmp_path: Path) -> None:
    labelled, _ = read(tmp_path, with_lists({"train": "a  1\nb.jpg\n", "val": "c -1\nd 0\n"}))

    assert list(splits(labelled).values()) == [Split.TRAIN, Split.TRAIN, Split.VAL, Split.VAL]


def test_a_listed_name_may_look_like_a_presence(tmp_path: Path) -> None:
    files: Files = {"ImageSets/Main/train.txt": "photo 1\na 1\n", "ImageSets/Main/val.txt": "photo.jpg\n"}
    for name in ("photo 1", "photo.jpg", "a"):
        files |= {f"JPEGImages/{name}.jpg": picture(), f"Annotations/{name}.xml": voc_xml(CAT)}
    labelled, log = read(tmp_path, files)

    assert splits(labelled) == {
        "JPEGImages/a.jpg": Split.TRAIN,
        "JPEGImages/photo 1.jpg": Split.TRAIN,
        "JPEGImages/photo.jpg.jpg": Split.VAL,
    }
    assert not log.findings


def test_names_that_had_to_be_cleaned_are_named_once(tmp_path: Path) -> None:
    odd = voc_object(" c\u202eat\n", 1, 2, 3, 4)
    labelled, log = read_xml(tmp_path, voc_xml(CAT, odd, odd))

    assert [box.class_name for box in labelled.images[0].boxes] == ["cat"] * 3
    (finding,) = log.findings
    assert (finding.code, finding.file, finding.where) == (
        "class_name_fixed",
        "Annotations/a.xml",
        "object 2",
    )


def test_other_xml_is_no_annotation(tmp_path: Path) -> None:
    tree = FileTree(write_files(tmp_path, {"annotations.xml": "<annotations><image/></annotations>"}))

    evidence = VocFormat().detect(tree)

    assert evidence.num_labels == 0
    assert evidence.seen == "0 XML files with the root element <annotation>, 1 with another"


def test_faults_of_lists(tmp_path: Path) -> None:
    lists = {"train": "a\nb\ngone\n", "val": "\nb\n"}
    labelled, log = read(tmp_path, with_lists(lists, "abc") | {"JPEGImages/z.jpg": picture()})

    assert splits(labelled) == {"JPEGImages/a.jpg": Split.TRAIN, "JPEGImages/b.jpg": Split.TRAIN}
    assert log.counts == {"split_conflict": 1, "image_unlisted": 2, "image_missing": 1}
    conflict = next(finding for finding in log.findings if finding.code == "split_conflict")
    assert (conflict.file, conflict.where) == ("ImageSets/Main/val.txt", "line 2")


def test_list_that_is_no_text(tmp_path: Path) -> None:
    files = with_lists({"train": "a\n"}, "a") | {"ImageSets/Main/val.txt": b"\xff\xfe\xff"}
    labelled, log = read(tmp_path, files)

    assert splits(labelled) == {"JPEGImages/a.jpg": Split.TRAIN}
    assert log.counts == {"label_file_invalid": 1}


def test_several_years_have_their_own_lists(tmp_path: Path) -> None:
    files: Files = {}
    for year, split in (("VOC2007", "train"), ("VOC2012", "test")):
        files |= {
            f"VOCdevkit/{year}/{name}": content for name, content in with_lists({split: "a\n"}, "a").items()
        }
    labelled, log = read(tmp_path, files)

    assert splits(labelled) == {
        "VOCdevkit/VOC2007/JPEGImages/a.jpg": Split.TRAIN,
        "VOCdevkit/VOC2012/JPEGImages/a.jpg": Split.TEST,
    }
    assert not log.findings


def test_splits_as_folders(tmp_path: Path) -> None:
    files: Files = {}
    for folder in ("train", "test"):
        files |= {f"images/{folder}/a.jpg": picture(), f"images/{folder}/a.xml": voc_xml(CAT)}
    labelled, log = read(tmp_path, files | {"images/train/negative.jpg": picture()})

    assert splits(labelled) == {
        "images/test/a.jpg": Split.TEST,
        "images/train/a.jpg": Split.TRAIN,
        "images/train/negative.jpg": Split.TRAIN,
    }
    assert not log.findings


def test_picture_of_another_split_is_not_taken(tmp_path: Path) -> None:
    files: Files = {"images/train/a.xml": voc_xml(CAT), "images/test/a.jpg": picture()}
    labelled, log = read(tmp_path, files | {"images/test/a.xml": voc_xml(CAT, CAT)})

    assert [(image.file_name, len(image.boxes)) for image in labelled.images] == [("images/test/a.jpg", 2)]
    assert log.counts == {"image_missing": 1}


def test_filename_helps_when_the_stem_does_not(tmp_path: Path) -> None:
    files: Files = {"x/photo.jpg": picture(), "labels/1.xml": voc_xml(CAT, filename="C:\\x\\photo.jpg")}
    labelled, _ = read(tmp_path, files)

    assert splits(labelled) == {"x/photo.jpg": None}


def test_two_label_files_for_one_picture(tmp_path: Path) -> None:
    files: Files = {"a.jpg": picture(), "a.xml": voc_xml(CAT), "b.xml": voc_xml(CAT, CAT, filename="a.jpg")}
    labelled, log = read(tmp_path, files)

    assert len(labelled.images[0].boxes) == 1
    assert log.counts == {"image_repeated": 1}


def test_masks_and_other_xml_are_passed_over(tmp_path: Path) -> None:
    files = with_lists({}, "a") | {
        "SegmentationClass/a.png": b"",
        "SegmentationClass/b.png": b"",
        "pom.xml": "<project/>",
    }
    labelled, log = read(tmp_path, files)

    assert splits(labelled) == {"JPEGImages/a.jpg": None}
    assert not log.findings
