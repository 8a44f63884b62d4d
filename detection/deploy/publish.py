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
from detection.evaluation.metrics import Details
from detection.inference.passes import DEFAULT_PASSES, describe_passes
from detection.model_record import ModelRecord
from detection.training.job import TrainingJob
from detection.training.progress import Seen
from detection.training.reporting import Reporter
from detection.training.run import open_checkpoints
from detection.training.session import TRANSFER_NOTE
from detection.training.snapshot import load_evaluated_weights
from detection.training.tasks import training_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A model that is complete: all that remains is to make it visible."""

    record: ModelRecord
    metrics: Mapping[str, Any] | None
    """Metrics of these very weights and the `split` they were measured on; None without one."""
    details: Details | None
    """Curves and confusion matrix of the same measurement; None with too many classes, too."""
    tta: Mapping[str, Any] | None
    """What test-time augmentation changed, where the configuration asks for it."""
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
    training = training_of(job)
    network = training.build_network(job).eval()
    load_evaluated_weights(payload, network)
    network.drop_training_parts()
    measured = None
    if job.val_images:
        measured = training.measure(job, network, interrupted=interrupted, saw=saw, detailed=True)
        if measured is None:
            return None
        if measured.tta is not None:
            reporter.on_log(describe_passes(DEFAULT_PASSES))
    environment = describe_environment(job.devices)
    into.mkdir(parents=True, exist_ok=True)
    shown = (job.val_images or job.train_images)[:CHECKED_PICTURES]
    files = write_model(network, job.record, into, pictures=[job.read(image) for image in shown])
    return Publication(
        record=job.record,
        metrics=None if measured is None else {**measured.metrics.as_json(), "split": Split.VAL.value},
        details=None if measured is None else measured.details,
        tta=None if measured is None else measured.tta,
        complexity=count_complexity(network, job.input_size_hw),
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
