"""A detector of any family that was pruned can learn again: its zeros stay, and so do its widths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from detection.analysis.channel_pruning import prune_channels
from detection.analysis.modules import find_modules
from detection.analysis.prune import prune_layers
from detection.families import FAMILIES, architectures_of
from detection.models import create_served_model
from detection.models.detector import Detector
from detection.tasks import Task
from detection.training.checkpoints import Payload
from detection.training.job import TrainingJob
from detection.training.run import open_checkpoints, train
from detection.training.snapshot import load_evaluated_weights
from detection.training.state import StopRequest
from detection.training.tasks.detect import DetectTraining
from tests.small_job import Series, small_job

DETECTORS = [name for name in FAMILIES.names() if FAMILIES[name].config.task is Task.DETECT]


@pytest.fixture(scope="module", params=DETECTORS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def start_from(
    folder: Path, family: str, prune: Callable[[Detector], object]
) -> tuple[TrainingJob, Detector]:
    """Return a training that begins with a pruned model, and the model."""
    architecture = architectures_of(FAMILIES[family])[0]
    torch.manual_seed(3)
    pruned = create_served_model(architecture, num_classes=2)
    prune(pruned)
    path = folder / "pruned.safetensors"
    save_file(pruned.state_dict(), path, metadata={"architecture": architecture})
    return replace(small_job(folder, family=family, val=0, init="a-model"), initial_weights=path), pruned


def two_attempts(job: TrainingJob) -> Payload:
    """Train three steps, stop, go on for two; return the checkpoint."""
    for most in (3, 5):
        series = Series()
        train(
            job,
            reporter=series,
            requests=lambda series=series, most=most: (
                StopRequest.DRAIN if max(series.rows, default=0) >= most else None
            ),
        )
    payload = open_checkpoints(job, log=lambda line: None).load_latest()
    assert payload is not None
    assert payload["state"]["step"] == 5
    return payload


def test_zeros_stay_zeros_in_the_weights_and_in_their_average(family: str, tmp_path: Path) -> None:
    job, pruned = start_from(tmp_path, family, lambda detector: prune_layers(detector, 0.4))
    payload = two_attempts(replace(job, keep_zeros=True))
    start = pruned.state_dict()
    for weights in (payload["model"], payload["average"]["model"]):
        learnt = False
        for found in find_modules(pruned):
            before, after = start[f"{found.name}.weight"], weights[f"{found.name}.weight"]
            assert not after[before == 0].any()
            learnt |= not torch.equal(before, after)
        assert learnt


def test_without_being_told_zeros_learn_too(family: str, tmp_path: Path) -> None:
    job, pruned = start_from(tmp_path, family, lambda detector: prune_layers(detector, 0.4))
    payload = two_attempts(job)
    zeros = {each.name: each.module.get_parameter("weight") == 0 for each in find_modules(pruned)}
    assert any(payload["model"][f"{name}.weight"][there].any() for name, there in zeros.items())


def test_widths_stay_and_the_result_can_be_served(family: str, tmp_path: Path) -> None:
    job, pruned = start_from(tmp_path, family, lambda detector: prune_channels(detector, 0.5))
    payload = two_attempts(job)
    detector = DetectTraining().build_network(job).eval()
    load_evaluated_weights(payload, detector)
    detector.drop_training_parts()

    def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in state.items()}

    assert shapes(detector.state_dict()) == shapes(pruned.state_dict())
    detector.fuse()
    boxes, scores = detector.predict(torch.rand(1, 3, 64, 64))
    assert boxes.isfinite().all()
    assert scores.isfinite().all()
