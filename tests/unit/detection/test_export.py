"""Exports are valid archives, written while they are sent, and equal for equal datasets."""

from __future__ import annotations

import io
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from subprocess import run

import pytest

from detection.data.archive import extract_archive, sniff_archive
from detection.data.export import export_zip
from detection.data.formats import FORMATS
from detection.data.importing import read_dataset
from detection.data.manifest import read_manifest, write_manifest
from detection.errors import DatasetFormatError, UnknownNameError
from tests.datasets import as_whole_pictures, record_with_pictures


@pytest.mark.parametrize("name", FORMATS.names())
def test_exported_zip_can_be_uploaded_again(tmp_path: Path, name: str) -> None:
    dataset, files = record_with_pictures()
    if name == "folders":
        dataset = as_whole_pictures(dataset)
    archive = tmp_path / "export.zip"

    archive.write_bytes(b"".join(export_zip(dataset, name, lambda image: files[image.id])))

    assert sniff_archive(archive.read_bytes()[:512]) == "zip"
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
    extract_archive(archive, tmp_path / "unpacked")
    assert len(read_dataset(tmp_path / "unpacked").dataset.images) == len(dataset.images)


def test_equal_datasets_give_equal_archives() -> None:
    dataset, files = record_with_pictures()
    first, second = (b"".join(export_zip(dataset, "coco", lambda image: files[image.id])) for _ in range(2))

    assert first == second


def test_pictures_are_read_one_by_one() -> None:
    dataset, files = record_with_pictures()
    asked: list[str] = []

    def read(image: object) -> bytes:
        asked.append(image.id)  # type: ignore[attr-defined]
        return files[asked[-1]]

    chunks = export_zip(dataset, "yolo", read)
    assert asked == []
    total = sum(1 for _ in zip(chunks, range(4), strict=False))
    assert total == 4
    assert len(asked) < len(dataset.images)


def test_unknown_format_is_refused_before_anything_is_sent() -> None:
    dataset, files = record_with_pictures()

    with pytest.raises(UnknownNameError):
        export_zip(dataset, "csv", lambda image: files[image.id])


def test_manifest_is_the_record() -> None:
    dataset, _ = record_with_pictures()

    content = write_manifest(dataset)

    assert read_manifest(content) == dataset
    assert write_manifest(replace(dataset)) == content


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_what_is_no_manifest(content: bytes) -> None:
    with pytest.raises(DatasetFormatError, match="manifest"):
        read_manifest(content)


def test_reading_and_writing_labels_needs_neither_torch_nor_opencv() -> None:
    modules = "archive, export, manifest, summary, class_rules, finding_log, file_tree"
    program = (
        f"import sys; from detection.data import {modules}; from detection.data.formats import FORMATS\n"
        "assert not {'torch', 'cv2'} & sys.modules.keys()"
    )

    assert run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr == ""


def test_zip_entries_have_no_time_of_their_own() -> None:
    dataset, files = record_with_pictures()
    data = b"".join(export_zip(dataset, "voc", lambda image: files[image.id]))

    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert {entry.date_time[0] for entry in opened.infolist()} == {1980}
