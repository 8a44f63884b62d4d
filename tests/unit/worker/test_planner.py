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
from detection.devices import CPU
from detection.inference.serving import Precision
from detection.model_files import RECORD_FILE, WEIGHTS_FILE, encode_record
from detection.models import create_model
from tests.published import CLASSES, RECORD
from worker.attempt import Attempt
from worker.jobs.planner import Planner


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
