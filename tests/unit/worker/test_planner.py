"""What a plan measures computes as the engine does, or its figures are those of nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from safetensors.torch import save_file

from app.settings import Settings
from detection.analysis.serving_speed import Speed
from detection.devices import CPU
from detection.errors import BackendError
from detection.inference.agreement import Agreement
from detection.inference.serving import Precision
from detection.model_files import RECORD_FILE, WEIGHTS_FILE, encode_record
from detection.models import create_model
from tests.published import CLASSES, RECORD
from worker.attempt import Attempt
from worker.jobs.planner import Executor, Planner, Truth


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_reference_has_the_threads_of_its_shape_and_the_rest_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(
        create_model(RECORD.architecture, num_classes=len(CLASSES)).state_dict(), tmp_path / WEIGHTS_FILE
    )
    (tmp_path / RECORD_FILE).write_bytes(encode_record(RECORD))
    job = SimpleNamespace(config={"seconds": 0.1})
    attempt = cast(Attempt, SimpleNamespace(job=job, settings=Settings(home=tmp_path)))
    planner = Planner(attempt, tmp_path, CPU, [], lambda image: b"")
    backend = planner._predictor(("eager", Precision.FP32), 3).backend
    monkeypatch.setattr(backend, "_compute", lambda images: (torch.tensor(torch.get_num_threads()),))
    assert backend.run(torch.zeros(1, 3, 64, 96))[0].item() == 3
    assert torch.get_num_threads() == 1


class Watched:
    """What a planner tells of its work."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[dict[str, float]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def stage(self, name: str) -> None:
        pass

    def progress(self, values: dict[str, float], *, eta_s: float | None) -> None:
        self.steps.append(values)


def planner_where(broken: str, report: Watched, home: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Return a planner for three backends, one of which turns out not to work."""
    attempt = SimpleNamespace(
        job=SimpleNamespace(config={"seconds": 0.1}),
        settings=Settings(home=home),
        report=report,
        control=SimpleNamespace(pulse=lambda: None),
    )
    planner = Planner(cast(Attempt, attempt), home, CPU, [], lambda image: b"")
    speed = Speed(pictures_per_s=1.0, p50_ms=1.0, p95_ms=1.0)

    def load(executor: Executor, threads: int) -> object:
        if executor[0] == broken:
            raise BackendError("a library of it is missing")
        return object()

    names = ("eager", "tensorrt", "onnxruntime")
    monkeypatch.setattr(planner, "_executors", lambda: [(name, Precision.FP32) for name in names])
    monkeypatch.setattr(planner, "_predictor", load)
    monkeypatch.setattr(planner, "_find", lambda executor, predictor: Truth(speed, None, Agreement()))
    monkeypatch.setattr(planner, "_time", lambda shape, loaded, truth: speed)
    return planner


def test_a_backend_that_turns_out_not_to_work_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TensorRT, which ONNX Runtime offers wherever it was built with it."""
    report = Watched()
    rows = planner_where("tensorrt", report, tmp_path, monkeypatch).rows()
    assert {row.shape.backend for row in rows} == {"eager", "onnxruntime"}
    assert "tensorrt is not measured: a library of it is missing" in report.lines
    assert report.steps[-1]["step"] == report.steps[-1]["steps"]


def test_without_a_reference_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError):
        planner_where("eager", Watched(), tmp_path, monkeypatch).rows()
