"""Turn a training's best weights into a model: measured as it will serve, exported, checked and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detection.analysis.complexity import Complexity, count_complexity
from detection.data.records import Split
from detection.deploy.package import CHECKED_PICTURES, ModelFile, write_model
from detection.errors import CheckpointError
from detection.evaluation.curves import EvaluationDetails, detail_detections
from detection.evaluation.tta import detect_plain_and_augmented
from detection.inference.passes import DEFAULT_PASSES, describe_passes
from detection.inference.predictor import DetectOptions
from detection.model_record import ModelRecord
from detection.models.detector import Detector
from detection.training.job import TrainingJob
from detection.training.progress import Seen
from detection.training.provenance import describe_source, library_versions
from detection.training.reporting import Reporter
from detection.training.run import open_checkpoints, validation_predictor
from detection.training.session import build_detector
from detection.training.snapshot import load_evaluated_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A model that is complete: all that remains is to make it visible."""

    record: ModelRecord
    metrics: Mapping[str, Any] | None
    """COCO metrics of these very weights and the `split` they were measured on; None without one."""
    details: EvaluationDetails | None
    """Curves and confusion matrix of the same measurement; None with too many classes, too."""
    tta: Mapping[str, Any] | None
    """What test-time augmentation changed, where the configuration asks for it."""
    complexity: Complexity
    files: tuple[ModelFile, ...]
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What the validation split says about weights; nothing where it is empty."""

    metrics: Mapping[str, Any] | None = None
    details: EvaluationDetails | None = None
    tta: Mapping[str, Any] | None = None


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
    measured = _measure(job, detector, reporter=reporter, interrupted=interrupted, saw=saw)
    if measured is None:
        return None
    into.mkdir(parents=True, exist_ok=True)
    shown = (job.val_images or job.train_images)[:CHECKED_PICTURES]
    files = write_model(detector, job.record, into, pictures=[job.read(image) for image in shown])
    return Publication(
        record=job.record,
        metrics=measured.metrics,
        details=measured.details,
        tta=measured.tta,
        complexity=count_complexity(detector, job.input_size_hw),
        files=files,
        provenance={
            "dataset_sha256": job.identity.dataset_sha256,
            "config_sha256": job.identity.config_sha256,
            "config": asdict(job.config),
            "seed": job.config.seed,
            "step": payload["state"]["step"],
            "source": describe_source(),
            "versions": library_versions(),
        },
    )


def _measure(
    job: TrainingJob, detector: Detector, *, reporter: Reporter, interrupted: Callable[[], bool], saw: Seen
) -> _Measured | None:
    """Measure weights on the validation split, as they serve; None when interrupted."""
    if not job.val_images:
        return _Measured()
    passes = DEFAULT_PASSES if job.config.evaluation.tta else ()
    if passes:
        reporter.on_log(describe_passes(passes))
    images, classes = job.val_images, job.record.classes
    found = detect_plain_and_augmented(
        validation_predictor(job, detector), images, job.read, passes, interrupted=interrupted, saw=saw
    )
    if found is None:
        return None
    measured = found.measure(images, classes)
    threshold = DetectOptions().score_threshold
    return _Measured(
        metrics={**measured.plain.as_json(), "split": Split.VAL.value},
        details=detail_detections(images, found.plain, classes, score_threshold=threshold),
        tta=measured.comparison,
    )
