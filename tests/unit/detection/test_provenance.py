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


def test_a_repository_is_described_by_its_last_tag_or_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "first")
    assert len(git_describe(tmp_path)) >= 7
    git("tag", "-a", "v1.2", "-m", "tag")
    assert git_describe(tmp_path).startswith("v1.2-0-g")


def test_a_date_has_no_leading_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.utime(path, (1_616_760_000, 1_616_760_000))
    assert file_date(path) == "2021-3-26"


def test_the_source_is_always_described() -> None:
    assert describe_source()


def test_versions_name_what_computes() -> None:
    assert {"python", "torch", "onnx"} <= library_versions().keys()


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
