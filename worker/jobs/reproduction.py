"""The model whose training a job repeats: found before it begins, compared with what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from detection.errors import DatasetFormatError, WeightsError
from detection.model_files import WEIGHTS_FILE
from detection.tasks import Task
from detection.training.job import TrainingJob
from detection.training.reproduction import differences, report_reproduction
from worker.attempt import Attempt
from worker.jobs.score import SCORE_OF_TASK, shown
from worker.stored_model import find_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A published model whose training is repeated."""

    id: str
    name: str
    provenance: Mapping[str, Any]
    metrics: Mapping[str, Any] | None
    weights: Path

    @property
    def step(self) -> int:
        """The step whose weights were published; what its training did afterwards did not change them."""
        return int(self.provenance["step"])


def open_original(attempt: Attempt) -> Original | None:
    """Return the model that the job reproduces; None when it is a training of its own.

    Raises:
        WeightsError: that model is gone.
    """
    model_id = attempt.job.reproduces
    if model_id is None:
        return None
    found = find_weights(attempt, model_id)
    if found is None:
        raise WeightsError(f"the model {model_id}, which this training reproduces, is gone")
    model, key = found
    return Original(
        id=model.id,
        name=model.name,
        provenance=model.provenance,
        metrics=model.metrics,
        weights=attempt.storage.local_path(key, attempt.scratch / "original"),
    )


def announce_reproduction(attempt: Attempt, original: Original, training: TrainingJob) -> None:
    """Say in the log what is repeated, and how far.

    Raises:
        DatasetFormatError: the dataset does not hold what the original learnt from.
    """
    learnt_from = original.provenance["dataset_content_sha256"]
    if training.identity.dataset_sha256 != learnt_from:
        raise DatasetFormatError(
            attempt.job.dataset_id or "",
            "",
            f"its classes, pictures and boxes are not those that the model {original.id} was trained on",
        )
    total = training.plan.total_steps
    extent = "to its end" if original.step == total else f"up to step {original.step} of {total}"
    attempt.report.line(
        f"this reproduces the model {original.id} ({original.name}): the same configuration and pictures, "
        f"{extent}, where its weights were taken"
    )


def compare_with_original(
    attempt: Attempt,
    original: Original,
    *,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any] | None,
    folder: Path,
) -> dict[str, Any]:
    """Return how a reproduction compares with its original, and say it in the log.

    Args:
        provenance, metrics: of the model that came out.
        folder: where its files are.
    """
    score = SCORE_OF_TASK[Task(provenance["config"]["task"])].field
    own, first = ((measured or {}).get(score) for measured in (metrics, original.metrics))
    report = {
        "original_model_id": original.id,
        **report_reproduction(
            original.provenance, provenance, load_file(original.weights), load_file(folder / WEIGHTS_FILE)
        ),
        score: own,
        f"original_{score}": first,
    }
    attempt.report.line(f"compared with the model {original.id}: {report['summary']}")
    attempt.report.line(f"{score} {shown(own)}, that of the original {shown(first)}")
    for difference in differences(original.provenance, provenance):
        attempt.report.line(f"not as it was then: {difference}")
    return report
