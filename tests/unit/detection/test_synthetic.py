"""The synthetic set is a real dataset: readable, repeatable, and its boxes are tight."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from detection.data import synthetic
from detection.data.archive import extract_archive
from detection.data.draws import Purpose, draws
from detection.data.importing import read_dataset
from detection.data.records import Split
from detection.data.synthetic import CLASSES, _picture, write_synthetic_dataset, zip_synthetic_dataset


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", ["yolo", "coco"])
def test_reads_without_a_finding(tmp_path: Path, layout: str) -> None:
    write_synthetic_dataset(tmp_path, num_images=40, size=96, format_name=layout)

    result = read_dataset(tmp_path)

    assert result.dataset.format == layout
    assert result.dataset.classes == CLASSES
    assert [len(result.dataset.of_split(split)) for split in Split] == [32, 8, 0]
    assert result.findings == []
    boxes = [box for image in result.dataset.images for box in image.boxes]
    assert {box.class_id for box in boxes} == {0, 1, 2}
    assert len(boxes) > 60
    assert any(not image.boxes for image in result.dataset.images)


def test_depends_on_the_seed_only(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_synthetic_dataset(tmp_path / name, num_images=4, size=64, seed=seed)

    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_pictures_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "few", num_images=3, size=64)
    write_synthetic_dataset(tmp_path / "many", num_images=6, size=64)

    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    assert {name: many[name] for name in few if name.startswith("images")} == {
        name: content for name, content in few.items() if name.startswith("images")
    }


def test_zip_holds_the_same_files(tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "folder", num_images=5, size=64)
    zip_synthetic_dataset(tmp_path / "set.zip", num_images=5, size=64)

    extract_archive(tmp_path / "set.zip", tmp_path / "unpacked")

    assert contents(tmp_path / "unpacked") == contents(tmp_path / "folder")


def test_boxes_are_tight() -> None:
    for number in range(20):
        _, shapes = _picture(draws(0, Purpose.SYNTHETIC, number), 128)
        for shape in shapes:
            mask = np.zeros((1024, 1024), np.uint8)
            cv2.fillPoly(mask, [np.round(shape.outline * 8).astype(np.int32)], (1,))
            x, y, width, height = cv2.boundingRect(mask)
            hull = np.array([x, y, x + width, y + height]) / 8
            assert np.abs(hull - shape.box).max() <= 0.3
            assert min(shape.box) >= 0
            assert max(shape.box) <= 128


def test_the_command_says_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[tuple[Path, int, str]] = []
    monkeypatch.setattr(
        synthetic,
        "write_synthetic_dataset",
        lambda folder, num_images, format_name: written.append((folder, num_images, format_name)),
    )
    synthetic.main([str(tmp_path / "shapes")])
    assert written == [(tmp_path / "shapes", 400, "yolo")]
    printed = (
        f"{tmp_path / 'shapes'}: 400 pictures of circles, squares and triangles with their labels (YOLO)\n"
    )
    assert capsys.readouterr().out == printed


def test_the_command_makes_as_many_as_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.main([str(tmp_path), "--images", "2"])
    assert len(list(tmp_path.rglob("*.jpg"))) == 2
    assert "2 pictures" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        synthetic.main([str(tmp_path), "--images", "0"])
    assert "--images: at least 1" in capsys.readouterr().err


def test_the_colour_of_a_shape_is_an_attribute(tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path, num_images=8, size=128, format_name="coco")
    compared = 0
    for image in read_dataset(tmp_path).dataset.images:
        pixels = cv2.imread(str(next(tmp_path.rglob(image.file_name))))
        assert pixels is not None
        for box in image.boxes:
            x, y = round((box.x1 + box.x2) / 2), round((box.y1 + box.y2) / 2)
            middle = pixels[y - 2 : y + 3, x - 2 : x + 3].mean(axis=(0, 1))
            if np.sort(middle)[2] - np.sort(middle)[1] > 40:  # else noise and JPEG may decide
                assert dict(box.attributes) == {"colour": synthetic.COLOURS[int(middle.argmax())]}
                compared += 1
    assert compared > 8


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"cannot write to .*file.shapes: Not a directory"):
        synthetic.main([str(tmp_path / "file" / "shapes")])


def test_the_picture_that_the_readme_detects_in_is_for_validation_and_not_empty() -> None:
    readme = Path(__file__).parents[3].joinpath("README.md").read_text()
    named = re.search(r"^picture=shapes/images/val/(\d{6})\.jpg$", readme, re.MULTILINE)
    assert named
    number = int(named[1]) - 1
    record = synthetic._record(number, 256, _picture(draws(0, Purpose.SYNTHETIC, number), 256)[1])
    assert record.split is Split.VAL
    assert len(record.boxes) > 2
