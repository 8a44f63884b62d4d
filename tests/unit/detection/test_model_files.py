"""The record of a model as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from detection.errors import WeightsError
from detection.input_convention import YOLOX_LEGACY
from detection.model_files import RECORD_FILE, decode_record, encode_record, read_record
from detection.model_record import ModelRecord

RECORD = ModelRecord(
    architecture="yolox-s",
    classes=("cat", "猫"),
    input_size_hw=(320, 640),
    input_convention=YOLOX_LEGACY,
    nms_iou=0.5,
    one_label_per_prior=False,
)


def test_a_record_comes_back_from_its_file(tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_bytes(encode_record(RECORD))
    assert read_record(tmp_path) == RECORD


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"architecture": 3}', b"\xff"])
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(WeightsError, match=r"model\.json is not the record of a model"):
        decode_record(content)
