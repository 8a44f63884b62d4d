"""A dataset is read whole or refused with a reason; every fault is found, named and dealt with."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from pathlib import Path

import pytest

from detection.data.archive import extract_archive
from detection.data.class_rules import ClassRules
from detection.data.finding_log import FindingCode, FindingLog
from detection.data.findings import Action, Finding, Severity
from detection.data.importing import ImportedDataset, read_dataset
from detection.data.records import BoxRecord, DatasetRecord, Split
from detection.errors import ConfigError, DatasetFormatError, UnknownNameError
from detection.images import DecodedImage, decode_image
from tests import pictures
from tests.datasets import (
    coco_box,
    coco_image,
    coco_json,
    picture,
    voc_object,
    voc_xml,
    write_files,
)

ROW = "0 0.5 0.5 0.5 0.5\n"
Files = dict[str, bytes | str]


def yolo(rows: dict[str, str], names: str = "cat, dog") -> Files:
    files: Files = {"data.yaml": f"names: [{names}]"}
    for number, (name, content) in enumerate(rows.items()):
        files |= {f"images/{name}.jpg": picture(seed=number), f"labels/{name}.txt": content}
    return files


def imported(root: Path, files: Files, **more: object) -> ImportedDataset:
    return read_dataset(write_files(root, files), validation_fraction=0.0, **more)  # type: ignore[arg-type]


def only(findings: list[Finding], code: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.code == code]
    return finding


def edges(box: BoxRecord) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2


def splits(dataset: DatasetRecord) -> Counter[str]:
    return Counter(image.split.value for image in dataset.images)


def test_records_say_what_is_there(tmp_path: Path) -> None:
    result = imported(tmp_path, yolo({"b": ROW, "a": "1 0.5 0.5 0.5 0.25\n"}))

    first, second = result.dataset.images
    assert result.dataset.format == "yolo"
    assert result.dataset.classes == ("cat", "dog")
    assert (first.id, first.file_name, first.split) == ("000001", "images/a.jpg", Split.TRAIN)
    assert (first.width, first.height) == (100, 80)
    assert first.boxes == (BoxRecord(class_id=1, x1=25, y1=30, x2=75, y2=50),)
    assert second.sha256 == hashlib.sha256(result.paths["000002"].read_bytes()).hexdigest()
    assert result.findings == []


@pytest.mark.parametrize(
    ("box", "expected", "code", "action"),
    [
        ((10, 10, 50, 40), (10, 10, 50, 40), None, None),
        ((0, 0, 100, 80), (0, 0, 100, 80), None, None),
        ((-0.4, 0, 100.4, 80), (0, 0, 100, 80), None, None),
        ((-5, -5, 50, 40), (0, 0, 50, 40), "box_clipped", Action.CLIPPED),
        ((50, 40, 101, 81), (50, 40, 100, 80), "box_clipped", Action.CLIPPED),
        ((50, 40, 10, 10), (10, 10, 50, 40), "box_inverted", Action.FIXED),
        ((10, 10, 10, 40), None, "box_empty", Action.DROPPED),
        ((10, 10, 10.00001, 40), None, "box_empty", Action.DROPPED),
        ((100, 10, 120, 40), None, "box_outside", Action.DROPPED),
        ((-50, -50, 0, 0), None, "box_outside", Action.DROPPED),
        (("nan", 10, 20, 40), None, "box_not_finite", Action.DROPPED),
        ((10, 10, "inf", 40), None, "box_not_finite", Action.DROPPED),
        ((10.123456, 10, 50, 40), (10.1235, 10, 50, 40), None, None),
    ],
)
def test_boxes_are_brought_into_the_picture(
    tmp_path: Path, box: tuple[object, ...], expected: object, code: str | None, action: Action | None
) -> None:
    content = voc_xml(voc_object("cat", 1, 1, 9, 9), voc_object("cat", *box))
    result = imported(tmp_path, {"a.jpg": picture(), "a.xml": content})

    rest = [edges(box) for box in result.dataset.images[0].boxes[1:]]
    assert rest == ([] if expected is None else [expected])
    if code is None:
        assert result.findings == []
    else:
        finding = only(result.findings, code)
        assert (finding.action, finding.file, finding.where) == (action, "a.xml", "object 2")
        assert finding.image_id == "000001"


def test_turned_pictures_have_the_size_that_a_person_sees(tmp_path: Path) -> None:
    files = yolo({"a": ROW}) | {"images/a.jpg": pictures.jpeg(pictures.noise(100, 80), orientation=6)}

    image = imported(tmp_path, files).dataset.images[0]

    assert (image.width, image.height) == (80, 100)
    assert edges(image.boxes[0]) == (20, 25, 60, 75)


def test_unusable_pictures_are_dropped_and_named(tmp_path: Path) -> None:
    files = yolo(dict.fromkeys(("damaged", "empty", "fine", "large", "text"), ROW))
    files |= {
        "images/damaged.jpg": picture()[:-100],
        "images/empty.jpg": b"",
        "images/text.jpg": "hello",
        "images/large.jpg": pictures.jpeg(pictures.noise(101, 100)),
        "images/gif.gif": b"GIF89a",
        "labels/gif.txt": ROW,
    }

    result = imported(tmp_path, files, max_pixels=10_000)

    assert [image.file_name for image in result.dataset.images] == ["images/fine.jpg"]
    assert result.finding_counts == {
        "image_damaged": 1,
        "image_unsupported": 3,
        "image_too_large": 1,
        "class_without_boxes": 1,
    }
    assert only(result.findings, "image_damaged").file == "images/damaged.jpg"
    assert only(result.findings, "image_damaged").severity is Severity.ERROR


def test_picture_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = yolo({"a": ROW, "b": ROW}) | {"images/b.jpg": picture() + bytes(100_000)}
    monkeypatch.setattr("detection.data.importing.MAX_PICTURE_BYTES", 90_000)

    result = imported(tmp_path, files)

    assert only(result.findings, "image_too_large").file == "images/b.jpg"


def test_stated_size_that_is_not_the_real_one(tmp_path: Path) -> None:
    content = voc_xml(voc_object("cat", 1, 1, 9, 9), width=50)
    result = imported(tmp_path, {"a.jpg": picture(), "a.xml": content})

    finding = only(result.findings, "image_size_mismatch")
    assert "50×80" in finding.message
    assert "100×80" in finding.message
    assert edges(result.dataset.images[0].boxes[0]) == (1, 1, 9, 9)


def test_pictures_without_labels_stay(tmp_path: Path) -> None:
    result = imported(tmp_path, yolo({"a": ROW}) | {"images/b.jpg": picture(seed=9)})

    assert [len(image.boxes) for image in result.dataset.images] == [1, 0]
    finding = only(result.findings, "image_unlabelled")
    assert (finding.file, finding.severity, finding.image_id) == ("images/b.jpg", Severity.INFO, "000002")


def test_copies_are_named_loudly_across_splits_and_softly_within(tmp_path: Path) -> None:
    rows = dict.fromkeys(("train/a", "train/b", "val/c"), ROW)
    files = yolo(rows) | {f"images/{name}.jpg": picture() for name in rows}

    result = imported(tmp_path, files)

    severities = {f.file: f.severity for f in result.findings if f.code == "image_duplicate"}
    assert severities == {"images/train/b.jpg": Severity.INFO, "images/val/c.jpg": Severity.WARNING}


def test_classes_without_boxes_are_kept_and_named(tmp_path: Path) -> None:
    result = imported(tmp_path, yolo({"a": ROW}))

    assert result.dataset.classes == ("cat", "dog")
    assert "'dog'" in only(result.findings, "class_without_boxes").message


ROWS = "0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n2 .5 .5 .5 .5\n"


@pytest.mark.parametrize(
    ("rules", "classes", "labels"),
    [
        (ClassRules(), ("cat", "dog", "bus"), [0, 1, 2]),
        (ClassRules(rename={"cat": "katze"}), ("katze", "dog", "bus"), [0, 1, 2]),
        (ClassRules(rename={"cat": "dog", "dog": "cat"}), ("dog", "cat", "bus"), [0, 1, 2]),
        (ClassRules(merge={"pet": ["cat", "dog"]}), ("pet", "bus"), [0, 0, 1]),
        (ClassRules(merge={"cat": ["bus"]}), ("cat", "dog"), [0, 1, 0]),
        (ClassRules(drop=["dog"]), ("cat", "bus"), [0, 1]),
        (ClassRules(drop=["dog"], merge={"x": ["cat"]}, rename={"bus": "car"}), ("x", "car"), [0, 1]),
    ],
)
def test_class_rules(tmp_path: Path, rules: ClassRules, classes: tuple[str, ...], labels: list[int]) -> None:
    result = imported(tmp_path, yolo({"a": ROWS}, "cat, dog, bus"), class_rules=rules)

    assert result.dataset.classes == classes
    assert [box.class_id for box in result.dataset.images[0].boxes] == labels
    assert result.finding_counts.get("class_dropped", 0) == len(rules.drop)


@pytest.mark.parametrize(
    ("rules", "pointers"),
    [
        (ClassRules(rename={"cow": "x"}, drop=["ox"]), ["/classes/rename/cow", "/classes/drop"]),
        (ClassRules(merge={"x": ["cow", "cat"]}), ["/classes/merge/x"]),
        (ClassRules(drop=["cat"], rename={"cat": "x"}), ["/classes"]),
        (ClassRules(rename={"cat": "dog"}), ["/classes/rename/cat"]),
        (ClassRules(rename={"cat": "x", "dog": "x"}), ["/classes/rename/cat", "/classes/rename/dog"]),
        (ClassRules(rename={"cat": " "}), ["/classes/rename/cat"]),
        (ClassRules(rename={"cat": "big\x01cat"}), ["/classes/rename/cat"]),
        (ClassRules(rename={"cat": "\ud800"}), ["/classes/rename/cat"]),
        (ClassRules(merge={"": ["cat", "dog"]}), ["/classes/merge"]),
    ],
)
def test_class_rules_that_do_not_fit(tmp_path: Path, rules: ClassRules, pointers: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        imported(tmp_path, yolo({"a": ROW}), class_rules=rules)

    assert [fault.pointer for fault in caught.value.faults] == pointers


def test_pictures_of_dropped_classes_stay_as_negatives(tmp_path: Path) -> None:
    files = yolo({"a": ROW, "b": ROW.replace("0", "1", 1)})

    result = imported(tmp_path, files, class_rules=ClassRules(drop=["dog"]))

    assert [len(image.boxes) for image in result.dataset.images] == [1, 0]


def test_validation_is_cut_only_when_there_is_none(tmp_path: Path) -> None:
    rows = {f"{split}/{n}": ROW for split in ("train", "val") for n in range(5)}
    kept = read_dataset(write_files(tmp_path / "kept", yolo(rows)))
    cut = read_dataset(write_files(tmp_path / "cut", yolo({f"{n}": ROW for n in range(10)})), seed=1)

    assert splits(kept.dataset) == {"train": 5, "val": 5}
    assert splits(cut.dataset) == {"train": 8, "val": 2}
    assert "2 of 10" in only(cut.findings, "validation_cut").message


def test_formats_are_found_or_asked_for(tmp_path: Path) -> None:
    box = coco_box(1, 1, 3, [1, 1, 5, 5])
    files = yolo({"a": ROW, "b": ROW}) | {"x.json": coco_json([coco_image(1, "a.jpg")], [box])}

    assert imported(tmp_path, files).dataset.format == "yolo", "it has more labels"
    assert read_dataset(tmp_path, format="coco").dataset.format == "coco"
    with pytest.raises(UnknownNameError, match="coco, folders, voc, yolo"):
        read_dataset(tmp_path, format="csv")


def test_nothing_recognised(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError) as caught:
        imported(tmp_path, {"a.jpg": picture(), "labels.csv": "a,b"})

    problem = caught.value.problem
    assert "data.yaml" in problem or "class cx cy w h" in problem
    assert "annotations" in problem
    assert "<annotation>" in problem
    assert "2 files (1 .jpg, 1 .csv)" in problem


def test_one_file_is_no_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match=r"Seen: 1 file \(1 \.txt\);"):
        imported(tmp_path, {"readme.txt": "hello"})


def test_an_archive_in_the_archive_is_said_to_stay_closed(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetFormatError, match=r"1 file \(1 \.zip; archives inside the archive stay closed\)"
    ):
        imported(tmp_path, {"dataset.zip": b"PK"})


@pytest.mark.parametrize(
    ("files", "words", "codes"),
    [
        (yolo({"a": "9 .5 .5 .1 .1"}), ["no usable box", "class_unknown"], {"class_unknown": 1}),
        (
            yolo({"a": ROW}) | {"images/a.jpg": b"x"},
            ["no usable picture", "1 labelled picture, 0 of them usable", "1 × image_unsupported"],
            {"image_unsupported": 1},
        ),
    ],
)
def test_nothing_usable_left(tmp_path: Path, files: Files, words: list[str], codes: dict[str, int]) -> None:
    log = FindingLog()
    with pytest.raises(DatasetFormatError) as caught:
        imported(tmp_path, files, log=log)

    assert all(word in str(caught.value) for word in ["Looked for", "Seen: ", *words])
    assert log.counts == codes, "whoever gave the log has what was found until then"
    assert log.findings[0].code in codes


def test_progress_rises_to_one(tmp_path: Path) -> None:
    told: list[float] = []

    imported(tmp_path, yolo({f"{n}": ROW for n in range(7)}), progress=told.append)

    assert told == sorted(told)
    assert told[-1] == 1.0


def test_whoever_ends_an_import_does_not_wait_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def slow(data: bytes, **options: object) -> DecodedImage:
        opened.append(len(data))
        time.sleep(0.01)
        return decode_image(data)

    def end(fraction: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("detection.data.importing.decode_image", slow)
    with pytest.raises(KeyboardInterrupt):
        imported(tmp_path, yolo({f"{n:03d}": ROW for n in range(100)}), progress=end)

    assert len(opened) < 50


def test_findings_are_counted_beyond_what_is_kept() -> None:
    log = FindingLog(max_per_code=3)
    for number in range(5):
        log.add(FindingCode.BOX_EMPTY, "a.txt", "empty", where=f"line {number}")
    log.add(FindingCode.BOX_CLIPPED, "a.txt", "clipped")

    assert log.counts == {"box_empty": 5, "box_clipped": 1}
    assert [finding.where for finding in log.findings] == ["line 0", "line 1", "line 2", ""]


def test_every_code_has_a_severity_and_an_action() -> None:
    log = FindingLog()
    for code in FindingCode:
        log.add(code, "file", "message")

    assert [finding.code for finding in log.findings] == [code.value for code in FindingCode]


REAL = {
    "bccd-voc": ("voc", 3, {"train": 205, "val": 87, "test": 72}, 4886, {"box_empty": 2}),
    "microcontrollers-voc": ("voc", 4, {"train": 113, "val": 29, "test": 7}, 177, {"validation_cut": 1}),
    "microcontrollers-yolo": ("yolo", 4, {"train": 142, "val": 7}, 177, {}),
    "coco-val-49-coco": ("coco", 80, {"val": 49}, 495, {"class_without_boxes": 20}),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", REAL)
def test_real_archives_show_their_real_faults(reference: Path, tmp_path: Path, name: str) -> None:
    extract_archive(reference / "datasets" / f"{name}.zip", tmp_path)
    expected_format, num_classes, expected_splits, num_boxes, faults = REAL[name]

    result = read_dataset(tmp_path)

    assert result.dataset.format == expected_format
    assert len(result.dataset.classes) == num_classes
    assert splits(result.dataset) == expected_splits
    assert sum(len(image.boxes) for image in result.dataset.images) == num_boxes
    assert result.finding_counts == faults
    assert {finding.file for finding in result.findings if finding.code == "box_empty"} <= {
        "Annotations/BloodImage_00338.xml",
        "Annotations/BloodImage_00343.xml",
    }


@pytest.mark.reference
def test_both_layouts_of_one_dataset_agree(reference: Path, tmp_path: Path) -> None:
    boxes = []
    for name in ("microcontrollers-voc", "microcontrollers-yolo"):
        extract_archive(reference / "datasets" / f"{name}.zip", tmp_path / name)
        dataset = read_dataset(tmp_path / name).dataset
        boxes.append(
            {
                (image.sha256, dataset.classes[box.class_id]): edges(box)
                for image in dataset.images
                for box in image.boxes
            }
        )

    assert boxes[0].keys() == boxes[1].keys()
    for key, box in boxes[0].items():
        assert boxes[1][key] == pytest.approx(box, abs=0.01)
