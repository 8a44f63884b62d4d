"""Which code, configuration and pictures a model was made from."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.families.yolox import YoloxConfig
from detection.training.config import OptimizerConfig
from detection.training.provenance import (
    config_fingerprint,
    dataset_fingerprint,
    describe_source,
    file_date,
    git_describe,
    library_versions,
)

BOX = BoxRecord(class_id=0, x1=1, y1=2, x2=3, y2=4)
IMAGE = ImageRecord(id="a", file_name="a.jpg", width=9, height=9, split=Split.TRAIN, boxes=(BOX,))
DATASET = DatasetRecord(format="coco", classes=("cat", "dog"), images=(IMAGE,))


def test_a_folder_outside_any_repository_has_no_description(tmp_path: Path) -> None:
    assert git_describe(tmp_path) == ""
    assert git_describe(tmp_path / "missing") == ""


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_a_repository_is_described_by_its_last_tag_or_commit(tmp_path: Path) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    assert len(git_describe(tmp_path)) >= 7
    git(tmp_path, "tag", "-a", "v1.2", "-m", "tag")
    assert git_describe(tmp_path).startswith("v1.2-0-g")


def test_the_source_is_described_by_the_repository_that_tracks_it(tmp_path: Path) -> None:
    """And by no other one that it happens to lie in, as an environment does in the folder of a project."""
    package = tmp_path / "detection"
    package.mkdir()
    file = package / "module.py"
    file.write_text("1")
    os.utime(file, (1_616_760_000, 1_616_760_000))
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "somebody's project")
    asked = describe_source.__wrapped__
    assert asked(file) == "2021-3-26"
    git(tmp_path, "add", "detection")
    git(tmp_path, "commit", "-m", "harrier itself")
    assert asked(file) == git_describe(tmp_path)
    file.write_text("2")
    assert asked(file) == f"{git_describe(tmp_path)}-dirty"


def test_a_date_has_no_leading_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.utime(path, (1_616_760_000, 1_616_760_000))
    assert file_date(path) == "2021-3-26"


def test_the_source_is_always_described() -> None:
    assert describe_source()


def test_versions_name_what_computes() -> None:
    assert {"python", "harrier", "torch", "torchvision", "numpy", "onnx"} <= library_versions().keys()


def test_a_configuration_is_another_when_it_computes_something_else() -> None:
    config = YoloxConfig()
    assert config_fingerprint(config) == config_fingerprint(YoloxConfig())
    assert config_fingerprint(replace(config, device="0", time_limit_s=9)) == config_fingerprint(config)
    for other in (replace(config, seed=1), replace(config, optimizer=OptimizerConfig(lr=0.1))):
        assert config_fingerprint(other) != config_fingerprint(config)


def test_a_dataset_is_another_when_anything_in_it_is() -> None:
    others = [
        replace(DATASET, classes=("dog", "cat")),
        replace(DATASET, images=(replace(IMAGE, split=Split.VAL),)),
        replace(DATASET, images=(replace(IMAGE, boxes=(replace(BOX, x1=1.5),)),)),
        replace(DATASET, images=(replace(IMAGE, sha256="00"),)),
    ]
    prints = {dataset_fingerprint(each) for each in (DATASET, *others)}
    assert len(prints) == 5
    assert dataset_fingerprint(replace(DATASET)) in prints
