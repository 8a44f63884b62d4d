"""YOLO folders of the wild: many layouts, foreign paths, broken rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from detection.data.file_tree import FileTree
from detection.data.finding_log import FindingLog
from detection.data.formats.dataset_format import LabelledDataset
from detection.data.formats.yolo import YoloFormat
from detection.data.records import Split
from detection.errors import DatasetFormatError
from tests.datasets import picture, write_files

ROW = "0 0.5 0.5 0.2 0.4\n"
Files = dict[str, bytes | str]


def read(root: Path, files: Files) -> tuple[LabelledDataset, FindingLog]:
    log = FindingLog()
    return YoloFormat().read(FileTree(write_files(root, files)), log), log


def read_rows(
    root: Path, rows: str | bytes, names: str = "names: [cat, dog]"
) -> tuple[LabelledDataset, FindingLog]:
    return read(root, {"images/a.jpg": picture(), "labels/a.txt": rows, "data.yaml": names})


def splits(labelled: LabelledDataset) -> dict[str, Split | None]:
    return {image.file_name: image.split for image in labelled.images}


def test_a_row_is_a_box(tmp_path: Path) -> None:
    labelled, log = read_rows(tmp_path, "1 0.5 0.5 0.2 0.4\r\n\r\n0 0.25 0.25 0.5 0.5")

    first, second = labelled.images[0].boxes
    assert labelled.images[0].relative
    assert (first.class_name, first.where) == ("dog", "line 1")
    assert (first.x1, first.y1, first.x2, first.y2) == pytest.approx((0.4, 0.3, 0.6, 0.7))
    assert (second.class_name, second.where) == ("cat", "line 3")
    assert not log.findings


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("0 0.5 0.5 0.2", "label_invalid"),
        ("0 0.5 0.5 0.2 0.4 0.9", "label_invalid"),
        ("0 0.5 0.5 0.2 0.4 0.9 0.1 0.2", "label_invalid"),
        ("cat 0.5 0.5 0.2 0.4", "label_invalid"),
        ("0 0.5 0.5 0.2 x", "label_invalid"),
        ("0.5 0.5 0.5 0.2 0.4", "label_invalid"),
        ("0 320 240 64 96", "label_invalid"),
        ("2 0.5 0.5 0.2 0.4", "class_unknown"),
        ("-1 0.5 0.5 0.2 0.4", "class_unknown"),
        ("1e300 0.5 0.5 0.2 0.4", "class_unknown"),
        ("nan 0.5 0.5 0.2 0.4", "label_invalid"),
        ("<script> =cmd()", "label_invalid"),
        ("0 0,5 0.5 0.2 0.4", "label_invalid"),
        ("0 0_5 0.5 0.2 0.4", "label_invalid"),
        ("0 \u0660.5 0.5 0.2 0.4", "label_invalid"),
        ("0", "label_invalid"),
    ],
)
def test_one_bad_row_spoils_no_other(tmp_path: Path, row: str, code: str) -> None:
    labelled, log = read_rows(tmp_path, f"{row}\n{ROW}")

    assert [box.where for box in labelled.images[0].boxes] == ["line 2"]
    (finding,) = log.findings
    assert (finding.code, finding.file, finding.where) == (code, "labels/a.txt", "line 1")


def test_not_a_number_is_left_to_the_cleaning(tmp_path: Path) -> None:
    labelled, _ = read_rows(tmp_path, "0 nan 0.5 0.2 0.4\n0 0.5 inf 0.2 0.4\n")

    assert len(labelled.images[0].boxes) == 2


def test_polygons_become_boxes(tmp_path: Path) -> None:
    labelled, log = read_rows(tmp_path, "0 0.1 0.2 0.5 0.1 0.3 0.6\n0 .1 .1 .2 .1 .2 .2 .1 .2\n")

    first = labelled.images[0].boxes[0]
    assert (first.x1, first.y1, first.x2, first.y2) == (0.1, 0.1, 0.5, 0.6)
    (finding,) = log.findings
    assert (finding.code, finding.message) == ("label_polygon", "2 polygons became the boxes around them")


@pytest.mark.parametrize("content", ["0 0.5 0.5 0.2 0.4".encode("utf-16"), b"\xff\xfe\x00"])
def test_label_file_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    labelled, log = read_rows(tmp_path, content)

    assert labelled.images == [], "a picture whose labels are unknown is no negative"
    assert log.counts == {"label_file_invalid": 1}


def test_label_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detection.data.formats.yolo.MAX_LABEL_BYTES", 100)
    labelled, log = read_rows(tmp_path, ROW * 10)

    assert labelled.images == []
    assert "at most 100" in log.findings[0].message


def test_byte_order_mark(tmp_path: Path) -> None:
    labelled, _ = read_rows(tmp_path, b"\xef\xbb\xbf" + ROW.encode())

    assert len(labelled.images[0].boxes) == 1


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [cat, dog]", ["cat", "dog"]),
        ("names:\n  0: cat\n  1: dog\n", ["cat", "dog"]),
        ("names: {'1': dog, '0': cat}", ["cat", "dog"]),
        ("nc: 2\nnames: [no, 007]", ["no", "007"]),
        ("names: [<script>alert(1)</script>, '=cmd()']", ["<script>alert(1)</script>", "=cmd()"]),
        ("names: ['', \u202eabc]", ["class_0", "abc"]),
        ("names: ['', class_0]", ["class_0 (2)", "class_0"]),
        ("names: [cat, [1, 2]]", ["cat", "class_1"]),
        ("names: {0: cat, x: dog, " + "9" * 500 + ": ox}", ["cat"]),
        ("names: 5\nnc: 1", ["class_0"]),
    ],
)
def test_names(tmp_path: Path, names: str, expected: list[str]) -> None:
    labelled, _ = read_rows(tmp_path, ROW, names)

    assert labelled.classes == expected


def test_name_listed_twice_is_one_class(tmp_path: Path) -> None:
    labelled, log = read_rows(tmp_path, ROW + ROW.replace("0 ", "2 ", 1), "names: [cat, dog, cat]")

    assert labelled.classes == ["cat", "dog"]
    assert [box.class_name for box in labelled.images[0].boxes] == ["cat", "cat"]
    assert log.counts == {"class_duplicate": 1}


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        ("names: [cat, dog]", {}),
        ("names: [' cat', dog]", {"class_name_fixed": 1}),
        ("names: ['', dog]", {"class_name_fixed": 1}),
        ("names: {0: cat, x: dog}", {"label_invalid": 1}),
        ("names: [cat, ' cat ']", {"class_name_fixed": 1, "class_duplicate": 1}),
    ],
)
def test_faults_of_names_are_findings(tmp_path: Path, names: str, counts: dict[str, int]) -> None:
    _, log = read_rows(tmp_path, ROW, names)

    assert log.counts == counts
    assert {finding.file for finding in log.findings} <= {"data.yaml"}
    assert all(finding.where in ("class 0", "class 1", "names") for finding in log.findings)


def test_names_beside_a_data_yaml_that_has_none(tmp_path: Path) -> None:
    files: Files = {"images/a.jpg": picture(), "labels/a.txt": ROW, "classes.txt": "cat\ndog"}
    labelled, log = read(tmp_path, files | {"data.yaml": "nc: 2\ntrain: images"})

    assert labelled.classes == ["cat", "dog"]
    assert not log.findings


@pytest.mark.parametrize("file", ["Classes.txt", "classes.txt", "labels/classes.txt", "obj.names"])
def test_names_in_a_text_file(tmp_path: Path, file: str) -> None:
    labelled, log = read(tmp_path, {"images/a.jpg": picture(), "labels/a.txt": ROW, file: "cat\ndog\n\n"})

    assert labelled.classes == ["cat", "dog"]
    assert not log.findings


def test_names_file_that_is_no_text(tmp_path: Path) -> None:
    labelled, log = read(tmp_path, {"images/a.jpg": picture(), "labels/a.txt": ROW, "classes.txt": b"\xff"})

    assert labelled.classes == ["class_0"]
    assert log.counts == {"label_file_invalid": 1, "class_names_missing": 1}


def test_no_names_at_all(tmp_path: Path) -> None:
    rows = "12 0.5 0.5 0.2 0.4\n3 0.5 0.5 0.2 0.4\n1000 0.5 0.5 0.2 0.4"
    labelled, log = read(tmp_path, {"images/a.jpg": picture(), "labels/a.txt": rows})

    assert labelled.classes == ["class_3", "class_12"]
    assert log.counts == {"class_names_missing": 1, "class_unknown": 1}


@pytest.mark.parametrize(
    "content",
    [
        "names: !!python/object/apply:os.system ['true']",
        "a: &a [x]\nnames: [*a, *a]",
        "names: [",
        "[" * 50_000,
        "names: [x]\n" + "#" * 300_000,
        "\x00",
        "nc: !!bool x",
        "nc: !!timestamp x",
        "names: !mine [x]",
        "names: !!set {x}",
    ],
)
def test_yaml_that_cannot_be_read_safely(tmp_path: Path, content: str) -> None:
    labelled, log = read_rows(tmp_path, ROW, content)

    assert labelled.classes == ["class_0"]
    assert log.counts["label_file_invalid"] == 1
    assert log.findings[0].file == "data.yaml"


@pytest.mark.parametrize("number", ['!!int ""', "!!int x", "!!str 1", '! "1"'])
def test_tagged_numbers_of_yaml_stay_text(tmp_path: Path, number: str) -> None:
    labelled, log = read_rows(tmp_path, ROW, f"nc: {number}\nnames: !!seq [!!str no]")

    assert labelled.classes == ["no"]
    assert not log.counts


def test_other_yaml_is_passed_over(tmp_path: Path) -> None:
    files: Files = {
        "a.yaml": "[1]",
        "b.yaml": "lr: 1",
        "deep/data.yaml": "names: [deep]",
        "z.yaml": "names: [flat]",
    }
    labelled, log = read(tmp_path, files | {"images/a.jpg": picture(), "labels/a.txt": ROW})

    assert labelled.classes == ["flat"]
    assert not log.findings


@pytest.mark.parametrize(
    "places",
    [
        "train: images/train\nval: images/val\n",
        "path: /etc\ntrain: ../images/train\nval: ../images/val\n",
        "path: ../datasets/x\ntrain: [./images/train/]\nvalid: C:\\x\\images\\val\n",
        "train: /content/set/images/train\nval: images/val",
    ],
)
def test_splits_of_data_yaml(tmp_path: Path, places: str) -> None:
    files: Files = {"set/data.yaml": f"names: [cat]\n{places}"}
    for split in ("train", "val", "extra"):
        files |= {f"set/images/{split}/a.jpg": picture(), f"set/labels/{split}/a.txt": ROW}
    labelled, log = read(tmp_path, files)

    assert splits(labelled) == {"set/images/train/a.jpg": Split.TRAIN, "set/images/val/a.jpg": Split.VAL}
    assert all(len(image.boxes) == 1 for image in labelled.images)
    assert log.counts == {"image_unlisted": 1}


def test_split_folders_before_images(tmp_path: Path) -> None:
    files: Files = {
        "data.yaml": "names: [cat]\ntrain: ../train/images\nval: ../valid/images\ntest: ../test/images"
    }
    for split in ("train", "valid"):
        files |= {f"{split}/images/a.jpg": picture(), f"{split}/labels/a.txt": ROW}
    labelled, log = read(tmp_path, files)

    assert splits(labelled) == {"train/images/a.jpg": Split.TRAIN, "valid/images/a.jpg": Split.VAL}
    assert log.counts == {"split_missing": 1}
    assert "../test/images (test)" in log.findings[0].message


def test_splits_as_lists(tmp_path: Path) -> None:
    files: Files = {
        "data.yaml": "names: [cat]\ntrain: train.txt\nval: val.txt",
        "train.txt": "./images/a.jpg\n\n/data/images/gone.jpg\n",
        "val.txt": "images/b.jpg\nimages/a.jpg\n",
    }
    for name in "abc":
        files |= {f"images/{name}.jpg": picture(), f"labels/{name}.txt": ROW}
    labelled, log = read(tmp_path, files)

    assert splits(labelled) == {"images/a.jpg": Split.TRAIN, "images/b.jpg": Split.VAL}
    assert log.counts == {"image_missing": 1, "split_conflict": 1, "image_unlisted": 1}
    assert log.findings[0].where == "line 3"


def test_lists_without_data_yaml(tmp_path: Path) -> None:
    files: Files = {"train.txt": "data/a.jpg\n", "test.txt": "data/b.jpg\n", "obj.names": "cat"}
    for name in "ab":
        files |= {f"data/{name}.jpg": picture(), f"data/{name}.txt": ROW}
    labelled, log = read(tmp_path, files)

    assert splits(labelled) == {"data/a.jpg": Split.TRAIN, "data/b.jpg": Split.TEST}
    assert not log.findings


def test_list_that_is_no_text(tmp_path: Path) -> None:
    files: Files = {
        "data.yaml": "names: [a]\ntrain: train.txt",
        "train.txt": b"\xff\xff",
        "a.jpg": picture(),
        "a.txt": ROW,
    }
    labelled, log = read(tmp_path, files)

    assert splits(labelled) == {"a.jpg": None}
    assert log.counts == {"label_file_invalid": 1}


def test_labels_beside_the_pictures(tmp_path: Path) -> None:
    files: Files = {f"{split}/a.jpg": picture() for split in ("train", "val")}
    files |= {f"{split}/a.txt": ROW for split in ("train", "val")}
    labelled, _ = read(tmp_path, files | {"classes.txt": "cat", "readme.txt": "0 0 0 0 0"})

    assert splits(labelled) == {"train/a.jpg": Split.TRAIN, "val/a.jpg": Split.VAL}


def test_pictures_without_labels_are_negatives_beside_others_only(tmp_path: Path) -> None:
    files: Files = {
        "images/a.jpg": picture(),
        "images/b.jpg": picture(),
        "labels/a.txt": ROW,
        "logo.png": b"",
    }
    labelled, _ = read(tmp_path, files)

    assert {image.file_name: len(image.boxes) for image in labelled.images} == {
        "images/a.jpg": 1,
        "images/b.jpg": 0,
    }
    assert labelled.images[1].label_file == ""


def test_labels_without_a_picture(tmp_path: Path) -> None:
    labelled, log = read(tmp_path, {"images/a.jpg": picture(), "labels/a.txt": ROW, "labels/gone.txt": ROW})

    assert len(labelled.images) == 1
    assert (log.findings[-1].code, log.findings[-1].file) == ("image_missing", "labels/gone.txt")


@pytest.mark.parametrize("orphan", ["Labels/gone.txt", "images/gone.txt", "labels/other/a.txt"])
def test_labels_that_no_picture_owns(tmp_path: Path, orphan: str) -> None:
    _, log = read(tmp_path, {"images/a.jpg": picture(), "labels/a.txt": ROW, "classes.txt": "a", orphan: ROW})

    (finding,) = log.findings
    assert (finding.code, finding.file) == ("image_missing", orphan)


@pytest.mark.parametrize("label", ["labels/a.TXT", "Labels/A.txt", "labels/IMG.txt"])
def test_labels_in_other_capitals(tmp_path: Path, label: str) -> None:
    name = "images/Img.JPG" if "IMG" in label else "images/A.JPG"
    labelled, log = read(tmp_path, {name: picture(), label: ROW, "classes.txt": "cat"})

    assert [len(image.boxes) for image in labelled.images] == [1]
    assert not log.findings


def test_pictures_that_differ_only_in_case_share_no_labels(tmp_path: Path) -> None:
    files: Files = {"images/a.jpg": picture(), "images/A.jpg": picture(seed=1), "labels/a.txt": ROW}
    labelled, _ = read(tmp_path, files | {"classes.txt": "cat"})

    assert {image.file_name: len(image.boxes) for image in labelled.images} == {
        "images/A.jpg": 0,
        "images/a.jpg": 1,
    }


def test_nothing_labelled(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError):
        read(tmp_path, {"images/a.jpg": picture()})


def test_places_named_many_times_are_gone_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    pictures_below = FileTree.pictures_below

    def counted(tree: FileTree, folder: str) -> tuple[str, ...]:
        looked_at.append(folder)
        return pictures_below(tree, folder)

    monkeypatch.setattr(FileTree, "pictures_below", counted)
    places = ", ".join(f"{'./' * number}images" for number in range(50))
    files = {
        "data.yaml": f"train: [{places}]\nnames: [cat]",
        "images/a.jpg": picture(),
        "labels/a.txt": "0 .5 .5 .5 .5",
    }

    dataset = YoloFormat().read(FileTree(write_files(tmp_path, files)), FindingLog())

    assert [image.split for image in dataset.images] == [Split.TRAIN]
    assert looked_at == ["images"]
