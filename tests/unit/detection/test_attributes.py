"""What labels say about a box besides its class: which of it is kept, and how it is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from detection.data.attributes import (
    LONGEST_NAME,
    LONGEST_VALUE,
    MOST_OF_A_BOX,
    MOST_VALUES,
    AttributeReader,
    as_pairs,
    count_attributes,
    report_left_out,
)
from detection.data.finding_log import FindingLog
from detection.data.importing import ImportedDataset, read_dataset
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from tests.datasets import coco_box, coco_image, coco_json, picture, voc_object, voc_xml, write_files


def attributes(read: ImportedDataset) -> list[tuple[tuple[str, str], ...]]:
    return [box.attributes for image in read.dataset.images for box in image.boxes]


def test_coco_has_them_as_an_object(tmp_path: Path) -> None:
    given = {"colour": "red", "occluded": False, "wheels": 4, "rotation": 0.5, "age": 3.0}
    box = coco_box(1, 1, 7, [1, 1, 20, 20], attributes=given)
    write_files(tmp_path, {"a.jpg": picture(), "x.json": coco_json([coco_image(1, "a.jpg")], [box])})
    read = read_dataset(tmp_path)
    assert attributes(read) == [
        (("age", "3"), ("colour", "red"), ("occluded", "false"), ("rotation", "0.5"), ("wheels", "4"))
    ]
    assert "attribute_invalid" not in read.finding_counts


@pytest.mark.parametrize(
    "listed",
    [
        "<attributes>red</attributes>",
        "<attributes><attributes><attribute/></attributes></attributes>",
        "<attributes><attribute><name>a</name><name>b</name><value>1</value></attribute></attributes>",
        "<attributes><attribute><name>a</name><value>1</value><value>2</value></attribute></attributes>",
    ],
)
def test_what_is_no_list_of_attributes_in_voc_is_a_finding(tmp_path: Path, listed: str) -> None:
    labels = voc_xml(voc_object("car", 1, 1, 20, 20, extra=listed))
    write_files(tmp_path, {"a.jpg": picture(), "a.xml": labels})
    read = read_dataset(tmp_path)
    assert attributes(read) == [()]
    assert read.finding_counts["attribute_invalid"] == 1


def test_voc_has_a_pose_and_a_list(tmp_path: Path) -> None:
    listed = (
        "<attributes><attribute><name>colour</name><value>red</value></attribute>"
        "<attribute><name>old</name><value>true</value></attribute></attributes>"
    )
    objects = (
        voc_object("car", 1, 1, 20, 20, extra=f"<pose>Left</pose>{listed}"),
        voc_object("car", 1, 1, 20, 20, extra="<pose>unspecified</pose>"),
        voc_object("car", 1, 1, 20, 20),
    )
    write_files(tmp_path, {"a.jpg": picture(), "a.xml": voc_xml(*objects)})
    assert attributes(read_dataset(tmp_path)) == [
        (("colour", "red"), ("old", "true"), ("pose", "Left")),
        (),
        (),
    ]


@pytest.mark.parametrize(
    "given",
    [
        ["red"],
        "red",
        {"": "red"},
        {"colour": None},
        {"colour": ["red"]},
        {"colour": {"r": 1}},
        {"colour": ""},
        {"colour": "\u200b"},
        {"x" * (LONGEST_NAME + 1): "red"},
        {"colour": "x" * (LONGEST_VALUE + 1)},
    ],
)
def test_what_is_none_is_a_finding_with_its_place(tmp_path: Path, given: object) -> None:
    box = coco_box(9, 1, 7, [1, 1, 20, 20], attributes=given)
    write_files(tmp_path, {"a.jpg": picture(), "x.json": coco_json([coco_image(1, "a.jpg")], [box])})
    read = read_dataset(tmp_path)
    (finding,) = (each for each in read.findings if each.code == "attribute_invalid")
    assert (finding.file, finding.where, finding.action) == ("x.json", "annotation 9", "dropped")
    assert attributes(read) == [()]


def test_a_box_has_not_any_number_of_them() -> None:
    log = FindingLog()
    given = [(f"name {number:03d}", "x") for number in range(1000)]
    assert len(AttributeReader(log).take(given, "x.json", "annotation 1")) == MOST_OF_A_BOX
    assert log.counts["attribute_invalid"] == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_no_value(value: float) -> None:
    log = FindingLog()
    assert AttributeReader(log).take([("a", value)], "x.json", "annotation 1") == ()
    assert log.counts["attribute_invalid"] == 1


def test_the_first_of_two_with_one_name_counts() -> None:
    log = FindingLog()
    assert AttributeReader(log).take([("a", "1"), ("a", "2")], "x.xml", "object 1") == (("a", "1"),)
    assert log.counts["attribute_invalid"] == 1
    assert as_pairs(None) == []


def boxes(*values: str, split: Split = Split.TRAIN, crowd: bool = False) -> ImageRecord:
    own = [
        BoxRecord(class_id=0, x1=0, y1=0, x2=1, y2=1, crowd=crowd, attributes=(("colour", value),))
        for value in values
    ]
    return ImageRecord(id="1", file_name="1.jpg", width=9, height=9, split=split, boxes=tuple(own))


def dataset(*images: ImageRecord) -> DatasetRecord:
    return DatasetRecord(format="coco", classes=("car",), images=images)


def test_boxes_are_counted_by_attribute_value_and_split() -> None:
    record = dataset(boxes("red", "red", "blue"), boxes("red", split=Split.VAL), boxes("green", crowd=True))
    assert count_attributes(record) == {"colour": {"blue": {"train": 1}, "red": {"train": 2, "val": 1}}}


def test_what_has_too_many_values_is_no_label() -> None:
    assert count_attributes(dataset(boxes(*map(str, range(MOST_VALUES))))) != {}
    assert count_attributes(dataset(boxes(*map(str, range(MOST_VALUES + 1))))) == {}


def test_what_is_left_out_is_said_once_each() -> None:
    log = FindingLog()
    report_left_out(dataset(boxes(*map(str, range(MOST_VALUES)))), log)
    assert not log.counts
    report_left_out(dataset(boxes(*map(str, range(MOST_VALUES + 1)))), log)
    (finding,) = log.findings
    assert finding.message.endswith("is no label: it has 201 values, and a label has at most 200")
