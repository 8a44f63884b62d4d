"""An export is hidden from a debugger or a measurement of coverage, and what comes after it is not."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
import torch

from detection.architectures import ARCHITECTURES
from detection.deploy.export import export_onnx
from detection.models import create_served_model

NAME = "yolox-nano"


def trace(frame: FrameType, event: str, argument: Any) -> None:
    pass


def test_a_tracer_pauses_and_goes_on_although_the_export_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def fails(*_: object, **__: object) -> None:
        seen.append(sys.gettrace())
        raise RuntimeError("no graph")

    monkeypatch.setattr(torch.onnx, "export", fails)
    network = create_served_model(NAME, num_classes=2)
    record = ARCHITECTURES[NAME].record(classes=("a", "b"), input_size_hw=(64, 64))
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(RuntimeError, match="no graph"):
            export_onnx(network, record)
        seen.append(sys.gettrace())
    finally:
        sys.settrace(before)
    assert seen == [None, trace]
