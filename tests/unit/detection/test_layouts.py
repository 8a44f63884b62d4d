"""Archives as other programs make them are imported right; archives that are no dataset say why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard

from detection.data.archive import extract_archive
from detection.data.finding_log import FindingLog
from detection.data.importing import ImportedDataset, read_dataset
from detection.errors import ArchiveError, DatasetFormatError
from tests.archives import RawZipEntry, raw_zip, tar_of, zip_of
from tests.datasets import coco_box, coco_image, coco_json, picture, voc_xml
from tests.layouts import BBOX, CAT, EDGES, ROW, Layout, layouts

Pack = Callable[[Mapping[str, bytes]], bytes]

PACKERS: dict[str, Pack] = {
    "zip": zip_of,
    "tar": tar_of,
    "tar.gz": lambda files: tar_of(files, "w:gz"),
    "tar.zst": lambda files: zstandard.compress(tar_of(files)),
}


def unpacked_and_read(root: Path, archive: bytes, log: FindingLog | None = None) -> ImportedDataset:
    path = root / "upload"
    path.write_bytes(archive)
    extract_archive(path, root / "unpacked")
    return read_dataset(root / "unpacked", validation_fraction=0.0, log=log)


@pytest.mark.parametrize("name", layouts())
def test_layouts_of_other_programs(tmp_path: Path, name: str) -> None:
    layout = layouts()[name]

    imported = unpacked_and_read(tmp_path, zip_of(layout.files))

    dataset = imported.dataset
    assert dataset.format == layout.format
    assert dataset.classes == layout.classes
    assert Counter(image.split.value for image in dataset.images) == dict(layout.splits)
    assert sum(len(image.boxes) for image in dataset.images) == layout.boxes
    assert imported.finding_counts == layout.findings
    assert_first_box(layout, imported)


def assert_first_box(layout: Layout, imported: ImportedDataset) -> None:
    """Every layout labels a cat or dog at the same place."""
    for image in imported.dataset.images:
        edges = {(box.x1, box.y1, box.x2, box.y2) for box in image.boxes}
        assert not image.boxes or EDGES in edges


@pytest.mark.parametrize("kind", PACKERS)
def test_every_kind_of_archive(tmp_path: Path, kind: str) -> None:
    layout = layouts()["roboflow yolo"]

    imported = unpacked_and_read(tmp_path, PACKERS[kind](layout.files))

    assert sum(len(image.boxes) for image in imported.dataset.images) == layout.boxes


PICTURE = picture()
NO_DATASET: dict[str, tuple[bytes, list[str]]] = {
    "nothing": (
        zip_of({}),
        ["Looked for coco: a JSON file", "voc: XML files", "yolo: text files", "Seen: no files"],
    ),
    "only junk": (zip_of({"__MACOSX/._a.jpg": b"x", "a/.DS_Store": b"x"}), ["Seen: no files"]),
    "pictures only": (
        zip_of({"a.jpg": PICTURE, "b.jpg": PICTURE}),
        ["no labels were found", "2 files (2 .jpg)"],
    ),
    "an archive in the archive": (
        zip_of({"data.zip": zip_of({"a.jpg": PICTURE})}),
        ["1 file (1 .zip; archives inside the archive stay closed)"],
    ),
    "labels only": (
        zip_of({"labels/a.txt": ROW.encode()}),
        ["1 file (1 .txt)", "0 pictures with a YOLO label file"],
    ),
    "CVAT's own XML": (
        zip_of({"annotations.xml": b"<annotations><image/></annotations>", "a.jpg": PICTURE}),
        ["0 XML files with the root element <annotation>, 1 with another"],
    ),
    "Label Studio's own JSON": (
        zip_of({"export.json": b'[{"id": 1, "annotations": []}]', "a.jpg": PICTURE}),
        ["export.json: it is no COCO file: it has no `images`"],
    ),
    "COCO that is cut off": (
        zip_of({"x.json": coco_json([coco_image(1, "a.jpg")], [])[:-9].encode(), "a.jpg": PICTURE}),
        ["x.json: it cannot be read as COCO"],
    ),
    "COCO without its pictures": (
        zip_of({"x.json": coco_json([coco_image(1, "a.jpg")], [coco_box(1, 1, 7, BBOX)]).encode()}),
        ["no usable picture is listed", "x.json lists 1 picture"],
    ),
    "VOC without its pictures": (
        zip_of({"a.xml": voc_xml(CAT).encode()}),
        ["no usable picture is left", "1 × image_missing"],
    ),
}


@pytest.mark.parametrize("name", NO_DATASET)
def test_what_is_no_dataset_is_told_what_was_looked_for_and_seen(tmp_path: Path, name: str) -> None:
    archive, words = NO_DATASET[name]

    with pytest.raises(DatasetFormatError) as caught:
        unpacked_and_read(tmp_path, archive)

    message = str(caught.value)
    assert [word for word in ["Looked for", "Seen: ", *words] if word not in message] == []
    assert str(tmp_path) not in message
    assert "unpacked" not in message


HOSTILE = {
    "out of the folder": ([RawZipEntry(b"../a.jpg")], "archive_path"),
    "absolute": ([RawZipEntry(b"/etc/a.jpg")], "archive_path"),
    "drive": ([RawZipEntry(b"C:/a.jpg")], "archive_path"),
    "backslashes": ([RawZipEntry(b"images\\a.jpg")], "archive_path"),
    "control characters": ([RawZipEntry(b"a\n.jpg")], "archive_path"),
    "link": ([RawZipEntry(b"a.jpg", b"/etc/passwd", mode=0o120777)], "archive_entry"),
    "twice": ([RawZipEntry(b"a.jpg"), RawZipEntry(b"a.jpg")], "archive_duplicate"),
    "encrypted": ([RawZipEntry(b"a.jpg", b"x", flags=1)], "archive_encrypted"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    entries, code = HOSTILE[name]

    with pytest.raises(ArchiveError) as caught:
        unpacked_and_read(tmp_path, raw_zip(entries))

    assert caught.value.code == code
    assert len(caught.value.problem) > 10
    assert str(caught.value).isprintable()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] in (
        [tmp_path / "upload"],
        twice(tmp_path),
    )


def twice(root: Path) -> list[Path]:
    """What lies there when only the second entry was refused."""
    return [root / "upload", root / "unpacked" / "a.jpg"]


HOSTILE_NAMES = ["x" * 10_000, "\0", "\u202egpj", "", " ", "=cmd()", "<script>", "a\nb", "\U0010ffff"]


@pytest.mark.parametrize("format_name", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_no_unreadable_class_name_gets_in(tmp_path: Path, format_name: str, name: str) -> None:
    archive = {"a.jpg": PICTURE} | labelled_as(name, format_name)
    log, classes = FindingLog(), tuple[str, ...]()

    with suppress(DatasetFormatError):  # without its only class VOC has no box: then there is a finding
        classes = unpacked_and_read(tmp_path, zip_of(archive), log).dataset.classes

    assert log.counts or classes[0] == name
    assert all(1 <= len(each) <= 200 and each == " ".join(each.split()) for each in classes)
    assert not any(sign in each for each in classes for sign in "\0\u202e\n")
    assert all(finding.message.isprintable() and len(finding.message) <= 1001 for finding in log.findings)


def labelled_as(name: str, format_name: str) -> dict[str, bytes]:
    if format_name == "coco":
        return {"x.json": coco_json([coco_image(1, "a.jpg")], [coco_box(1, 1, 7, BBOX)], {7: name}).encode()}
    if format_name == "voc":
        escaped = name.replace("&", "&amp;").replace("<", "&lt;")
        return {"a.xml": voc_xml(CAT.replace("cat", escaped)).encode()}
    return {"a.txt": ROW.encode(), "classes.txt": name.encode() + b"\nother"}
