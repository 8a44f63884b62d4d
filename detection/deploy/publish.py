"""Turn a training's best weights into a model: measured as it will serve, exported, checked and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from detection.analysis.complexity import Complexity, count_complexity
from detection.data.records import Split
from detection.deploy.package import CHECKED_PICTURES, ModelFile, write_model
from detection.environment import describe_environment
from detection.errors import CheckpointError
from detection.evaluation.coco import measure_detections
from detection.evaluation.curves import EvaluationDetails, detail_detections
from detection.inference.predictor import DetectOptions
from detection.model_record import ModelRecord
from detection.training.job import TrainingJob
from detection.training.progress import Seen
from detection.training.reporting import Reporter
from detection.training.run import detect_in_validation, open_checkpoints
from detection.training.session import TRANSFER_NOTE, build_detector
from detection.training.snapshot import load_evaluated_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A model that is complete: all that remains is to make it visible."""

    record: ModelRecord
    metrics: Mapping[str, Any] | None
    """COCO metrics of these very weights and the `split` they were measured on; None without one."""
    details: EvaluationDetails | None
    """Curves and confusion matrix of the same measurement; None with too many classes, too."""
    complexity: Complexity
    files: tuple[ModelFile, ...]
    provenance: Mapping[str, Any]


def publish(
    job: TrainingJob,
    into: Path,
    *,
    reporter: Reporter,
    interrupted: Callable[[], bool] = lambda: False,
    saw: Seen = lambda num_images: None,
) -> Publication | None:
    """Write the model of a training that has ended into the folder `into`; None when interrupted.

    The weights are those with the best AP on the validation split, or the last ones when nothing was
    measured. May be interrupted or killed and called again: files are replaced as a whole.

    Args:
        saw: told how many pictures have been measured; `TrainingResult.saw`.

    Raises:
        CheckpointError: there is no intact checkpoint.
        ExportError: the exported graph does not compute what the model computes.
        OSError: a file cannot be written.
    """
    reporter.on_stage("publishing")
    payload = open_checkpoints(job, log=reporter.on_log).load_best()
    if payload is None:
        raise CheckpointError("the training has no checkpoint; there is nothing to publish")
    detector = build_detector(job).eval()
    load_evaluated_weights(payload, detector)
    detector.drop_training_parts()
    metrics, details = None, None
    if job.val_images:
        found = detect_in_validation(job, detector, interrupted=interrupted, saw=saw)
        if found is None:
            return None
        classes = job.record.classes
        measured = measure_detections(job.val_images, found, classes)
        metrics = {**measured.as_json(), "split": Split.VAL.value}
        details = detail_detections(
            job.val_images, found, classes, score_threshold=DetectOptions().score_threshold
        )
    environment = describe_environment(job.devices)
    into.mkdir(parents=True, exist_ok=True)
    shown = (job.val_images or job.train_images)[:CHECKED_PICTURES]
    files = write_model(detector, job.record, into, pictures=[job.read(image) for image in shown])
    return Publication(
        record=job.record,
        metrics=metrics,
        details=details,
        complexity=count_complexity(detector, job.input_size_hw),
        files=files,
        provenance={
            "dataset_sha256": job.identity.dataset_sha256,
            "config_sha256": job.identity.config_sha256,
            "config": asdict(job.config),
            "seed": job.config.seed,
            "deterministic": job.config.deterministic,
            "precision": job.config.precision.value,
            "step": payload["state"]["step"],
            **environment,
            "threads": job.config.threads or environment["threads"],
            "transfer": _transfer(job),
        },
    )


def _transfer(job: TrainingJob) -> Mapping[str, Any] | None:
    """Return what became of the weights that the training began with; None when they were random."""
    note = job.folder / TRANSFER_NOTE
    if not note.exists():
        return None
    told: Mapping[str, Any] = msgspec.json.decode(note.read_bytes())
    return told
